"""From the frame before to this one: optical flow of a few points, and what it says about all of them."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.matchers.common.local_affine import estimate_local_affine, nearest_matches
from ros2_densematch.matchers.gcm.guided_image import GuideImage
from ros2_densematch.matchers.prior import Prior

_SEED_CELL = 40  # pixels: one point of each such square is followed
# of images of half the size: the way is short, and each point is aligned afterwards
_WINDOW, _LEVELS = 15, 2
_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.03)
_RETURNS_PX = 0.7  # a followed point comes back this near to where it began, in pixels of the full image
_LEAST_SEEDS = 8
_FEATURES, _LEAST_ALIKE, _ALIKE_PX = 800, 25, 8.0  # of a leap
_VOTERS = 8
# a point that moved less than this stands still, while the others move by more, on the way of its surroundings too
_STILL_PX, _MOVING_PX = 0.35, 4.0
_CONTRAST = 0.06, 5.0  # relative change of contrast, and grey values of brightness, that flow does not bear


class Carried(NamedTuple):
    """Prediction of all points.

    Attributes:
        xy: (N, 2) pixels of this frame.
        linear: (N, 2, 2) maps of small offsets from the frame before to this one.
        seeds: how many points were followed there and back.
    """

    xy: Float64
    linear: Float64
    seeds: int


def leap(previous: GuideImage, query: GuideImage) -> Float64 | None:
    """The homography (3, 3) from one image to another that optical flow cannot reach; None where nothing is alike.

    Binary features at half the size: they find a start for the flow, nothing more.
    """
    corners = cv2.ORB.create(_FEATURES)
    (first, a), (second, b) = (corners.detectAndCompute(image.half, None) for image in (previous, query))
    if a is None or b is None:
        return None
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(a, b)
    if len(matches) < _LEAST_ALIKE:
        return None
    before = np.array([first[m.queryIdx].pt for m in matches]) * 2.0 + 0.5
    now = np.array([second[m.trainIdx].pt for m in matches]) * 2.0 + 0.5
    H, alike = cv2.findHomography(before, now, cv2.RANSAC, _ALIKE_PX)
    if H is None or int(alike.sum()) < _LEAST_ALIKE:
        return None
    return np.asarray(H, np.float64)


def carry(
    previous: GuideImage, query: GuideImage, previous_xy: Float64, guess: Float64, rank: Float64, *, far: bool = False
) -> Carried | None:
    """Where points of the frame before are now; None where too few could be followed.

    Args:
        previous, query: the two images.
        previous_xy: (N, 2) pixels of the frame before.
        guess: (N, 2) pixels of this frame at which they are expected.
        rank: (N,) the point with the largest rank of a neighbourhood is followed.
        far: they may have moved further than the flow can follow: `leap` finds the way, and the flow the rest of it.
    """
    leaped = _leaped(previous, query, previous_xy, rank) if far else None
    if leaped is not None:
        return leaped
    seeds = spread(previous_xy, rank, previous.admits(previous_xy, _WINDOW))
    if len(seeds) < _LEAST_SEEDS:
        return None
    before = _halved(previous_xy[seeds])
    first, second = _equally_bright(previous, query), query.half
    now, found = _flow(first, second, before, _halved(guess[seeds]))
    back, returned = _flow(second, first, now, before.copy())
    error = 2.0 * np.linalg.norm(back - before, axis=2)[:, 0]
    now_xy = (now[:, 0].astype(np.float64) + 0.5) * 2.0 - 0.5
    good = found & returned & (error < _RETURNS_PX) & query.admits(now_xy, _WINDOW)
    if good.sum() < _LEAST_SEEDS:
        return None
    seeds, now_xy = seeds[good], now_xy[good]
    nearest = nearest_matches(previous_xy[seeds], _VOTERS, previous_xy)
    local = estimate_local_affine(
        previous_xy[seeds], now_xy, at=previous_xy, neighbours=nearest, robust_scale=2.0, pull=40.0, iterations=3
    )
    return Carried(local.predicted, local.linear, int(good.sum()))


def _leaped(previous: GuideImage, query: GuideImage, previous_xy: Float64, rank: Float64) -> Carried | None:
    """As `carry`, from the frame before as the homography of a leap shows it; None where there is none."""
    H = leap(previous, query)
    if H is None:
        return None
    ahead = Prior.from_homography(previous_xy, H)
    if len(ahead) < len(previous_xy):  # some points are sent behind the image: no leap of a camera
        return None
    inside = np.ones(previous.grey.shape, np.uint8) if previous.allowed is None else previous.allowed.astype(np.uint8)
    grey, allowed = (cv2.warpPerspective(layer, H, query.size) for layer in (previous.grey, inside))
    shown = GuideImage(np.asarray(grey, np.uint8), np.asarray(allowed) > 0)
    rest = carry(shown, query, ahead.query_xy, ahead.query_xy, rank)
    if rest is None:
        return None
    assert ahead.linear is not None
    return rest._replace(linear=rest.linear @ ahead.linear)


def spread(xy: Float64, rank: Float64, eligible: NDArray[np.bool_], cell: int = _SEED_CELL) -> NDArray[np.intp]:
    """The best eligible point of each square of `cell` pixels, in the order of the squares."""
    index = np.flatnonzero(eligible)
    column, row = (xy[index] // cell).astype(np.int64).T
    square = row * 65536 + column
    order = np.lexsort((-rank[index], square))
    _, first = np.unique(square[order], return_index=True)
    return np.asarray(index[order[first]], np.intp)


def stands_still(reference_xy: Float64, query_xy: Float64) -> NDArray[np.bool_]:
    """Points (N,) that stay in their place in the image while the rest moves: writing on the picture, the robot itself.

    What the rest does at a point is an affine map of all moving points: near the centre of an expansion or of a roll,
    where that map does not move either, nothing can be told.

    Args:
        reference_xy, query_xy: (N, 2) pixels.
    """
    still = np.linalg.norm(query_xy - reference_xy, axis=1) < _STILL_PX
    moving = np.linalg.norm(query_xy - reference_xy, axis=1) > _MOVING_PX
    if not still.any() or moving.sum() < max(_LEAST_SEEDS, len(still) // 4):
        return np.zeros(len(still), np.bool_)
    design = np.column_stack([reference_xy, np.ones(len(reference_xy))])
    affine = np.linalg.lstsq(design[moving], query_xy[moving], rcond=None)[0]
    expected = np.linalg.norm(design @ affine - reference_xy, axis=1)
    return np.asarray(still & (expected > _MOVING_PX), np.bool_)


def _flow(
    first: NDArray[np.uint8], second: NDArray[np.uint8], xy: NDArray[np.float32], start: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    moved, status, _ = cv2.calcOpticalFlowPyrLK(
        first,
        second,
        xy,
        start,
        winSize=(_WINDOW, _WINDOW),
        maxLevel=_LEVELS,
        criteria=_CRITERIA,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    return np.asarray(moved, np.float32), np.asarray(status[:, 0] > 0, np.bool_)


def _halved(xy: Float64) -> NDArray[np.float32]:
    """(N, 1, 2) pixels of the image of half the size."""
    return ((xy + 0.5) / 2.0 - 0.5).astype(np.float32).reshape(-1, 1, 2)


def _equally_bright(image: GuideImage, like: GuideImage) -> NDArray[np.uint8]:
    """The image at half its size, with the brightness and contrast of another: flow takes them for constant."""
    (mean, deviation), (wanted, contrast) = image.brightness, like.brightness
    gain = (contrast + 1.0) / (deviation + 1.0)
    if abs(gain - 1) < _CONTRAST[0] and abs(mean - wanted) < _CONTRAST[1]:
        return image.half
    table = np.clip((np.arange(256) - mean) * gain + wanted, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image.half, table), np.uint8)
