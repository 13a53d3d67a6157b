"""The development data as pairs of images, and how matches on them are judged: shared by the benchmarks of this folder.

Images at a longer side of 640 pixels. PoseLib with an epipolar threshold of 1 px (10,000 iterations, seed 0) for the
pose pairs, OpenCV USAC_MAGSAC 1.5 px for the homographies: the protocol of `../shared/measure/measure.py`.

    python benchmarks/pairs.py condl --every 4        # any matcher on every n-th pair, for a first look
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ros2_densematch.arrays import Float64, Image
from ros2_densematch.evaluation.pose import pose_auc, pose_errors_deg
from ros2_densematch.files.atomic import write_text
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.base import Encoding, Matcher
from ros2_densematch.matchers.registry import load_matcher

SIDE = 640
# sets whose ground truth is exact
EXACT = ("lund_door", "strecha_fountain", "strecha_herzjesu")


def load(path: Path) -> tuple[Image, float]:
    """RGB image at a longer side of at most `SIDE`, and the scale that was applied."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise FileNotFoundError(f"cannot read image {path}: restore the development data")
    scale = min(1.0, SIDE / max(image.shape[:2]))
    if scale < 1:
        size = round(image.shape[1] * scale), round(image.shape[0] * scale)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image[..., ::-1], dtype=np.uint8), scale


def pose_rows(data: Path) -> Iterator[tuple[str, Path, Path, Float64]]:
    """Set, two images and the 34 numbers K0 K1 T_0to1 of every pose pair."""
    for folder in sorted((data / "pose_pairs").iterdir()):
        for line in (folder / "pairs.txt").read_text("utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                first, second, *numbers = line.split()
                yield folder.name, folder / first, folder / second, np.array([float(n) for n in numbers])


def pinhole(k: Float64, scale: float) -> dict[str, Any]:
    """PoseLib camera of a 3x3 matrix, for an image resized by `scale` (pixel centres at whole numbers)."""
    fx, fy = k[0, 0] * scale, k[1, 1] * scale
    cx, cy = (k[0, 2] + 0.5) * scale - 0.5, (k[1, 2] + 0.5) * scale - 0.5
    return {"model": "PINHOLE", "width": int(2 * cx) + 1, "height": int(2 * cy) + 1, "params": [fx, fy, cx, cy]}


@dataclass
class Timed:
    """A matcher whose encodings are kept while the next pairs may need them, and the processor time it took.

    Attributes:
        matcher: any.
        max_matches: per pair; None keeps all.
        keep: so many encodings.
        seconds: processor time of each encoding and of each match.
    """

    matcher: Matcher
    max_matches: int | None = 5000
    keep: int = 8
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"encode": [], "match": []})
    _kept: dict[tuple[Path, bool], tuple[Encoding, float]] = field(default_factory=dict)

    def encode(self, path: Path, *, reference: bool) -> tuple[Encoding, float]:
        """Encoding of an image file, and the scale at which it was read."""
        reference &= self.matcher.reference_encoding_differs
        key = (path, reference)
        if key in self._kept:
            self._kept[key] = self._kept.pop(key)  # the latest one goes last
        else:
            if len(self._kept) >= self.keep:
                self._kept.pop(next(iter(self._kept)))
            image, scale = load(path)
            start = time.process_time()
            encoding = self.matcher.encode(image, reference=reference)
            self.seconds["encode"].append(time.process_time() - start)
            self._kept[key] = encoding, scale
        return self._kept[key]

    def match(self, path0: Path, path1: Path) -> tuple[Correspondences, float, float]:
        """Matches of two image files, and the scales of the two."""
        (reference, s0), (query, s1) = self.encode(path0, reference=True), self.encode(path1, reference=False)
        start = time.process_time()
        matches = self.matcher.match(reference, query, max_matches=self.max_matches, seed=0)
        self.seconds["match"].append(time.process_time() - start)
        return matches, s0, s1

    def milliseconds(self) -> dict[str, float]:
        """Median processor time of an encoding and of a match."""
        return {k: round(1e3 * float(np.median(v)), 1) for k, v in self.seconds.items() if v}


