"""A closer look at a pair with few confident matches: both images enlarged, matched again, and both results joined.

Enlarged, the network sees a smaller part of the scene at a time, which viewpoint changes less, and tells finer
structure apart. It costs more than the plain match, so that only pairs pay for it on which the plain match found
something but little.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ros2_densematch.matchers.gcm.candidates import Candidates
from ros2_densematch.matchers.gcm.encoding import ENLARGEMENT, GcmEncoding

FloatArray = NDArray[np.float64]
Encoder = Callable[[NDArray[np.uint8], NDArray[np.bool_] | None], GcmEncoding]

# two matches whose reference points are closer than this, in working pixels, are one
_SAME_PLACE = 0.75


def enlarged(encoding: GcmEncoding, encode: Encoder) -> GcmEncoding:
    """The encoding of the enlarged working image, made when it is first needed and then kept.

    Where the original image is larger than the working image, its own pixels are taken instead of interpolated ones.
    `scale` of the result is in enlarged pixels per working pixel.
    """
    if encoding.enlarged is None:
        width, height = encoding.size
        rgb = encoding.detail
        if rgb is None:
            size = round(width * ENLARGEMENT), round(height * ENLARGEMENT)
            rgb = np.asarray(cv2.resize(encoding.rgb, size, interpolation=cv2.INTER_CUBIC), np.uint8)
        size = rgb.shape[1], rgb.shape[0]
        allowed = encoding.allowed
        if allowed is not None:
            allowed = np.asarray(cv2.resize(allowed.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)) > 0
        encoding.enlarged = encode(rgb, allowed)
        encoding.enlarged.scale = np.array([size[0] / width, size[1] / height])
    return encoding.enlarged


def in_working_pixels(candidates: Candidates, reference: GcmEncoding, query: GcmEncoding) -> Candidates:
    """Candidates of two enlarged encodings, in pixels of the working images that those were made from."""
    found = candidates.select(np.ones(len(candidates), np.bool_))
    found.reference_xy = reference.to_original(candidates.reference_xy)
    found.query_xy = query.to_original(candidates.query_xy)
    found.linear = candidates.linear * reference.scale[None, None, :] / query.scale[None, :, None]
    x, y = query.scale
    found.information = candidates.information * np.array([x * x, x * y, y * y])
    found.moved = candidates.moved / float(np.sqrt(x * y))
    return found


def joined_without_repetition(
    first: Candidates, first_score: FloatArray, second: Candidates, second_score: FloatArray
) -> tuple[Candidates, FloatArray]:
    """Both sets of candidates; of two at one place of the reference image, the one with the higher score."""
    candidates = first.joined(second)
    score = np.concatenate([first_score, second_score])
    pairs = cKDTree(candidates.reference_xy).query_pairs(_SAME_PLACE, output_type="ndarray")
    worse = np.where(score[pairs[:, 0]] >= score[pairs[:, 1]], pairs[:, 1], pairs[:, 0])
    kept = np.ones(len(score), np.bool_)
    kept[worse] = False
    return candidates.select(kept), score[kept]
