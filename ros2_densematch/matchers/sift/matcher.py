"""SIFT with ratio test and mutual check (OpenCV): the classical baseline behind the same contract."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Image, Mask
from ros2_densematch.matchers.base import Encoding, Matcher, RawMatches
from ros2_densematch.matchers.sift.config import PRESETS, SiftConfig


@dataclass(frozen=True)
class _Features:
    xy: NDArray[np.float32]  # (N, 2)
    size: NDArray[np.float32]  # (N,), diameter in pixels
    descriptors: NDArray[np.float32]  # (N, 128)


class SiftMatcher(Matcher):
    """Lowe's SIFT key points, ratio test and mutual nearest neighbours.

    Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004, sections 3 to 7.1.
    """

    name = "sift"
    PRESETS = PRESETS
    config: SiftConfig

    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> _Features:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
        cv_mask = None if mask is None else mask.astype(np.uint8) * 255
        points, descriptors = cv2.SIFT.create(self.config.keypoints).detectAndCompute(
            np.ascontiguousarray(grey), cv_mask
        )
        if descriptors is None:
            descriptors = np.zeros((0, 128), np.float32)
        return _Features(
            np.array([p.pt for p in points], np.float32).reshape(-1, 2),
            np.array([p.size for p in points], np.float32),
            np.asarray(descriptors, np.float32),
        )

    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> RawMatches:
        a: _Features = reference.data
        b: _Features = query.data
        if len(a.xy) < 2 or len(b.xy) < 2:
            return RawMatches.none()
        brute_force = cv2.BFMatcher(cv2.NORM_L2)
        forward = brute_force.knnMatch(a.descriptors, b.descriptors, k=2)
        backward = {m.queryIdx: m.trainIdx for m in brute_force.match(b.descriptors, a.descriptors)}
        kept = [
            (first.queryIdx, first.trainIdx, first.distance / max(second.distance, 1e-12))
            for first, second in forward
            if first.distance < self.config.ratio * second.distance and backward.get(first.trainIdx) == first.queryIdx
        ]
        index = np.array([(i, j) for i, j, _ in kept], np.intp).reshape(-1, 2)
        ratio = np.array([r for _, _, r in kept], np.float32)
        # The standard deviation of a SIFT position grows with the scale at which it was found (Lowe 2004, section 4).
        sigma = 0.25 * np.maximum(b.size[index[:, 1]] / 4.0, 1.0)
        precision = np.stack([sigma**-2, np.zeros_like(sigma), sigma**-2], 1).astype(np.float32)
        return RawMatches(a.xy[index[:, 0]], b.xy[index[:, 1]], 1.0 - ratio, precision)
