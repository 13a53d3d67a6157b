"""Two views whose cameras are not known: fundamental matrix, homography, and which of the two the matches call for.

Hartley and Zisserman, "Multiple View Geometry", 2nd edition, chapters 4 (homography) and 11 (fundamental matrix).
Estimated by PoseLib's LO-RANSAC.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lgamma, log

import numpy as np
import poselib  # type: ignore[import-untyped]

from ros2_densematch.arrays import BoolArray, Float64
from ros2_densematch.geometry.correspondences import Correspondences

_MIN_INLIERS = 15  # as in COLMAP's two-view geometry
_PLANAR_SHARE = 0.8  # of the fundamental matrix's inliers that one homography explains: a plane or a pure rotation


@dataclass(frozen=True, eq=False)
class UncalibratedPair:
    """What two images say of each other without calibration. Pixels of the original images, origin at the centre of the
    top-left one.

    Attributes:
        kind: "fundamental" (a scene with depth), "homography" (one plane, or a camera that only turned) or "none".
        fundamental: float64 (3, 3) with x_query' F x_reference = 0, largest singular value 1; None for none.
        homography: float64 (3, 3), query pixel ~ H reference pixel, H[2, 2] = 1 where it is not 0; None as above.
        fundamental_inliers, homography_inliers: bool (N,), matches within the threshold.
        status: the decision in words.
    """

    kind: str
    fundamental: Float64 | None
    homography: Float64 | None
    fundamental_inliers: BoolArray
    homography_inliers: BoolArray
    status: str

    @property
    def inliers(self) -> BoolArray | None:
        """bool (N,), the matches that agree with the matrix of `kind`; None where there is none."""
        return {"homography": self.homography_inliers, "fundamental": self.fundamental_inliers}.get(self.kind)


def estimate_uncalibrated(matches: Correspondences, *, max_error_px: float = 1.5, seed: int = 0) -> UncalibratedPair:
    """Fundamental matrix and homography of a pair, and which of them to use.

    Args:
        matches: pixels of the original images.
        max_error_px: largest Sampson distance of an inlier of the fundamental matrix, and largest transfer error of one
            of the homography.
        seed: of the random draws.

    Raises:
        ValueError: `max_error_px` is not positive.
    """
    if not max_error_px > 0:
        raise ValueError(f"max_error_px must be positive, got {max_error_px}")
    count = len(matches)
    none = np.zeros(count, np.bool_)
    if count < _MIN_INLIERS:
        return UncalibratedPair("none", None, None, none, none, f"{count} matches: at least {_MIN_INLIERS} are needed")
    a, b = matches.reference_xy.astype(np.float64), matches.query_xy.astype(np.float64)
    ransac = {"max_epipolar_error": max_error_px, "max_reproj_error": max_error_px, "seed": seed, "min_iterations": 100}
    F, of_F = poselib.estimate_fundamental(a, b, ransac, {})
    H, of_H = poselib.estimate_homography(a, b, ransac, {})
    on_F, on_H = np.asarray(of_F["inliers"], np.bool_), np.asarray(of_H["inliers"], np.bool_)
    least = max(_MIN_INLIERS, _by_chance(count, matches.query_size, max_error_px))
    if max(on_F.sum(), on_H.sum()) < least:
        status = f"{int(on_F.sum())} of {count} matches agree, fewer than the {least} needed for a decision"
        return UncalibratedPair("none", None, None, on_F, on_H, status)
    share = float((on_F & on_H).sum()) / max(int(on_F.sum()), 1)
    planar = share > _PLANAR_SHARE or on_H.sum() > on_F.sum()
    status = (
        f"one homography explains {int(on_H.sum())} of {count} matches: a plane, or a camera that only rotated"
        if planar
        else f"{int(on_F.sum())} of {count} matches agree with one epipolar geometry, "
        f"{100 * share:.0f} % of them with one homography"
    )
    H = np.asarray(H, np.float64)
    return UncalibratedPair(
        "homography" if planar else "fundamental",
        np.asarray(F, np.float64) / np.linalg.norm(F, 2),
        H / H[2, 2] if abs(H[2, 2]) > 1e-12 * np.abs(H).max() else H,
        on_F,
        on_H,
        status,
    )


def _by_chance(count: int, size: tuple[int, int], max_error_px: float) -> int:
    """Least number of inliers that matches without meaning do not reach: fewer than one such model is expected.

    Moisan and Stival, "A probabilistic criterion to detect rigid point matches between two images and estimate the
    fundamental matrix", IJCV 2004, section 4: (n - 7) C(n, k) C(k, 7) p^(k - 7) < 1.
    """
    width, height = size
    p = min(2.0 * max_error_px * float(np.hypot(width, height)) / (width * height), 1.0)
    for k in range(8, count + 1):
        false_alarms = log(max(count - 7, 1)) + _log_choose(count, k) + _log_choose(k, 7) + (k - 7) * log(p)
        if false_alarms < 0:
            return k
    return count + 1


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
