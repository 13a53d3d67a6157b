"""Whether another focal length would fit the matches of a recording better than the calibration's own.

A wrong focal length bends epipolar lines in a way that no relative pose makes good, where the camera turns and moves at
once; it does so alike in every pair. Each pair gives the derivative of its epipolar errors by the focal length, freed
of what its own pose can explain (the Schur complement of the normal equations); their sum over many pairs gives the
focal length with its standard deviation. Without turning, or without parallax, the sum stays small and nothing is said.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import least_squares, models, poses, rays
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.intrinsics import IntrinsicUncertainty
from ros2_densematch.geometry.relative_pose import Geometry, RelativePose
from ros2_densematch.geometry.shared_errors import same_calibration

_MATCHES = 256  # of a pair are enough
_LEAST_MATCHES = 60
_MOST_GROUPS = 1000  # the newest are kept: a live camera runs for days
_PAIRS_A_GROUP = 4  # pairs of one reference image have errors in common: more of them say little more
_STEP = 0.002  # of the focal length, for the derivative
_LEAST_TURN_DEG = 2.0  # pairs that turn less say next to nothing
_TUKEY = 4.685
# When the pairs say enough and what is said, by benchmarks/focal_fit.py on rendered passes (docs/reliability.md).
_LEAST_PAIRS = 6
_LARGEST_STD = 0.01
_TOLERATED = 0.02
_SHOWS = 0.04  # an error of so much must be beyond doubt, where the motion is said to show one
_SURE = 4.0  # standard deviations
# From few groups the standard deviation itself is uncertain: quantiles (0.995) of Student's distribution.
_SURE_OF_FEW = {3: 9.92, 4: 5.84, 5: 4.60}
# Only the focal length is asked about, as a share of itself.
_FOCAL = IntrinsicUncertainty(focal=1.0, principal_point=0.0, distortion=0.0, rolling_shutter=0.0)


@dataclass(frozen=True)
class FocalFinding:
    """What the pairs say together.

    Attributes:
        factor: the focal length that fits best over the calibration's.
        std: standard deviation of `factor`, from how the groups of pairs differ.
        pairs, groups: how many pairs, and reference images that they were matched against.
    """

    factor: float
    std: float
    pairs: int
    groups: int

    @property
    def certain(self) -> float:
        """The relative error that is beyond doubt."""
        return _SURE_OF_FEW.get(self.groups, _SURE) * self.std

    @property
    def shown(self) -> bool:
        """Whether the pairs would show a focal length that is wrong by 5 %."""
        return self.pairs >= _LEAST_PAIRS and self.std <= _LARGEST_STD and self.certain <= _SHOWS

    @property
    def wrong(self) -> bool:
        """Whether the focal length is wrong, beyond doubt and by more than is tolerated."""
        return self.shown and abs(self.factor - 1.0) >= max(_TOLERATED, self.certain)


class FocalFit:
    """Collects pairs of one camera; some milliseconds for every reference image."""

    def __init__(self) -> None:
        self._camera: Camera | None = None
        self._since = 0
        self._sums: dict[int, Float64] = {}  # group -> information, score, pairs

    def add(
        self,
        m: Correspondences,
        inliers: NDArray[np.bool_],
        camera: Camera,
        pose: RelativePose,
        *,
        frame: int,
        reference: int,
    ) -> None:
        """Takes a pair of images; pairs that cannot tell anything are passed over.

        Args:
            m: its matches.
            inliers: bool (N,), those that agree with the pose.
            camera: of the query image; where it is another one than before, everything restarts.
            pose: the relative pose by these matches.
            frame, reference: numbers of query and reference image, in their order.
        """
        if self._camera is None:
            self._camera = camera
        elif not same_calibration(camera, self._camera):
            self._camera, self._since = camera, frame
            self._sums.clear()
        if reference < self._since:  # of the camera before
            return
        group = reference
        if self._sums.get(group, np.zeros(3))[2] >= _PAIRS_A_GROUP:
            return
        R, t = pose.T_query_from_reference[:3, :3], pose.T_query_from_reference[:3, 3]
        length = float(np.linalg.norm(t))
        if pose.geometry is not Geometry.CALIBRATED or length == 0 or poses.rotation_angle_deg(R) < _LEAST_TURN_DEG:
            return
        chosen = np.flatnonzero(inliers)
        if len(chosen) < _LEAST_MATCHES:
            return
        chosen = chosen[np.linspace(0, len(chosen) - 1, min(len(chosen), _MATCHES)).astype(np.intp)]
        found = _evidence(m.select(chosen), camera, R, t / length)
        if found is not None:
            self._sums[group] = self._sums.get(group, np.zeros(3)) + found
            if len(self._sums) > _MOST_GROUPS:
                del self._sums[next(iter(self._sums))]

    def finding(self) -> FocalFinding | None:
        """The focal length that fits best; None where fewer than three groups of pairs tell."""
        sums = np.array(list(self._sums.values())).reshape(-1, 3)
        information, score, pairs = sums.T
        if len(sums) < 3 or information.sum() <= 0:
            return None
        change = score.sum() / information.sum()
        spread = float(((score - information * change) ** 2).sum())
        std = np.sqrt(spread * len(sums) / (len(sums) - 1)) / information.sum()
        return FocalFinding(1.0 + float(change), float(std), int(pairs.sum()), len(sums))

    @property
    def shown(self) -> bool:
        """Whether the motion so far shows a wrong focal length."""
        finding = self.finding()
        return finding is not None and finding.shown

    def doubt(self) -> str:
        """What is wrong with the focal length, in one sentence with the numbers; "" where nothing is, or the motion
        does not show it."""
        finding, camera = self.finding(), self._camera
        if finding is None or camera is None or not finding.wrong:
            return ""
        change = finding.factor - 1.0
        return (
            f"the focal length does not fit the images: {camera.focal * finding.factor:.1f} px instead of "
            f"{camera.focal:.1f} px ({100 * change:+.1f} %, standard deviation {100 * finding.std:.1f} %) would lower "
            f"the epipolar residuals of {finding.pairs} pairs: check that the calibration is of this camera, lens "
            "setting and image size, or calibrate again"
        )


def _evidence(m: Correspondences, camera: Camera, R: Float64, t: Float64) -> Float64 | None:
    """Information and score about the relative change of the focal length in one pair whose pose is left free, and the
    count 1, (3,)."""
    derivatives = np.concatenate([poses.skew(t) @ models.GENERATORS @ R, poses.skew(models.tangent_basis(t).T) @ R])

    prepared, _ = rays.prepare(m, camera, camera, _FOCAL)
    if len(prepared) < _LEAST_MATCHES:
        return None

    def errors(change: float) -> least_squares.Block:
        moved = rays.recalibrated(prepared, np.array([change]))
        shrunk = (1.0 + change) ** -2
        moved = replace(moved, noise0=prepared.noise0 * shrunk, noise1=prepared.noise1 * shrunk)
        return models.sampson_block(moved, R, t, derivatives)

    block, longer, shorter = errors(0.0), errors(_STEP), errors(-_STEP)
    # The noise of a ray changes with the focal length, too: without that the noise alone would make it longer.
    by_focal = (longer.residual - shorter.residual) / (2.0 * _STEP)
    J = np.concatenate([block.jacobian[:, 0], by_focal])
    residual, scale = block.residual[0], least_squares.noise_scale([block])
    weight = np.maximum(1.0 - (residual / (_TUKEY * scale)) ** 2, 0.0) ** 2 / scale**2
    A, g = (J * weight) @ J.T, -(J * weight) @ residual
    try:
        free = np.linalg.solve(A[:5, :5], np.stack([A[:5, 5], g[:5]], 1))
    except np.linalg.LinAlgError:
        return None
    found = np.array([A[5, 5] - A[5, :5] @ free[:, 0], g[5] - A[5, :5] @ free[:, 1], 1.0])
    return found if np.all(np.isfinite(found)) and found[0] > 0 else None
