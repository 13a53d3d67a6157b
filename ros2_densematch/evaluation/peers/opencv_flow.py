"""OpenCV's optical flow as matchers: DIS (dense) and pyramidal Lucas-Kanade (corners), checked forward and backward."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Image, Mask
from ros2_densematch.evaluation.peers.opencv_features import POINTS, grey
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.base import Encoding, Matcher

CHECK_PX = 1.0
STEP = 4  # DIS: one match in each block of 4 x 4 pixels


class _Flow(Matcher):
    """A flow needs both images in one size: the query is brought to that of the reference."""

    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> NDArray[np.uint8]:
        return grey(image)

    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> Correspondences:
        image0, image1 = reference.data, query.data
        (width, height), (query_width, query_height) = reference.size, query.size
        if image1.shape != image0.shape:
            image1 = cv2.resize(image1, (width, height), interpolation=cv2.INTER_AREA)
        xy0, xy1, error = self._track(image0, image1)
        inside = (xy1 >= 0).all(1) & (xy1[:, 0] <= width - 1) & (xy1[:, 1] <= height - 1)
        kept = np.flatnonzero((error < CHECK_PX) & inside)
        overlap = len(kept) / max(len(xy0), 1)
        kept = np.sort(kept[np.argsort(error[kept], kind="stable")][:max_matches])
        scale = np.array([query_width / width, query_height / height])
        there = ((xy1[kept] + 0.5) * scale - 0.5).astype(np.float32)
        score = (1.0 - error[kept] / CHECK_PX).astype(np.float32)
        return Correspondences(xy0[kept].astype(np.float32), there, score, overlap, reference.size, query.size)

    def _track(self, image0: Any, image1: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Points (N, 2) in both images, and how far each comes back from where it started, pixels."""
        raise NotImplementedError


class DisFlow(_Flow):
    """Kroeger et al., "Fast optical flow using dense inverse search", ECCV 2016; OpenCV's medium preset."""

    name = "opencv-dis"

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def _track(self, image0: Any, image1: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        calc: Any = self._dis.calc  # its type does not know that the result may be left to OpenCV
        forward, backward = np.asarray(calc(image0, image1, None)), np.asarray(calc(image1, image0, None))
        height, width = image0.shape
        y, x = (v.ravel() for v in np.mgrid[STEP // 2 : height : STEP, STEP // 2 : width : STEP])
        xy0 = np.stack([x, y], 1).astype(np.float32)
        xy1 = xy0 + forward[y, x]
        at = xy1.astype(np.float32)[:, None]
        back = cv2.remap(backward, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
        returned = xy1 + back[:, 0]
        return xy0, xy1, np.linalg.norm(returned - xy0, axis=1)


class LucasKanade(_Flow):
    """Bouguet, "Pyramidal implementation of the Lucas Kanade feature tracker", 2001; Shi and Tomasi's corners."""

    name = "opencv-lk"

    def _track(self, image0: Any, image1: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        corners = cv2.goodFeaturesToTrack(image0, POINTS, 0.001, 4)
        if corners is None:
            none = np.zeros((0, 2), np.float32)
            return none, none, none[:, 0]
        window = {"winSize": (21, 21), "maxLevel": 4}
        there, found, _ = cv2.calcOpticalFlowPyrLK(image0, image1, corners, None, **window)  # type: ignore[call-overload]
        back, returned, _ = cv2.calcOpticalFlowPyrLK(image1, image0, there, None, **window)  # type: ignore[call-overload]
        xy0, xy1 = corners.reshape(-1, 2), there.reshape(-1, 2)
        error = np.linalg.norm(back.reshape(-1, 2) - xy0, axis=1)
        error[(found.ravel() == 0) | (returned.ravel() == 0)] = np.inf
        return xy0, xy1, error
