"""A matcher in one file, to start from: ORB key points and mutual nearest neighbours."""

from __future__ import annotations

from typing import Any, ClassVar

import cv2
import numpy as np
from pydantic import Field

from ros2_densematch.arrays import Image, Mask
from ros2_densematch.matchers.base import Encoding, Matcher, RawMatches
from ros2_densematch.matchers.config import MatcherConfig


class ToyConfig(MatcherConfig):
    """The options: `toy.keypoints` in YAML files, with --set and as ROS parameter, `keypoints=` in Python."""

    keypoints: int = Field(8000, ge=1, le=100_000, description="At most this many key points are taken per image.")


class ToyMatcher(Matcher):
    """Rublee et al., "ORB: an efficient alternative to SIFT or SURF", ICCV 2011."""

    name = "toy"  # as in the entry point
    PRESETS: ClassVar = {"base": ToyConfig()}

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)  # checks preset, device and options
        self._light = cv2.createCLAHE(4.0, (16, 16))  # key points in the shade too
        self._orb = cv2.ORB.create(self.config.keypoints, edgeThreshold=7, patchSize=15, fastThreshold=5)

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

    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> RawMatches:
        """Places that belong together, in any order; the base class checks, orders and cuts them."""
        (xy0, first), (xy1, second) = reference.data, query.data
        if not len(xy0) or not len(xy1):
            return RawMatches.none()
        found = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(first, second)
        return RawMatches(
            xy0[np.array([match.queryIdx for match in found], np.intp)],
            xy1[np.array([match.trainIdx for match in found], np.intp)],
            np.array([1 - match.distance / 256 for match in found]),
        )
