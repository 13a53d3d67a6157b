"""Rotation, scale and affine hypotheses, for pairs on which the plain match is weak.

The descriptors bear moderate rotation and zoom only. Thumbnails of the reference, turned in steps of 45 degrees and
scaled by 1/4 to 4 against the query, are matched; the one whose matches agree best with one affine map says how the
reference is to be warped for a second, full match: GCM's homography pre-warp, without the need of a first good match.
The caller keeps the second match only when clearly more of its coarse matches are confirmed by their neighbours than
before, so that a hypothesis cannot hurt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.matchers.gcm.coarse import mutual_nearest_neighbours
from ros2_densematch.matchers.gcm.encoding import GcmEncoding, Thumbnail

FloatArray = NDArray[np.float64]
Encoder = Callable[[NDArray[np.uint8], NDArray[np.bool_]], GcmEncoding]

_ANGLES = tuple(float(a) for a in range(0, 360, 45))
# (scale of the reference, scale of the query) of the thumbnails, relative to half the working size
_SCALES = ((1.0, 1.0), (0.5, 1.0), (0.25, 1.0), (1.0, 0.5), (1.0, 0.25))
_THUMBNAIL = 0.5
_LEAST_VOTES = 12
# the convolution library compiles and keeps code, and the heap keeps holes, for every new image size: few sizes, then
_CANVAS_MULTIPLE = 64
_LARGEST_ANISOTROPY = 3.0


class Hypothesis(NamedTuple):
    """How the reference image lies in the query image.

    Attributes:
        linear: (2, 2) linear part of the map from reference to query, in working pixels.
        votes: matches of the thumbnails that agree on one affine map.
    """

    linear: FloatArray
    votes: int


def warped(
    image: NDArray[np.uint8], allowed: NDArray[np.bool_] | None, linear: FloatArray, multiple: int = 1
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], FloatArray]:
    """The image under a linear map, on a canvas that holds all of it.

    Args:
        image: uint8 (H, W, 3).
        allowed: bool (H, W), or None for everywhere.
        linear: (2, 2), old to new pixel offsets. Shrinking is done first, over areas, so that nothing aliases.
        multiple: of what a turned or sheared image's sides are made multiples; what is added is masked.

    Returns:
        The image, the mask of its valid pixels, and the (2, 3) affine map from new to old pixels.
    """
    height, width = image.shape[:2]
    mask = np.ones((height, width), np.uint8) if allowed is None else allowed.astype(np.uint8)
    shrink = np.eye(3)
    scale = float(np.sqrt(abs(np.linalg.det(linear))))
    if scale < 0.95:
        size = max(16, round(width * scale)), max(16, round(height * scale))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        mask = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8)
        sx, sy = size[0] / width, size[1] / height
        shrink = np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]])
        linear = linear / scale
        height, width = image.shape[:2]
    rest = np.eye(3)
    if not np.allclose(linear, np.eye(2)):
        corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]) @ linear.T
        low, high = corners.min(0), corners.max(0)
        new = [-(-(int(v) + 1) // multiple) * multiple for v in np.ceil(high - low)]
        rest[:2, :2], rest[:2, 2] = linear, -low
        image = np.asarray(
            cv2.warpAffine(image, rest[:2], new, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8
        )
        mask = np.asarray(cv2.warpAffine(mask, rest[:2], new, flags=cv2.INTER_NEAREST), np.uint8)
        mask = np.asarray(cv2.erode(mask, np.ones((9, 9), np.uint8)), np.uint8)
    return image, mask > 0, np.asarray(np.linalg.inv(rest @ shrink)[:2], np.float64)


def warped_encoding(encoding: GcmEncoding, linear: FloatArray, encode: Encoder) -> tuple[GcmEncoding, FloatArray]:
    """Encoding of the warped working image, and the map from its pixels to the original working pixels."""
    image, allowed, back = warped(encoding.rgb, encoding.allowed, linear, _CANVAS_MULTIPLE)
    return encode(image, allowed), back


def best_hypothesis(
    reference: GcmEncoding, query: GcmEncoding, encode: Encoder, similarity: float
) -> Hypothesis | None:
    """The affine map on which thumbnails of the two images agree best, or None when none stands out.

    The thumbnails are kept in the encodings: a keyframe's are made once.
    """
    best: Hypothesis | None = None
    for angle in _ANGLES:
        for scale0, scale1 in _SCALES:
            if angle == 0 and scale0 == scale1:
                continue
            first = _thumbnail(reference, angle, scale0, encode)
            second = _thumbnail(query, 0.0, scale1, encode)
            mutual = mutual_nearest_neighbours(first.descriptors, second.descriptors)
            good = mutual.similarity > similarity
            if int(good.sum()) < _LEAST_VOTES:
                continue
            x0 = first.keypoints[mutual.first[good].cpu().numpy()]
            x1 = second.keypoints[mutual.second[good].cpu().numpy()]
            affine, inliers = cv2.estimateAffine2D(
                x0, x1, method=cv2.RANSAC, ransacReprojThreshold=3.0, maxIters=500, confidence=0.99
            )
            votes = 0 if inliers is None else int(inliers.sum())
            if votes < _LEAST_VOTES or (best is not None and votes <= best.votes):
                continue
            linear = second.back[:, :2] @ affine[:, :2] @ np.linalg.inv(first.back[:, :2])
            spread = np.linalg.svd(linear, compute_uv=False)
            if spread[1] > 0 and spread[0] / spread[1] < _LARGEST_ANISOTROPY and np.linalg.det(linear) > 0:
                best = Hypothesis(np.asarray(linear, np.float64), votes)
    return best


def _thumbnail(encoding: GcmEncoding, angle: float, scale: float, encode: Encoder) -> Thumbnail:
    key = (angle, scale)
    if key not in encoding.thumbnails:
        c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        linear = _THUMBNAIL * scale * np.array([[c, -s], [s, c]])
        small, back = warped_encoding(encoding, linear, encode)
        keypoints = small.keypoints.cpu().numpy().astype(np.float32)
        encoding.thumbnails[key] = Thumbnail(keypoints, small.keypoint_descriptors, back)
    return encoding.thumbnails[key]
