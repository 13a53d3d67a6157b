"""Pose, velocity and their covariances for odometry messages, from frame to frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.relative_pose import UNKNOWN_ROTATION_VARIANCE, Scale
from ros2_densematch.io.results.covariance_chain import CovarianceChain, Link, SharedErrors
from ros2_densematch.io.results.odometry_frame import OdometryFrame, Placement
from ros2_densematch.tracking.tracked_frame import TrackedFrame

# RTAB-Map reads exactly this variance of a twist as "not known" and takes the pose's instead; where the pose's has it
# too it begins a new map. Any other large value would become the weight of its odometry links. (nav2 refuses
# covariances above 1e9.)
UNKNOWN_VARIANCE = 9999.0

# Axes of a body (x forward, y left, z up) and of an optical frame (x right, y down, z forward): REP 103.
T_BODY_FROM_OPTICAL = poses.make_pose([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [0, 0, 0])

# The noise of a link is larger than its residuals say: matches of one surface are off together. Chosen on rendered
# flights (benchmarks/odometry_covariance.py). Where the same few frames triangulated the points, it is larger still.
NOISE_FACTOR, TRIANGULATED_NOISE_FACTOR = 3.0, 9.0
# What these points are off by together, beside it: most of it is in the larger factor.
_POINTS_SHARE = 0.3
# The part of it that two neighbouring frames do not share: they see the same points.
_OWN_SHARE = 0.25

# The length of a pose in an arbitrary unit: variance over the squared length, and the most that it comes to, by which
# the other directions can still be told in the same matrix.
_UNKNOWN_LENGTH, _MOST_LENGTH = 1e4, 0.5 * UNKNOWN_VARIANCE
# How far the camera may have moved where the position is held for want of a baseline, in the unit to come, which is the
# median depth: as far as a triangulation needs (TrackerConfig.min_parallax_deg).
_HELD_STD = 0.02
# The unit of a new segment against that of the one before: both are about the median depth.
_NEW_UNIT_STD = 1.0

# What a camera on a robot or in a hand may do while it is not seen: standard deviations of its accelerations.
_ACCELERATION, _ANGULAR_ACCELERATION = 1.0, 1.0  # m/s^2, rad/s^2
# Other odometry: error over the distance and over the angle, and what is left where it stands still.
_ODOMETRY_SHARE, _ODOMETRY_LEAST_M, _ODOMETRY_LEAST_RAD = 0.05, 0.01, 0.01


@dataclass(frozen=True)
class MetricState:
    """A camera, or what it sits on, at one time.

    Attributes:
        T_world_from_camera: (4, 4) pose in `odom`, metres.
        covariance: (6, 6) of it, perturbation on the left, fixed axes of `odom`.
        velocity: (6,) linear (m/s) and angular (rad/s), in the moving frame.
        velocity_covariance: (6, 6) of it.
        T_map_from_odom: (4, 4).
        map_covariance: (6, 6) of the pose in `map`, likewise.
        apart: nothing connects this pose to the one before: it was held, and all variances are 9999.
    """

    T_world_from_camera: Float64
    covariance: Float64
    velocity: Float64
    velocity_covariance: Float64
    T_map_from_odom: Float64
    map_covariance: Float64
    apart: bool = False

    @property
    def T_map_from_camera(self) -> Float64:
        """(4, 4) pose in `map`."""
        return poses.compose(self.T_map_from_odom, self.T_world_from_camera)


class OdometryChain:
    """Adds what an Odometry message needs to the tracker's poses: metric ones, and others where they are wanted.

    `odom` begins with the axes of the first camera's optical frame and never jumps (`OdometryFrame`). Where it goes on
    after a gap, the covariance grows by what may have happened in it: what other odometry may be wrong by, or else what
    an unseen camera may do. When nothing is left to be known, one state says so (`MetricState.apart`), and the
    covariance restarts at zero.

    In an arbitrary unit five degrees of freedom are known: the variance along the position, seen from where `odom`
    begins, is that of an unknown length; likewise of the velocity.
    """

    def __init__(self) -> None:
        self._frame = OdometryFrame()
        self._in_odom, self._in_map = CovarianceChain(), CovarianceChain()
        self._last: _Last | None = None
        self._torn = False  # the camera was lost before the first length was known

    def forget_worlds(self) -> None:
        """The tracker forgot everything; the odometry goes on."""
        self._frame.forget_worlds()

    def forget_velocity(self) -> None:
        """The next velocity cannot be told from the last pose: another camera took over."""
        if self._last is not None:
            self._last = _Last(self._last.stamp_ns, self._last.T, self._last.step, self._last.velocity, usable=False)

    def move_map(self, T_map_from_camera: Float64) -> bool:
        """See `OdometryFrame.move_map`."""
        return self._frame.move_map(T_map_from_camera)

    def in_odom(self, T_world_from_camera: Float64) -> Float64:
        """A pose (4, 4) of the tracker's present world in `odom`."""
        return poses.compose(self._frame.T_odom_from_world(), T_world_from_camera)

    def add(
        self, tracked: TrackedFrame, odometry: Float64 | None = None, *, unscaled: bool = False
    ) -> MetricState | None:
        """The state at a frame, or None while there is no pose with a length. To be called for every frame, in order.

        Args:
            tracked: the tracker's answer.
            odometry: (4, 4) pose of the camera by other odometry, in any world, or None.
            unscaled: lengths in an arbitrary unit are wanted too.
        """
        arbitrary = tracked.scale is Scale.UNIT
        if unscaled and self._last is None and tracked.scale is Scale.NONE:
            self._hold(tracked)
            self._torn = self._torn or tracked.T_world_from_camera is None
        if tracked.T_world_from_camera is None or tracked.scale is Scale.NONE or (arbitrary and not unscaled):
            self._frame.interrupt()
            return None
        placed = self._frame.place(tracked, odometry)
        T, apart = placed.T_odom_from_camera, False
        if placed.resumed and self._last is not None:
            apart = self._resume(tracked, placed)
        elif self._torn:
            apart, self._torn = True, False
            self._in_odom, self._in_map = CovarianceChain(), CovarianceChain()
        link = _link(tracked)
        known = tracked.calibration
        shared = SharedErrors(tracked.scale_std, known.principal_point, known.focal)
        covariance, map_covariance = (
            chain.add(tracked.index, pose, link, shared, is_keyframe=tracked.is_keyframe)
            for chain, pose in ((self._in_odom, T), (self._in_map, placed.T_map_from_camera))
        )
        step = np.zeros((6, 6)) if link is None else link.noise_in(poses.compose(T, link.T_frame_from_keyframe))
        usable = self._last is not None and self._last.usable and not placed.resumed
        velocity, velocity_covariance = self._velocity(tracked.stamp_ns, T, step, shared, usable=usable)
        self._last = _Last(tracked.stamp_ns, T, step, velocity, usable=True)
        if arbitrary:
            covariance = covariance + _unknown_length(T[:3, 3])
            map_covariance = map_covariance + _unknown_length(placed.T_map_from_camera[:3, 3])
            if velocity_covariance[0, 0] < UNKNOWN_VARIANCE:
                velocity_covariance = velocity_covariance + _unknown_length(velocity[:3])
        if apart:
            covariance = np.eye(6) * UNKNOWN_VARIANCE
        return MetricState(
            T,
            _bounded(covariance),
            velocity,
            _bounded(velocity_covariance),
            placed.T_map_from_odom,
            _bounded(map_covariance),
            apart,
        )

    def _hold(self, tracked: TrackedFrame) -> None:
        """Before the first length is known the tracker holds the position: what it may have moved meanwhile."""
        T, pose = tracked.T_world_from_camera, tracked.relative_pose
        if T is None:
            return
        link = None
        if pose is not None and tracked.T_frame_from_keyframe is not None and tracked.keyframe_index != tracked.index:
            noise = np.zeros((6, 6))
            noise[:3, :3], noise[3:, 3:] = _HELD_STD**2 * np.eye(3), pose.covariance[3:, 3:]
            link = Link(tracked.keyframe_index, tracked.T_frame_from_keyframe, noise)
        for chain in (self._in_odom, self._in_map):
            chain.add(tracked.index, T, link, SharedErrors(), is_keyframe=tracked.is_keyframe)

    def _resume(self, tracked: TrackedFrame, placed: Placement) -> bool:
        """Grows the covariances by what was not seen; True where nothing is known after it."""
        assert self._last is not None
        last, T = self._last, placed.T_odom_from_camera
        seconds = (tracked.stamp_ns - last.stamp_ns) * 1e-9
        if np.array_equal(placed.moved, np.eye(4)):
            growth = unseen_motion(last.velocity, seconds)
        else:
            growth = error_of_odometry(placed.moved)
        turn = np.zeros((6, 6))
        turn[:3, :3] = turn[3:, 3:] = T[:3, :3]
        growth = turn @ growth @ turn.T
        noise = self._in_odom.noise_of(T) + growth
        spread = np.linalg.eigvalsh(noise[:3, :3])[-1], np.linalg.eigvalsh(noise[3:, 3:])[-1]
        apart = seconds <= 0 or spread[0] >= UNKNOWN_VARIANCE or spread[1] >= UNKNOWN_ROTATION_VARIANCE
        self._in_odom = CovarianceChain() if apart else self._in_odom
        unit_std = _NEW_UNIT_STD if placed.new_world and tracked.scale is Scale.UNIT and not apart else 0.0
        self._in_odom.go_on_from(T, np.zeros((6, 6)) if apart else noise, unit_std)
        if placed.new_world:
            known = self._in_map.noise_of(placed.T_map_from_camera)
            self._in_map.go_on_from(placed.T_map_from_camera, known + growth, unit_std)
        return apart

    def _velocity(
        self, stamp_ns: int, T: Float64, step: Float64, shared: SharedErrors, *, usable: bool
    ) -> tuple[Float64, Float64]:
        """Mean velocity since the frame before, in the axes of the present frame.

        A wrong metre and a wrong calibration are wrong in each step too: they grow with the speed, where the noise of
        two poses does not.
        """
        if self._last is None or not usable or stamp_ns <= self._last.stamp_ns:
            return np.zeros(6), np.eye(6) * UNKNOWN_VARIANCE
        seconds = (stamp_ns - self._last.stamp_ns) * 1e-9
        R, before = T[:3, :3], self._last.T
        linear = R.T @ (T[:3, 3] - before[:3, 3]) / seconds
        angular = R.T @ poses.log_rotation(R @ before[:3, :3].T) / seconds
        turn = np.zeros((6, 6))
        turn[:3, :3] = turn[3:, 3:] = R.T
        own = _OWN_SHARE * (step + self._last.step)
        covariance = turn @ (own + self._in_odom.shared_in_step(before, T, shared)) @ turn.T / seconds**2
        return np.concatenate([linear, angular]), covariance


