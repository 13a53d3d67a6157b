"""What each stage of `gcm` gives: pose AUC, MMA and corner accuracy with stages switched off.

    python benchmarks/ablation.py --data ../shared/data --out out/ablation.json

Images at a longer side of 640 pixels; PoseLib with an epipolar threshold of 1 px (10,000 iterations, seed 0) for the
pose pairs, OpenCV USAC_MAGSAC 1.5 px for the homographies. Single rows vary by about three points of AUC with the
choice of pairs; differences between rows on the same pairs by less.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file

from ros2_densematch.evaluation.pose import pose_auc, pose_errors_deg
from ros2_densematch.matchers.base import Encoding
from ros2_densematch.matchers.gcm.matcher import GcmMatcher

SIDE = 640
EXACT = ("lund_door", "strecha_fountain", "strecha_herzjesu")
ALL = ("refine", "grow", "filter", "hypotheses")
# name -> (weights: None = shipped, "start" = before our training; stages)
ROWS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "start: ImageNet backbone, random heads": ("start", ("refine", "grow", "hypotheses")),
    "trained, all stages": (None, ALL),
    "without sub-pixel refinement": (None, ("grow", "filter", "hypotheses")),
    "without growth": (None, ("refine", "filter", "hypotheses")),
    "without the learned filter": (None, ("refine", "grow", "hypotheses")),
    "without hypotheses": (None, ("refine", "grow", "filter")),
}

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]


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


def pose_rows(data: Path) -> Iterator[tuple[str, Path, Path, Floats]]:
    """Set, two images and the 34 numbers K0 K1 T_0to1 of every pose pair."""
    for folder in sorted((data / "pose_pairs").iterdir()):
        for line in (folder / "pairs.txt").read_text("utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                first, second, *numbers = line.split()
                yield folder.name, folder / first, folder / second, np.array([float(n) for n in numbers])


class Encoder:
    """Encodings of the last few images."""

    def __init__(self, matcher: GcmMatcher) -> None:
        self._matcher = matcher
        self._kept: dict[Path, tuple[Encoding, float]] = {}

    def __call__(self, path: Path) -> tuple[Encoding, float]:
        if path not in self._kept:
            if len(self._kept) > 12:
                self._kept.pop(next(iter(self._kept)))
            image, scale = load(path)
            self._kept[path] = self._matcher.encode(image), scale
        return self._kept[path]


def pinhole(k: Floats, scale: float) -> dict[str, Any]:
    """PoseLib camera of a 3x3 matrix, for an image resized by `scale` (pixel centres at whole numbers)."""
    fx, fy = k[0, 0] * scale, k[1, 1] * scale
    cx, cy = (k[0, 2] + 0.5) * scale - 0.5, (k[1, 2] + 0.5) * scale - 0.5
    return {"model": "PINHOLE", "width": int(2 * cx) + 1, "height": int(2 * cy) + 1, "params": [fx, fy, cx, cy]}


def measure_poses(matcher: GcmMatcher, data: Path, every: int) -> dict[str, Any]:
    """AUC@5/10/20 over all pairs and AUC@1/3/5 over those with exact ground truth, in per cent."""
    import poselib

    encode = Encoder(matcher)
    errors: list[float] = []
    exact: list[float] = []
    for name, path0, path1, numbers in list(pose_rows(data))[::every]:
        (reference, s0), (query, s1) = encode(path0), encode(path1)
        m = matcher.match(reference, query)
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
        "auc_5_10_20": (100 * pose_auc(errors)).round(1).tolist(),
        "exact_auc_1_3_5": (100 * pose_auc(exact, (1.0, 3.0, 5.0))).round(1).tolist(),
    }


def measure_homographies(matcher: GcmMatcher, data: Path) -> dict[str, Any]:
    """MMA@1/3/5 and corner accuracy@1/3/5 in per cent."""
    encode = Encoder(matcher)
    mma, corners = [], []
    for folder in sorted((data / "homography").iterdir()):
        for i in range(2, 7):
            (reference, s0), (query, s1) = encode(folder / "1.png"), encode(folder / f"{i}.png")
            m = matcher.match(reference, query)
            h = _scaling(s1) @ np.loadtxt(folder / f"H_1_{i}") @ np.linalg.inv(_scaling(s0))
            x0, x1 = m.reference_xy.astype(np.float64), m.query_xy.astype(np.float64)
            error = np.linalg.norm(_apply(h, x0) - x1, axis=1)
            mma.append([float((error < t).mean()) if len(m) else 0.0 for t in (1, 3, 5)])
            corners.append(_corner_error(h, x0, x1, reference.size))
    accuracy = [100 * float(np.mean(np.array(corners) < t)) for t in (1, 3, 5)]
    return {"mma_1_3_5": np.mean(mma, 0).round(3).tolist(), "corner_accuracy_1_3_5": accuracy}


def _scaling(s: float) -> Floats:
    return np.array([[s, 0, 0.5 * s - 0.5], [0, s, 0.5 * s - 0.5], [0, 0, 1.0]])


def _apply(h: Floats, xy: Floats) -> Floats:
    mapped = np.c_[xy, np.ones(len(xy))] @ h.T
    return np.asarray(mapped[:, :2] / mapped[:, 2:])


def _corner_error(h: Floats, x0: Floats, x1: Floats, size: tuple[int, int]) -> float:
    if len(x0) < 4:
        return float("inf")
    cv2.setRNGSeed(0)
    estimate, _ = cv2.findHomography(x0, x1, cv2.USAC_MAGSAC, 1.5, maxIters=10000, confidence=0.99999)
    if estimate is None:
        return float("inf")
    w, height = size[0] - 1.0, size[1] - 1.0
    corners = np.array([[0, 0], [w, 0], [w, height], [0, height]])
    error = float(np.linalg.norm(_apply(np.asarray(estimate, np.float64), corners) - _apply(h, corners), axis=1).mean())
    return error if np.isfinite(error) else float("inf")


def start_weights(folder: Path) -> str:
    """The network before our training: ImageNet backbone, random heads; needs the `train` extra."""
    import torch

    from ros2_densematch.matchers.gcm.network import GcmNetwork
    from ros2_densematch.nn.efficientnet_lite import load_imagenet
    from ros2_densematch.training.descriptor import imagenet_state

    torch.manual_seed(0)
    network = GcmNetwork()
    load_imagenet(network.backbone, imagenet_state())
    path = folder / "start.safetensors"
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, str(path))
    return str(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("out/ablation.json"))
    parser.add_argument("--every", type=int, default=1, help="use every n-th pose pair")
    parser.add_argument("--row", action="append", help="only the rows whose name contains this")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    for name, (weights, stages) in ROWS.items():
        if arguments.row and not any(r in name for r in arguments.row):
            continue
        path = start_weights(arguments.out.parent) if weights == "start" else weights
        # before training the saliency means nothing: any local maximum may be a key point
        threshold = -1e9 if weights == "start" else -5.0
        matcher = GcmMatcher(device="cpu", weights=path, stages=frozenset(stages), saliency_threshold=threshold)
        figures = measure_poses(matcher, arguments.data, arguments.every)
        figures.update(measure_homographies(matcher, arguments.data))
        results[name] = figures
        print(name, json.dumps(figures), flush=True)
        partial = arguments.out.with_suffix(".part")
        partial.write_text(json.dumps(results, indent=1), "utf-8")
        os.replace(partial, arguments.out)


if __name__ == "__main__":
    main()
