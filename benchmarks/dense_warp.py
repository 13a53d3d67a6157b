"""How much of what is visible in both images the dense warp covers with certainty, and how right it is there.

    python benchmarks/dense_warp.py --data ../shared/data [--matcher gcm]

On the four stereo pairs of `dense/stereo`. A pixel of the left image counts as visible when its disparity is known, its
place lies inside the right image, and no pixel with a larger disparity leads to that place. Of the visible pixels:
`covered` is the share with a certainty above 0.5; of those, `within 3 px` the share whose warp errs by less than 3 px.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch import load_matcher

# grey levels per pixel of disparity
PAIRS = {"cones": 4, "bull": 8, "poster": 8, "sawtooth": 8}


def visible_pixels(disparity: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(H, W): seen in the right image too. 0 means an unknown disparity."""
    height, width = disparity.shape
    column = np.arange(width)[None] - np.round(disparity).astype(int)
    candidate = (disparity > 0) & (column >= 0)
    nearest = np.zeros_like(disparity)
    rows = np.broadcast_to(np.arange(height)[:, None], disparity.shape)
    place = (rows[candidate], column[candidate])
    np.maximum.at(nearest, place, disparity[candidate])
    visible = candidate.copy()
    visible[candidate] = disparity[candidate] >= nearest[place] - 1.0
    return visible


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--matcher", default="gcm")
    arguments = parser.parse_args()
    matcher = load_matcher(arguments.matcher, device="cpu")
    figures = []
    for name, factor in PAIRS.items():
        folder = arguments.data / "dense" / "stereo" / name
        images = [cv2.imread(str(folder / file), cv2.IMREAD_COLOR) for file in ("im2.png", "im6.png")]
        stored = cv2.imread(str(folder / "disp2.png"), cv2.IMREAD_GRAYSCALE)
        if stored is None or any(image is None for image in images):
            raise SystemExit(f"{folder} lacks im2.png, im6.png or disp2.png: give the data folder with --data")
        disparity = stored.astype(np.float64) / factor
        left, right = (matcher.encode(np.ascontiguousarray(image[..., ::-1])) for image in images)
        warp = matcher.match(left, right).warp
        if warp is None:
            raise SystemExit(f"{arguments.matcher} gives no dense warp")
        height, width = disparity.shape
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        error = np.hypot(warp.xy[..., 0] - (x - disparity), warp.xy[..., 1] - y)
        visible, sure = visible_pixels(disparity), warp.certainty > 0.5
        figures.append([float(sure[visible].mean()), float((error[sure & visible] < 3).mean())])
        print(f"{name:10s} covered {figures[-1][0]:.3f}, within 3 px {figures[-1][1]:.3f}")
    covered, within = np.mean(figures, axis=0)
    print(f"{'mean':10s} covered {covered:.3f}, within 3 px {within:.3f}")


if __name__ == "__main__":
    main()