def _link(tracked: TrackedFrame) -> Link | None:
    pose, T = tracked.relative_pose, tracked.T_frame_from_keyframe
    if pose is None or T is None or not pose.ok or tracked.keyframe_index == tracked.index:
        return None
    if tracked.pose_noise is None:
        return Link(tracked.keyframe_index, T, pose.covariance, drift=tracked.unit_drift)
    noise = (TRIANGULATED_NOISE_FACTOR if tracked.unit_drift > 0 else NOISE_FACTOR) * tracked.pose_noise
    if tracked.points_noise is not None:
        noise = noise + _POINTS_SHARE * tracked.points_noise
    # a motion past points and a turn that move them equally in the image are equally well known
    turn = float(np.trace(noise[3:, 3:]))
    depth = float(np.sqrt(np.trace(noise[:3, :3]) / turn)) if turn > 0 else float("nan")
    return Link(tracked.keyframe_index, T, noise, depth, tracked.unit_drift)


def _unknown_length(v: Float64) -> Float64:
    """Covariance (6, 6) of the length of a vector (3,) in an arbitrary unit; the second half is zero."""
    unknown = np.zeros((6, 6))
    unknown[:3, :3] = min(_UNKNOWN_LENGTH, _MOST_LENGTH / max(float(v @ v), 1e-12)) * np.outer(v, v)
    return unknown