def measure_poses(timed: Timed, data: Path, every: int) -> dict[str, Any]:
    """AUC in per cent of the larger of rotation and translation error, over every n-th pose pair and the exact ones."""
    import poselib

    errors: list[float] = []
    exact: list[float] = []
    for name, path0, path1, numbers in list(pose_rows(data))[::every]:
        m, s0, s1 = timed.match(path0, path1)
        error = 180.0
        if len(m) >= 5:
            options = {"max_epipolar_error": 1.0, "max_iterations": 10000, "seed": 0}
            cameras = pinhole(numbers[:9].reshape(3, 3), s0), pinhole(numbers[9:18].reshape(3, 3), s1)
            pose, _ = poselib.estimate_relative_pose(
                m.reference_xy.astype(np.float64), m.query_xy.astype(np.float64), *cameras, options, {}
            )
            estimate = np.eye(4)
            estimate[:3] = pose.Rt
            if np.isfinite(estimate).all():
                error = max(pose_errors_deg(estimate, numbers[18:34].reshape(4, 4)))
        errors.append(error)
        if name in EXACT:
            exact.append(error)
    return {
        "pairs": len(errors),
        "auc_5_10_20": (100 * pose_auc(errors)).round(1).tolist(),
        "exact_auc_1_3_5": (100 * pose_auc(exact, (1.0, 3.0, 5.0))).round(1).tolist(),
    }


@dataclass
class HomographyFigures:
    """Figures of homography pairs, one entry a pair.

    Attributes:
        matches: how many there were.
        errors: distances of the matches from the truth in pixels.
        corners: mean error of the image corners under the estimated homography, pixels.
    """

    matches: list[int] = field(default_factory=list)
    errors: list[Float64] = field(default_factory=list)
    corners: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Means over the pairs, and the median of the corner errors; accuracy of the corners in per cent."""
        mma = [[float((e < t).mean()) if len(e) else 0.0 for t in (1, 3, 5)] for e in self.errors]
        return {
            "pairs": len(self.matches),
            "matches": round(float(np.mean(self.matches))),
            "within_3_px": round(float(np.mean([(e < 3).sum() for e in self.errors]))),
            "mma_1_3_5": np.mean(mma, 0).round(3).tolist(),
            "median_corner_px": round(float(np.median(self.corners)), 2),
            "corner_accuracy_1_3_5": [100 * float(np.mean(np.array(self.corners) < t)) for t in (1, 3, 5)],
        }


def measure_homographies(
    timed: Timed, data: Path, *, every: int = 1, after: Callable[[], None] | None = None
) -> HomographyFigures:
    """Matches every n-th homography pair; `after` is called after each."""
    figures = HomographyFigures()
    pairs = [(folder, i) for folder in sorted((data / "homography").iterdir()) for i in range(2, 7)]
    for folder, i in pairs[::every]:
        m, s0, s1 = timed.match(folder / "1.png", folder / f"{i}.png")
        truth = _scaling(s1) @ np.loadtxt(folder / f"H_1_{i}") @ np.linalg.inv(_scaling(s0))
        x0, x1 = m.reference_xy.astype(np.float64), m.query_xy.astype(np.float64)
        figures.matches.append(len(m))
        figures.errors.append(np.linalg.norm(apply(truth, x0) - x1, axis=1))
        figures.corners.append(corner_error(truth, x0, x1, m.reference_size))
        if after is not None:
            after()
    return figures


def _scaling(s: float) -> Float64:
    return np.array([[s, 0, 0.5 * s - 0.5], [0, s, 0.5 * s - 0.5], [0, 0, 1.0]])


def apply(h: Float64, xy: Float64) -> Float64:
    """Points (N, 2) under a homography."""
    mapped = np.c_[xy, np.ones(len(xy))] @ h.T
    return np.asarray(mapped[:, :2] / mapped[:, 2:])


def corner_error(h: Float64, x0: Float64, x1: Float64, size: tuple[int, int]) -> float:
    """Mean distance in pixels of the corners of a (width, height) image under the estimated and the true homography."""
    if len(x0) < 4:
        return float("inf")
    cv2.setRNGSeed(0)
    estimate, _ = cv2.findHomography(x0, x1, cv2.USAC_MAGSAC, 1.5, maxIters=10000, confidence=0.99999)
    if estimate is None:
        return float("inf")
    w, height = size[0] - 1.0, size[1] - 1.0
    corners = np.array([[0, 0], [w, 0], [w, height], [0, height]])
    there = apply(np.asarray(estimate, np.float64), corners)
    error = float(np.linalg.norm(there - apply(h, corners), axis=1).mean())
    return error if np.isfinite(error) else float("inf")


def write_results(path: Path, results: dict[str, Any] | list[dict[str, Any]]) -> None:
    """JSON, whole or not at all: a run that is stopped leaves the rows that it finished."""
    write_text(path, json.dumps(results, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("matcher", help="a name of the registry")
    parser.add_argument("--preset", default="base")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--every", type=int, default=4)
    arguments = parser.parse_args()
    timed = Timed(load_matcher(arguments.matcher, device="cpu", preset=arguments.preset))
    print(json.dumps({**measure_poses(timed, arguments.data, arguments.every), "milliseconds": timed.milliseconds()}))
    print(json.dumps(measure_homographies(timed, arguments.data, every=arguments.every).summary()))


if __name__ == "__main__":
    main()
