"""Whether two images are a rectified stereo pair as their calibration says, from a few matches between them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Image
from ros2_densematch.geometry.camera import Camera

_MIN_MATCHES = 25  # fewer say nothing: the next pair is looked at
_ROWS_PX = 2.0  # rectified rows agree well within; in pixels of images with the longer side _SIDE
_SIDE = 640
_MOST = 0.8  # so many disparities must have one sign
_PLAIN = 5.0  # grey values; cameras that start send plain pictures, which are equal
_RATIO = 0.75  # Lowe, "Distinctive image features", IJCV 2004, section 7.1


@dataclass(frozen=True)
class StereoFinding:
    """What a pair shows.

    Attributes:
        problem: why the pair cannot be used, with what was seen; "" = it can.
        flipped: the disparities say that the right camera is on the right although its P says the left (P[0, 3] > 0,
            old drivers): the sign of its baseline is to be changed.
    """

    problem: str = ""
    flipped: bool = False


def check_pair(left: Image, right: Image, left_camera: Camera, right_camera: Camera) -> StereoFinding | None:
    """Looks at one pair; None where it has too few matches to tell.

    Args:
        left, right: uint8 images of a stereo pair, as they are named.
        left_camera, right_camera: their calibrations; the right one's P holds the baseline.
    """
    if np.array_equal(left, right) and left.std() > _PLAIN:
        return StereoFinding("the right images equal the left ones: give the topic of the right camera")
    found = _matches(left, right)
    if found is None:
        return None
    left_xy, right_xy = found
    scale = _SIDE / max(left.shape[:2])
    # With equal cameras rows are equal; a different principal point or focal length is taken out.
    rows = _units(left_xy, left_camera)[:, 1] - _units(right_xy, right_camera)[:, 1]
    dy = rows * left_camera.K[1, 1] * scale
    if np.median(np.abs(dy)) > _ROWS_PX:
        return StereoFinding(
            f"the rows of the two images do not agree: matches differ by {np.median(np.abs(dy)) / scale:.1f} px "
            f"(median of {len(dy)}): the images are not rectified, or not taken at the same time; give rectified and "
            f"synchronised topics"
        )
    level = np.abs(dy - np.median(dy)) < _ROWS_PX
    disparity = (_units(left_xy, left_camera)[:, 0] - _units(right_xy, right_camera)[:, 0])[level]
    disparity = disparity[np.abs(disparity) * left_camera.K[0, 0] * scale > 0.5]  # far points have no sign
    if len(disparity) < _MIN_MATCHES:
        return None
    positive = float(np.mean(disparity > 0))
    if positive < 1.0 - _MOST:
        return StereoFinding(
            f"the disparities are negative ({len(disparity)} matches, {100 * (1 - positive):.0f} %): the right images "
            f"come from the left camera; swap --image-topic and --right-image-topic"
        )
    if positive < _MOST:
        return StereoFinding(
            f"the disparities have both signs ({len(disparity)} matches, {100 * positive:.0f} % positive): the images "
            "are not a rectified pair with parallel axes"
        )
    return StereoFinding(flipped=(right_camera.baseline or 0.0) < 0.0)


def with_positive_baseline(camera: Camera) -> Camera:
    """The camera with the sign of P[0, 3] that means: on the right of the left one."""
    assert camera.P is not None
    P = np.array(camera.P)
    P[0, 3] = -abs(P[0, 3]) * np.sign(P[0, 0])
    return replace(camera, P=P)


def _matches(left: Image, right: Image) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """SIFT matches that pass the ratio test both ways, in pixels of the images."""
    sift = cv2.SIFT.create(nfeatures=1500)
    points, descriptors = [], []
    for image in (left, right):
        grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        scale = min(1.0, _SIDE / max(grey.shape))
        small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1.0 else grey
        keypoints, found = sift.detectAndCompute(small, None)
        if found is None or len(keypoints) < _MIN_MATCHES:
            return None
        points.append(np.array([(np.array(k.pt) + 0.5) / scale - 0.5 for k in keypoints]))
        descriptors.append(found)
    matcher = cv2.BFMatcher(cv2.NORM_L2)

    def best(a: int, b: int) -> dict[int, int]:
        pairs = matcher.knnMatch(descriptors[a], descriptors[b], k=2)
        good = [p for p in pairs if len(p) == 2 and p[0].distance < _RATIO * p[1].distance]
        return {p[0].queryIdx: p[0].trainIdx for p in good}

    ahead, back = best(0, 1), best(1, 0)
    mutual = [(i, j) for i, j in ahead.items() if back.get(j) == i]
    if len(mutual) < _MIN_MATCHES:
        return None
    index = np.array(mutual)
    return points[0][index[:, 0]], points[1][index[:, 1]]


def _units(xy: NDArray[np.float64], camera: Camera) -> NDArray[np.float64]:
    return np.asarray((xy - camera.K[:2, 2]) / np.array([camera.K[0, 0], camera.K[1, 1]]), np.float64)
