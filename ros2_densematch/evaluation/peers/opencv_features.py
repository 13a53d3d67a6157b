"""OpenCV's SIFT, ORB and AKAZE at 4096 key points with mutual nearest neighbours; SIFT with the ratio test as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Image, Mask
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.base import Encoding, Matcher

POINTS = 4096
RATIO = 0.8


def grey(image: Image) -> NDArray[np.uint8]:
    """An RGB or grey image as grey, contiguous."""
    return np.ascontiguousarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image, np.uint8)


class OpenCvFeatures(Matcher):
    """Key points and descriptors of OpenCV at its defaults.

    Args:
        kind: "sift" (Lowe 2004), "orb" (Rublee et al. 2011) or "akaze" (Alcantarilla et al. 2013).
    """

    def __init__(self, kind: str):
        self.name = f"opencv-{kind}"
        self._ratio = RATIO if kind == "sift" else None
        self._norm = cv2.NORM_L2 if kind == "sift" else cv2.NORM_HAMMING
        create: dict[str, Callable[[], Any]] = {
            "sift": lambda: cv2.SIFT.create(POINTS),
            "orb": lambda: cv2.ORB.create(POINTS),
            "akaze": cv2.AKAZE.create,
        }
        self._detector = create[kind]()

    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> Any:
        points, descriptors = self._detector.detectAndCompute(
            grey(image), None if mask is None else mask.astype(np.uint8)
        )
        if len(points) > POINTS:  # AKAZE has no limit of its own
            best = sorted(range(len(points)), key=lambda i: -points[i].response)[:POINTS]
            points, descriptors = [points[i] for i in best], descriptors[best]
        return np.array([p.pt for p in points], np.float32).reshape(-1, 2), descriptors

    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> Correspondences:
        (xy0, d0), (xy1, d1) = reference.data, query.data
        if d0 is None or d1 is None or min(len(d0), len(d1)) < 2:
            return Correspondences.empty(reference.size, query.size)
        brute_force = cv2.BFMatcher(self._norm)
        back = {m.queryIdx: m.trainIdx for m in brute_force.match(d1, d0)}
        kept = []
        for first, second in brute_force.knnMatch(d0, d1, k=2):
            ratio = first.distance / max(second.distance, 1e-12)
            if back.get(first.trainIdx) == first.queryIdx and (self._ratio is None or ratio < self._ratio):
                kept.append((first.queryIdx, first.trainIdx, min(ratio, 1.0)))
        # in the order of the key points: a robust estimator that draws at random depends on the order
        best = sorted(range(len(kept)), key=lambda i: kept[i][2])[:max_matches]
        kept = [kept[i] for i in sorted(best)]
        index = np.array([(i, j) for i, j, _ in kept], np.intp).reshape(-1, 2)
        score = np.array([1.0 - r for _, _, r in kept], np.float32)
        overlap = len(kept) / min(len(xy0), len(xy1))
        return Correspondences(xy0[index[:, 0]], xy1[index[:, 1]], score, overlap, reference.size, query.size)
