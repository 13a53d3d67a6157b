"""Turned, zoomed and slanted views: hypotheses of how one image lies in the other.

The descriptors bear moderate changes of view only. Where the plain match is weak, thumbnails of the two images, turned,
scaled and slanted against one another, are matched; those whose matches agree best with one affine map say how the
images are to be warped for a second, full match: GCM's homography pre-warp, without the need of a first good match.
Where the plain match is good, the map that its matches have in common is undone if it is a notable one. The caller
keeps the second match only when clearly more of its coarse matches are confirmed by their neighbours than before, so
that a hypothesis cannot hurt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.matchers.common.nearest_neighbours import mutual_nearest_neighbours
from ros2_densematch.matchers.gcm.encoding import GcmEncoding, Thumbnail

Encoder = Callable[[NDArray[np.uint8], NDArray[np.bool_]], GcmEncoding]
_THUMBNAIL = 0.5


class View(NamedTuple):
    """How a thumbnail is seen.

    Attributes:
        turn: degrees.
        scale: relative to half the working size.
        tilt: how much shorter it is along one axis, as from a slant: 2 is a slant of 60 degrees.
        axis: of the tilt, degrees from the image's x axis towards its top.
    """

    turn: float = 0.0
    scale: float = 1.0
    tilt: float = 1.0
    axis: float = 0.0

    def linear(self) -> Float64:
        """(2, 2), from working pixels to pixels of the thumbnail."""
        squeeze = _rotation(-self.axis) @ np.diag([1 / self.tilt, 1.0]) @ _rotation(self.axis)
        return np.asarray(_THUMBNAIL * self.scale * squeeze @ _rotation(self.turn), np.float64)


_PLAIN = View()
_ANGLES = tuple(float(a) for a in range(0, 360, 45))
# scales of (reference, query)
_SCALES = ((1.0, 1.0), (0.5, 1.0), (0.25, 1.0), (1.0, 0.5), (1.0, 0.25))
_SLANTED = tuple(View(tilt=2.0, axis=axis) for axis in (0.0, 45.0, 90.0, 135.0))
# what is compared: turned and of another scale, or one of the two seen from a slant (the idea of ASIFT, Morel and Yu
# 2009, whose tilts are sqrt(2) apart because SIFT bears less)
_COMPARED = (
    *((View(angle, s0), View(0.0, s1)) for angle in _ANGLES for s0, s1 in _SCALES if (angle, s0) != (0.0, s1)),
    *((view, _PLAIN) for view in _SLANTED),
    *((_PLAIN, view) for view in _SLANTED),
)
_LEAST_VOTES = 8
# the convolution library compiles and keeps code, and the heap keeps holes, for every new image size: few sizes, then
_CANVAS_MULTIPLE = 64
_LARGEST_ANISOTROPY = 5.0
_TRIED = 3
_DISTINCT = 0.3
_LARGEST_ENLARGEMENT = 1.2
# a common map beyond these is worth undoing before the images are matched again
_NOTABLE_ANISOTROPY = 1.4
_NOTABLE_SCALE = 1.5
_NOTABLE_TURN = np.deg2rad(20.0)
# of averaging an image before it is squeezed
_AVERAGED = 0.4  # standard deviation of the averaging, over sqrt(squeeze^2 - 1)
_LEAST_SQUEEZE = 1.2  # less than that aliases hardly
_LARGEST_SQUEEZE = 16.0
_PARALLAX = 0.02  # of the image size: how far a match of a scene with depth may be from the common map


class Hypothesis(NamedTuple):
    """How the reference image lies in the query image.

    Attributes:
        linear: (2, 2) linear part of the map from reference to query, in working pixels.
        votes: matches of the thumbnails that agree on one affine map.
    """

    linear: Float64
    votes: int


def warped_encoding(
    encoding: GcmEncoding, linear: Float64, encode: Encoder, multiple: int = _CANVAS_MULTIPLE
) -> tuple[GcmEncoding, Float64]:
    """Encoding of the warped working image, and the map from its pixels to the original working pixels."""
    image, allowed, back = warped(encoding.rgb, encoding.allowed, linear, multiple)
    return encode(image, allowed), back


def best_hypotheses(reference: GcmEncoding, query: GcmEncoding, encode: Encoder, similarity: float) -> list[Hypothesis]:
    """The affine maps on which thumbnails of the two images agree best, at most three that differ; most votes first.

    The thumbnails are kept in the encodings: a keyframe's are made once.
    """
    found: list[Hypothesis] = []
    for view0, view1 in _COMPARED:
        first, second = _thumbnail(reference, view0, encode), _thumbnail(query, view1, encode)
        mutual = mutual_nearest_neighbours(first.descriptors, second.descriptors)
        good = mutual.similarity > similarity
        if int(good.sum()) < _LEAST_VOTES:
            continue
        x0 = first.keypoints[mutual.first[good].cpu().numpy()]
        x1 = second.keypoints[mutual.second[good].cpu().numpy()]
        linear, votes = _common_map(x0, x1, 3.0)
        linear = second.back[:, :2] @ linear @ np.linalg.inv(first.back[:, :2])
        if votes >= _LEAST_VOTES and _anisotropy(linear) < _LARGEST_ANISOTROPY:
            found.append(Hypothesis(linear, votes))
    best: list[Hypothesis] = []
    for hypothesis in sorted(found, key=lambda h: -h.votes):
        if all(_difference(hypothesis.linear, other.linear) > _DISTINCT for other in best):
            best.append(hypothesis)
    return best[:_TRIED]


def common_frame(linear: Float64) -> tuple[Float64, Float64]:
    """Maps of the two images into one frame in which neither is enlarged (beyond 1.2): the sharper one loses what the
    other lacks.

    With linear = U S V', the reference is mapped by U min(S, 1) V' and the query by U min(1 / S, 1) U'.

    Args:
        linear: (2, 2), reference to query.

    Returns:
        (2, 2) for the reference and (2, 2) for the query; the second is the identity where the query need not change.
    """
    u, s, v = np.linalg.svd(linear)
    if s[0] <= _LARGEST_ENLARGEMENT:
        return linear, np.eye(2)
    return u @ np.diag(np.minimum(s, 1.0)) @ v, u @ np.diag(np.minimum(1.0 / s, 1.0)) @ u.T


def common_hypothesis(reference_xy: Float64, query_xy: Float64, size: tuple[int, int]) -> Hypothesis | None:
    """The affine map that matches have in common, or None when undoing it would change little.

    GCM (section 3.2) undoes a homography of all matches before it matches again; an affine map is enough to bring the
    two images into about the same view, and is stable.

    Args:
        reference_xy: (N, 2) working pixels, right and wrong matches.
        query_xy: (N, 2).
        size: (width, height) of the reference.
    """
    if len(reference_xy) < _LEAST_VOTES:
        return None
    linear, votes = _common_map(reference_xy, query_xy, _PARALLAX * max(size))
    anisotropy = _anisotropy(linear)
    if votes < _LEAST_VOTES or anisotropy > _LARGEST_ANISOTROPY:
        return None
    larger, smaller = np.linalg.svd(linear, compute_uv=False)
    turn = abs(np.arctan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1]))
    alike = larger < _NOTABLE_SCALE and smaller > 1 / _NOTABLE_SCALE and turn < _NOTABLE_TURN
    return None if alike and anisotropy < _NOTABLE_ANISOTROPY else Hypothesis(linear, votes)


def _common_map(x0: NDArray[Any], x1: NDArray[Any], threshold: float) -> tuple[Float64, int]:
    """Linear part (2, 2) of the affine map with most inliers, and their number."""
    affine, inliers = cv2.estimateAffine2D(
        x0, x1, method=cv2.RANSAC, ransacReprojThreshold=threshold, maxIters=500, confidence=0.99
    )
    if affine is None:
        return np.eye(2), 0
    return np.asarray(affine[:, :2], np.float64), int(inliers.sum())


def _difference(linear: Float64, other: Float64) -> float:
    """How far one map is from the other, relative to it."""
    return float(np.linalg.norm(linear - other) / max(float(np.linalg.norm(other)), 1e-9))


def _anisotropy(linear: Float64) -> float:
    """Larger over smaller singular value; infinite for a map that mirrors or flattens."""
    if np.linalg.det(linear) <= 1e-9:
        return float("inf")
    larger, smaller = np.linalg.svd(linear, compute_uv=False)
    return float(larger / smaller)


def _thumbnail(encoding: GcmEncoding, view: View, encode: Encoder) -> Thumbnail:
    if view not in encoding.thumbnails:
        small, back = warped_encoding(encoding, view.linear(), encode, 1)  # their sizes are few, and small
        keypoints = small.keypoints.cpu().numpy().astype(np.float32)
        encoding.thumbnails[view] = Thumbnail(keypoints, small.keypoint_descriptors, back)
    return encoding.thumbnails[view]


def _rotation(degrees: float) -> Float64:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s], [s, c]])


def warped(
    image: NDArray[np.uint8], allowed: NDArray[np.bool_] | None, linear: Float64, multiple: int = 1
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], Float64]:
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
    scale = float(np.linalg.norm(linear, 2))
    if scale < 0.95:
        size = max(16, round(width * scale)), max(16, round(height * scale))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        mask = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8)
        sx, sy = size[0] / width, size[1] / height
        shrink = np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]])
        linear = linear / scale
        height, width = image.shape[:2]
    image = _averaged_along(image, linear)
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


def _averaged_along(image: NDArray[np.uint8], linear: Float64) -> NDArray[np.uint8]:
    """The image averaged in the direction in which a map squeezes it, so that nothing aliases when it is resampled.

    A Gaussian; of t pixels that fall into one, a box would have a standard deviation of 0.29 sqrt(t^2 - 1).
    """
    _, (larger, smaller), directions = np.linalg.svd(linear)
    squeeze = min(larger / max(smaller, 1e-6), _LARGEST_SQUEEZE)
    if squeeze < _LEAST_SQUEEZE:
        return image
    sigma = _AVERAGED * np.sqrt(squeeze**2 - 1)
    reach = int(np.ceil(2.5 * sigma))
    offset = np.mgrid[-reach : reach + 1, -reach : reach + 1][::-1]
    along = directions[1, 0] * offset[0] + directions[1, 1] * offset[1]
    across = directions[0, 0] * offset[0] + directions[0, 1] * offset[1]
    kernel = np.exp(-0.5 * (along / sigma) ** 2 - 0.5 * (across / 0.3) ** 2)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE), np.uint8)