@dataclass(frozen=True)
class _Last:
    """The last state: time, pose in odom, noise relative to its keyframe, velocity, whether a velocity may use it."""

    stamp_ns: int
    T: Float64
    step: Float64
    velocity: Float64
    usable: bool


def unseen_motion(velocity: ArrayLike, seconds: float) -> Float64:
    """Covariance (6, 6) of where a camera is that was not seen for a while and is taken to stand still, in its axes.

    It may have gone on with its last velocity (6,), and may have accelerated in any direction.
    """
    v, t = np.asarray(velocity, np.float64), max(seconds, 0.0)
    spread = np.zeros((6, 6))
    for part, acceleration in ((slice(0, 3), _ACCELERATION), (slice(3, 6), _ANGULAR_ACCELERATION)):
        spread[part, part] = np.outer(v[part], v[part]) * t**2 + np.eye(3) * (0.5 * acceleration * t**2) ** 2
    return spread


def error_of_odometry(moved: ArrayLike) -> Float64:
    """Covariance (6, 6) of a motion (4, 4) that other odometry measured, in the axes of the moved frame."""
    T = np.asarray(moved, np.float64)
    length = float(np.linalg.norm(T[:3, 3]))
    angle = float(np.radians(poses.rotation_angle_deg(T)))
    position = (_ODOMETRY_SHARE * length) ** 2 + _ODOMETRY_LEAST_M**2
    rotation = (_ODOMETRY_SHARE * angle) ** 2 + _ODOMETRY_LEAST_RAD**2
    return np.diag([position] * 3 + [rotation] * 3)


