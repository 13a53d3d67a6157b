"""The rolling shutter of the camera that is tracked: how long it takes, and what it does to each frame.

How fast the camera turns is known from the poses of successive frames. What is left is one number, the time from the
first row to the last. Every frame that is tracked says something about it: the residuals of its matches
change with it in a pattern that neither pose nor depth can imitate. These estimates are averaged over some seconds of
turning, and the rays of the frames that follow are corrected (`geometry.rolling_shutter`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.rolling_shutter import RollingCamera
from ros2_densematch.tracking.localisation import Localisation
from ros2_densematch.tracking.refinement import PointPriors, further_parameters
from ros2_densematch.tracking.structure import Structure

_MIN_POINTS, _MAX_POINTS = 20, 700  # that one frame's evidence is taken from
_ACCELERATION = np.radians(200.0)  # rad/s^2, standard deviation: a camera in a hand
_MEAN_STD = np.radians(8.0)  # rad/s, of the mean of two frames' rates from the turn between them
_SKEW_STD = np.radians(10.0)  # rad/s, of a rate from the skew of one image, beyond the noise of its matches
_MOST_STD = 3.0  # of the acceleration, by which a rate changes at most
_GAIN = 2.0  # one linear step finds about half: points and inliers have adapted to the present value
_MODEL_STD_S = 0.007  # of one frame's estimate beyond the noise of its matches: the rate of turning is not constant
_PRIOR_STD_S = 0.010  # of the readout about 0, a global shutter
_MEMORY = 0.97  # share of the evidence that is kept from frame to frame
_MAX_STEP_S, _MAX_S = 0.015, 0.050
# a shorter readout, or one of fewer standard deviations, counts as a global shutter
_LEAST_S, _SURE = 0.005, 3.0


@dataclass(frozen=True)
class Shutter:
    """The readout time of one camera. It never changes: what a frame teaches makes another one.

    Attributes:
        given_s: seconds from the first row to the last; None = estimated, beginning with a global shutter.
    """

    given_s: float | None
    _weight: float = 0.0
    _weighted: float = 0.0

    @property
    def readout_s(self) -> float:
        """Seconds from the first row to the last; 0 = all rows at once, as far as is known."""
        if self.given_s is not None:
            return self.given_s
        estimate, std = self._estimate_s(), (self._weight + _PRIOR_STD_S**-2) ** -0.5
        return estimate if abs(estimate) >= max(_LEAST_S, _SURE * std) else 0.0

    def camera(self, camera: Camera, rate: Float64 | None) -> Camera:
        """The camera of a frame.

        Args:
            camera: at rest or in an earlier state of turning.
            rate: (3,) angular velocity in rad/s in the camera's frame; None where it is not known.
        """
        if isinstance(camera, RollingCamera):
            camera = camera.at_rest()
        if self.readout_s == 0.0 or rate is None:
            return camera
        return RollingCamera.of(camera, rate, self.readout_s)

    def learned(
        self,
        found: Localisation,
        matches: Correspondences,
        structure: Structure,
        camera: Camera,
        keyframe_rate: Float64 | None,
        rate: Float64 | None,
    ) -> Shutter:
        """With the evidence of a tracked frame about the readout time.

        Args:
            found, matches: of the frame against a keyframe, with known length; query = frame.
            structure: the keyframe's points.
            camera: of the frame.
            keyframe_rate, rate: (3,) angular velocities of the keyframe and of the frame; None where not known.
        """
        if self.given_s is not None or keyframe_rate is None or rate is None or not found.has_length:
            return self
        sights = _Sights.of(found, matches, structure, camera)
        if sights is None:
            return self
        derivative = sights.predicted_by_turn(keyframe_rate) - sights.observed_by_turn(rate)
        evidence = further_parameters(sights.T, sights.priors, sights.xy, sights.weight, derivative[:, :, None])
        gradient, information = float(evidence.gradient[0]), float(evidence.information[0, 0])
        if not (information > 0 and np.isfinite(gradient)):
            return self
        step = float(np.clip(_GAIN * gradient / information, -_MAX_STEP_S, _MAX_STEP_S))
        weight = 1.0 / (1.0 / information + _MODEL_STD_S**2)
        heavier = replace(self, _weight=_MEMORY * self._weight + weight)
        # with the new weight already: steps are long (`_GAIN`), and this holds them back
        readout_s = float(np.clip(heavier.readout_s + step, -_MAX_S, _MAX_S))
        return replace(heavier, _weighted=_MEMORY * self._weighted + weight * readout_s)

    def _estimate_s(self) -> float:
        return self._weighted / (self._weight + _PRIOR_STD_S**-2)

    def rate(
        self,
        found: Localisation,
        matches: Correspondences,
        structure: Structure,
        camera: Camera,
        assumed: Float64 | None,
        R_before_from_now: Float64,
        seconds: float,
    ) -> Float64:
        """Angular velocity (3,) in rad/s of a frame whose pose was found.

        Three sources, each with its uncertainty: the rate of the frame before, the turn since then (the mean of both
        rates times the time between), and the skew of the image itself. The pose depends on the rate that was assumed
        to find it; that is taken into account to first order.

        Args:
            found, matches, structure, camera: as in `learned`.
            assumed: (3,) rate with which `found` was found: that of the frame before; None = there is none, the camera
                is taken to turn evenly.
            R_before_from_now: (3, 3) between the two frames' cameras.
            seconds: between them.
        """
        mean = poses.log_rotation(R_before_from_now) / seconds
        if assumed is None:
            return mean
        information = np.eye(3) / (_ACCELERATION * seconds) ** 2
        change = 0.5 * np.eye(3)  # of the mean rate by a change x of this frame's, less what the pose changes by it
        pull = np.zeros(3)
        sights = _Sights.of(found, matches, structure, camera) if self.readout_s != 0.0 else None
        if sights is not None:
            moves = np.stack([-self.readout_s * sights.observed_by_turn(axis) for axis in np.eye(3)], 2)
            evidence = further_parameters(sights.T, sights.priors, sights.xy, sights.weight, moves)
            if np.isfinite(evidence.information).all() and np.isfinite(evidence.pose_change).all():
                # a left perturbation of T_frame_from_keyframe turns the camera the other way
                change += evidence.pose_change[3:] / seconds
                covariance = np.linalg.pinv(evidence.information, rcond=1e-9, hermitian=True)
                weight = np.linalg.inv(covariance + _SKEW_STD**2 * np.eye(3))
                information, pull = information + weight, weight @ covariance @ evidence.gradient
        # mean rate: (assumed + assumed + x) / 2 = mean - pose_change x / seconds
        information = information + change.T @ change / _MEAN_STD**2
        pull = pull + change.T @ (mean - assumed) / _MEAN_STD**2
        step = np.linalg.solve(information, pull)
        limit = _MOST_STD * _ACCELERATION * seconds  # a wrong pose turns by anything
        return np.asarray(assumed + step * min(1.0, limit / max(float(np.linalg.norm(step)), 1e-12)), np.float64)


@dataclass(frozen=True)
class _Sights:
    """Observations that say something about the shutter.

    Attributes:
        T: (4, 4) T_frame_from_keyframe.
        priors: the keyframe's points.
        xy, weight: (N, 2) normalised coordinates in the frame, (N,) their inverse variances.
        row, keyframe_row: (N,) in [-1/2, 1/2] of the image's height.
    """

    T: Float64
    priors: PointPriors
    xy: Float64
    weight: Float64
    row: Float64
    keyframe_row: Float64

    @staticmethod
    def of(found: Localisation, matches: Correspondences, structure: Structure, camera: Camera) -> _Sights | None:
        """The inliers of a tracked frame, or some of them; None where they are too few."""
        chosen = np.flatnonzero(found.inliers)
        if len(chosen) < _MIN_POINTS or not found.has_length:
            return None
        chosen = chosen[np.linspace(0, len(chosen) - 1, min(len(chosen), _MAX_POINTS)).astype(np.intp)]
        index = found.index[chosen]
        return _Sights(
            found.T_frame_from_keyframe,
            structure.priors(index),
            found.xy[chosen],
            found.weight[chosen] / found.sigma**2,
            (matches.query_xy[chosen, 1] + 0.5) / camera.height - 0.5,
            (structure.xy[index, 1] + 0.5) / structure.camera.height - 0.5,
        )

    def observed_by_turn(self, rate: Float64) -> Float64:
        """Change (N, 2) of the observed coordinates by a second of readout while the frame turns with `rate` (3,)."""
        ray = np.column_stack([self.xy, np.ones(len(self.xy))])
        return _slope(ray, np.cross(np.broadcast_to(rate, ray.shape), ray)) * self.row[:, None]

    def predicted_by_turn(self, rate: Float64) -> Float64:
        """Change (N, 2) of the predicted coordinates by a second of readout while the keyframe turned with `rate`."""
        bearing = self.priors.bearing
        turned = np.cross(np.broadcast_to(rate, bearing.shape), bearing) * self.keyframe_row[:, None]
        turned = turned - bearing * turned[:, 2:]  # its third component stays 1
        R, t = self.T[:3, :3], self.T[:3, 3]
        return _slope(bearing @ R.T + self.priors.rho[:, None] * t, turned @ R.T)


def _slope(ray: Float64, change: Float64) -> Float64:
    """Change (N, 2) of X/Z and Y/Z of rays (N, 3) that change by (N, 3)."""
    z: NDArray[np.float64] = np.where(np.abs(ray[:, 2:]) < 1e-9, 1e-9, ray[:, 2:])
    return np.asarray((change[:, :2] - ray[:, :2] / z * change[:, 2:]) / z)
