"""SIFT with ratio test and mutual check (OpenCV): the classical baseline behind the same contract."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.base import Encoding, Image, Mask, Matcher


@dataclass(frozen=True)
class _Features:
    xy: NDArray[np.float32]  # (N, 2)
    size: NDArray[np.float32]  # (N,), diameter in pixels
    descriptors: NDArray[np.float32]  # (N, 128)


class SiftMatcher(Matcher):
    """Lowe's SIFT key points (4096 at most), ratio test 0.8 and mutual nearest neighbours.

    Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004, sections 3 to 7.1.
    """

    name = "sift"

    def __init__(self, *, device: str = "auto", preset: str = "base", weights: str | None = None, ratio: float = 0.8):
        if preset != "base":
            raise ValueError(f"unknown preset {preset!r} of sift: choose base")
        if weights not in (None, "random"):
            raise ValueError(f"sift has no weights, got weights={weights!r}: leave it out")
        if device not in ("auto", "cpu"):
            raise ValueError(f"sift runs on the CPU only, got device={device!r}: use cpu or auto")
        if not 0.0 < ratio <= 1.0:
            raise ValueError(f"ratio must lie in (0, 1], got {ratio}")
        self.preset = preset
        self.ratio = ratio
        self._sift = cv2.SIFT.create(4096)

    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> _Features:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
        cv_mask = None if mask is None else mask.astype(np.uint8) * 255
        points, descriptors = self._sift.detectAndCompute(np.ascontiguousarray(grey), cv_mask)
        if descriptors is None:
            descriptors = np.zeros((0, 128), np.float32)
        return _Features(
            np.array([p.pt for p in points], np.float32).reshape(-1, 2),
            np.array([p.size for p in points], np.float32),
            np.asarray(descriptors, np.float32),
        )

    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> Correspondences:
        a: _Features = reference.data
        b: _Features = query.data
        if len(a.xy) < 2 or len(b.xy) < 2:
            return Correspondences.empty(reference.size, query.size)
        brute_force = cv2.BFMatcher(cv2.NORM_L2)
        forward = brute_force.knnMatch(a.descriptors, b.descriptors, k=2)
        backward = {m.queryIdx: m.trainIdx for m in brute_force.match(b.descriptors, a.descriptors)}
        kept = [
            (first.queryIdx, first.trainIdx, first.distance / max(second.distance, 1e-12))
            for first, second in forward
            if first.distance < self.ratio * second.distance and backward.get(first.trainIdx) == first.queryIdx
        ]
        kept.sort(key=lambda row: row[2])
        overlap = len(kept) / min(len(a.xy), len(b.xy))
        if max_matches is not None:
            kept = kept[:max_matches]
        index = np.array([(i, j) for i, j, _ in kept], np.intp).reshape(-1, 2)
        ratio = np.array([r for _, _, r in kept], np.float32)
        # The standard deviation of a SIFT position grows with the scale at which it was found (Lowe 2004, section 4).
        sigma = 0.25 * np.maximum(b.size[index[:, 1]] / 4.0, 1.0)
        precision = np.stack([sigma**-2, np.zeros_like(sigma), sigma**-2], 1).astype(np.float32)
        return Correspondences(
            a.xy[index[:, 0]],
            b.xy[index[:, 1]],
            1.0 - ratio,
            float(overlap),
            reference.size,
            query.size,
            precision,
        )