def of_base(
    state: MetricState, T_base_from_camera: ArrayLike, T_odom_from_start: ArrayLike | None = None
) -> MetricState:
    """The state of the robot's base, from that of the camera which is fixed on it.

    Covariances are carried over to first order; pose: perturbation on the left, fixed axes of the world, position and
    rotation apart; twist: in the axes of the moving frame.

    Args:
        state: T_world_from_camera and the camera's twist in its own axes.
        T_base_from_camera: (4, 4) pose of the camera on the base.
        T_odom_from_start: (4, 4) pose of the camera at the start of its own world in the base's world; None: the base's
            world is where the base was then (`T_base_from_camera`).
    """
    E = np.asarray(T_base_from_camera, np.float64)
    L = E if T_odom_from_start is None else np.asarray(T_odom_from_start, np.float64)
    base_in_camera = poses.inverse(E)[:3, 3]
    to_camera, to_start = poses.inverse(E), poses.inverse(L)
    of_twist = _carry(E[:3, :3], base_in_camera)
    of_pose = _carry(L[:3, :3], state.T_world_from_camera[:3, :3] @ base_in_camera)
    in_map = _carry(L[:3, :3], state.T_map_from_camera[:3, :3] @ base_in_camera)
    return MetricState(
        poses.compose(L, state.T_world_from_camera, to_camera),
        of_pose @ state.covariance @ of_pose.T if not state.apart else state.covariance,
        of_twist @ state.velocity,
        _carried_twist(of_twist, state.velocity_covariance),
        poses.compose(L, state.T_map_from_odom, to_start),
        in_map @ state.map_covariance @ in_map.T,
        state.apart,
    )


def _carried_twist(of_twist: Float64, covariance: Float64) -> Float64:
    """What is not known stays not known, with the number that says so."""
    if covariance[0, 0] == UNKNOWN_VARIANCE:
        return covariance
    return np.asarray(of_twist @ covariance @ of_twist.T)


def _carry(R: Float64, lever: Float64) -> Float64:
    """Adjoint-like (6, 6): what a small motion of the camera is for a point at `lever` from it, in axes turned by R."""
    J = np.zeros((6, 6))
    J[:3, :3] = J[3:, 3:] = R
    J[:3, 3:] = -R @ poses.skew(lever)
    return J


def _bounded(covariance: Float64) -> Float64:
    """No variance above that of what is not known; correlations stay."""
    over = np.sqrt(np.maximum(np.diag(covariance) / UNKNOWN_VARIANCE, 1.0))
    return np.asarray(covariance / np.outer(over, over))
