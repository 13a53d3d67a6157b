"""Rotation and scale hypotheses, for pairs on which the plain match is weak.

The descriptors bear moderate rotation and zoom only. Thumbnails of the reference, turned in steps of 45 degrees and
scaled by 1/4 to 4 against the query, are matched; the one whose matches agree best with one similarity says how the
reference is to be turned and scaled for a second, full match. The caller keeps the second match only when clearly more of
its matches are confirmed by their neighbours than before, so that a hypothesis cannot hurt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.matchers.gcm.coarse import mutual_nearest_neighbours
from ros2_densematch.matchers.gcm.encoding import GcmEncoding

FloatArray = NDArray[np.float64]
Encoder = Callable[[NDArray[np.uint8], NDArray[np.bool_]], GcmEncoding]

_ANGLES = tuple(float(a) for a in range(0, 360, 45))
# (scale of the reference, scale of the query) of the thumbnails, relative to half the working size
_SCALES = ((1.0, 1.0), (0.5, 1.0), (0.25, 1.0), (1.0, 0.5), (1.0, 0.25))
_THUMBNAIL = 0.5
_LEAST_VOTES = 12


class Hypothesis(NamedTuple):
    """How to bring the reference into the query's frame.

    Attributes:
        angle: degrees by which the reference image is turned.
        reference_scale: factor on the reference image, at most 1.
        query_scale: factor on the query image, at most 1.
        votes: matches of the thumbnails that agree on one similarity.
    """

    angle: float
    reference_scale: float
    query_scale: float
    votes: int


def turned(image: NDArray[np.uint8], allowed: NDArray[np.bool_] | None, angle: float, scale: float) -> tuple[
    NDArray[np.uint8], NDArray[np.bool_], FloatArray
]:
    """The image turned about its centre and scaled, on a canvas that holds all of it.

    Returns:
        The image, the mask of its valid pixels, and the (2, 3) affine map from new to old pixels.
    """
    height, width = image.shape[:2]
    mask = np.ones((height, width), np.uint8) if allowed is None else allowed.astype(np.uint8)
    shrink = np.eye(3)
    if scale != 1.0:
        size = max(16, round(width * scale)), max(16, round(height * scale))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        mask = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8)
        sx, sy = size[0] / width, size[1] / height
        shrink = np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]])
        height, width = image.shape[:2]
    turn = np.eye(3)
    if angle:
        radians = np.deg2rad(angle)
        c, s = np.cos(radians), np.sin(radians)
        new = np.ceil([abs(c) * width + abs(s) * height, abs(s) * width + abs(c) * height]).astype(int)
        rotation = np.array([[c, -s], [s, c]])
        turn[:2, :2] = rotation
        turn[:2, 2] = (new - 1) / 2 - rotation @ ((np.array([width, height]) - 1) / 2)
        flags = cv2.INTER_LINEAR
        image = np.asarray(
            cv2.warpAffine(image, turn[:2], new.tolist(), flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8
        )
        mask = np.asarray(cv2.warpAffine(mask, turn[:2], new.tolist(), flags=cv2.INTER_NEAREST), np.uint8)
        mask = np.asarray(cv2.erode(mask, np.ones((9, 9), np.uint8), borderValue=1), np.uint8)
    return image, mask > 0, np.linalg.inv(turn @ shrink)[:2]


def variant(encoding: GcmEncoding, angle: float, scale: float, encode: Encoder) -> tuple[GcmEncoding, FloatArray]:
    """A turned and scaled version of an encoding, kept in it, and the map from its pixels to the encoding's."""
    image, allowed, to_original = turned(encoding.rgb, encoding.allowed, angle, scale)
    key = (angle, scale)
    if key not in encoding.variants:
        encoding.variants[key] = encode(image, allowed)
    return encoding.variants[key], to_original


def best_hypothesis(reference: GcmEncoding, query: GcmEncoding, encode: Encoder, similarity: float) -> (
    Hypothesis | None
):
    """The turn and scale on which thumbnails of the two images agree best, or None when none stands out."""
    best: Hypothesis | None = None
    for angle in _ANGLES:
        for scale0, scale1 in _SCALES:
            if angle == 0 and scale0 == scale1:
                continue
            first, to_reference = variant(reference, angle, _THUMBNAIL * scale0, encode)
            second, _ = variant(query, 0.0, _THUMBNAIL * scale1, encode)
            mutual = mutual_nearest_neighbours(first.keypoint_descriptors, second.keypoint_descriptors)
            good = mutual.similarity > similarity
            if int(good.sum()) < _LEAST_VOTES:
                continue
            x0 = first.keypoints[mutual.first[good]].cpu().numpy()
            x1 = second.keypoints[mutual.second[good]].cpu().numpy()
            _, inliers = cv2.estimateAffine2D(
                x0, x1, method=cv2.RANSAC, ransacReprojThreshold=3.0, maxIters=500, confidence=0.99
            )
            votes = 0 if inliers is None else int(inliers.sum())
            if votes >= _LEAST_VOTES and (best is None or votes > best.votes):
                best = Hypothesis(angle, scale0, scale1, votes)
    return best
