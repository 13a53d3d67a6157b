"""A matcher in one file, to start from: ORB key points and mutual nearest neighbours."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.base import Encoding, Image, Mask, Matcher


class ToyMatcher(Matcher):
    """Rublee et al., "ORB: an efficient alternative to SIFT or SURF", ICCV 2011."""

    name = "toy"  # as in the entry point

    def __init__(self, *, device: str = "auto", preset: str = "base", weights: str | None = None):
        if preset != "base":
            raise ValueError(f"unknown preset {preset!r} of toy: choose base")
        if device not in ("auto", "cpu"):
            raise ValueError(f"toy runs on the CPU only, got device={device!r}: use cpu or auto")
        self.preset = preset
        self._light = cv2.createCLAHE(4.0, (16, 16))  # key points in the shade too
        self._orb = cv2.ORB.create(8000, edgeThreshold=7, patchSize=15, fastThreshold=5)

    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> Any:
        """Everything that can be done with one image: places (N, 2) in its pixels, and descriptors (N, 32)."""
        grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image, np.uint8)
        points, descriptors = self._orb.detectAndCompute(self._light.apply(grey), None)
        if descriptors is None:
            return np.zeros((0, 2), np.float32), np.zeros((0, 32), np.uint8)
        xy = np.array([point.pt for point in points], np.float32)
        if mask is not None:  # nothing may be matched where it is False
            column, row = np.floor(xy + 0.5).astype(int).T
            xy, descriptors = xy[mask[row, column]], descriptors[mask[row, column]]
        return xy, np.asarray(descriptors, np.uint8)

    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> Correspondences:
        """Places that belong together, the best pair first; the same encodings and seed give the same matches."""
        (xy0, first), (xy1, second) = reference.data, query.data
        if not len(xy0) or not len(xy1):
            return Correspondences.empty(reference.size, query.size)
        found = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(first, second)
        sure = sum(match.distance < 32 for match in found)  # of all, not only of those that are asked for
        found = sorted(found, key=lambda match: (match.distance, match.queryIdx))[:max_matches]
        return Correspondences(
            xy0[np.array([match.queryIdx for match in found], np.intp)],
            xy1[np.array([match.trainIdx for match in found], np.intp)],
            np.array([1 - match.distance / 256 for match in found], np.float32),
            overlap=sure / min(len(xy0), len(xy1)),
            reference_size=reference.size,
            query_size=query.size,
        )
