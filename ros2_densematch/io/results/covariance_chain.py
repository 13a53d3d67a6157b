"""Covariance of poses that hang on a chain of keyframes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses

_MOST_KEYFRAMES = 4096  # remembered at once: more than a tracker keeps
_PARAMETERS = 4 + 9 + 9
# What a wrong calibration makes of a turn beside what follows from its definition: another turn, and a motion, which is
# larger where the scene is farther away. Per radian, over the error of the calibration; the motion also over the depth.
# Which ones depends on where the points lie. Chosen on rendered flights (benchmarks/odometry_covariance.py).
_REST_TURN, _REST_MOTION = 0.5, 0.4


@dataclass(frozen=True)
class SharedErrors:
    """Standard deviations of errors that are the same in every link.

    Attributes:
        metre: relative, of the unit of length; NaN counts as none.
        principal_point: of each coordinate, over the focal length (radians).
        focal: relative, of the focal length.
    """

    metre: float = 0.0
    principal_point: float = 0.0
    focal: float = 0.0

    @property
    def std(self) -> Float64:
        """(22,) in the order of the derivatives: metre, principal point x and y, focal length, what else it makes of a
        turn: turns and motions."""
        metre = 0.0 if np.isnan(self.metre) else self.metre
        rest = float(np.hypot(self.principal_point, self.focal))
        known = [metre, self.principal_point, self.principal_point, self.focal]
        return np.array([*known, *[_REST_TURN * rest] * 9, *[_REST_MOTION * rest] * 9])


@dataclass(frozen=True)
class Link:
    """How a frame hangs on its keyframe.

    Attributes:
        keyframe: index of the keyframe's frame.
        T_frame_from_keyframe: (4, 4), metres.
        noise: (6, 6) of it, conventions of `geometry.poses`.
        depth: about how far the points are, in metres; NaN where that is not known.
        drift: relative standard deviation of the change of the unit of length from this keyframe to one that begins
            with this frame.
    """

    keyframe: int
    T_frame_from_keyframe: Float64
    noise: Float64
    depth: float = float("nan")
    drift: float = 0.0

    def noise_in(self, T_world_from_keyframe: Float64) -> Float64:
        """Noise (6, 6) of the frame's pose relative to the keyframe, in the axes of the world."""
        _, relative = poses.invert_with_covariance(self.T_frame_from_keyframe, self.noise)
        turn = np.zeros((6, 6))
        turn[:3, :3] = turn[3:, 3:] = T_world_from_keyframe[:3, :3]
        return np.asarray(turn @ relative @ turn.T)


class CovarianceChain:
    """Covariance of each frame's pose in one world.

    The noise of a frame's pose is that of its keyframe's pose and of the relative pose between them, both carried to
    the world's axes (to first order; Barfoot and Furgale, "Associating uncertainty with three-dimensional poses for use
    in estimation problems", IEEE T-RO 2014, equation 35 without terms of fourth order). A keyframe's noise is what it
    had as a frame, whether it was made with that frame or a frame later. So the noise grows with the root of the number
    of keyframes.

    Where nothing measures lengths, each keyframe has a unit of its own, carried on by the points that it shares with
    the one before (Strasdat, Montiel and Davison, "Scale drift-aware large scale monocular SLAM", RSS 2010).
    Its relative error is the seventh number of the noise; it stretches all motion from that keyframe on.

    Errors that all links share (`SharedErrors`) are no noise: that of the metre grows with the distance, not with its
    root, and those of the calibration with the distance and the turning. Each is one unknown number, and the chain
    carries what it does to the pose.
    """

    def __init__(self) -> None:
        self._keyframes: OrderedDict[int, tuple[Float64, Float64]] = OrderedDict()  # frame index -> pose, noise
        self._last: tuple[int, Float64, Float64] | None = None
        self._begun: tuple[Float64, Float64] | None = None  # where it began or restarted: pose, noise
        self._place: Float64 | None = None  # the last pose, up to which the shared errors are carried
        self._shared = np.zeros((6, _PARAMETERS))  # derivative of the last pose by the shared errors
        self._drift = 0.0  # variance of the change of the unit if the last frame becomes a keyframe
        self._depth = 0.0  # of the points of the last link that knew it

    def go_on_from(self, T: Float64, noise: Float64, unit_std: float = 0.0) -> None:
        """Begins a new chain at a pose (4, 4) with this noise (6, 6) and this relative standard deviation of its unit
        of length; shared errors go on from the old one, but nothing is added to them on the way there: it was not
        seen."""
        if self._place is not None:
            self._shared = _levered_derivative(self._shared, T[:3, 3] - self._place[:3, 3])
        self._place = T
        self._keyframes.clear()
        self._last = None
        self._begun = (T, _with_unit(noise, unit_std**2))

    def shared_in_step(self, T_before: Float64, T: Float64, shared: SharedErrors) -> Float64:
        """Covariance (6, 6) of the step from a pose (4, 4) to the last one, by the shared errors alone; axes of the
        world."""
        spread = _of_step(T_before[:3, :3], poses.compose(poses.inverse(T_before), T), self._depth) * shared.std
        return np.asarray(spread @ spread.T)

    def noise_of(self, T: Float64) -> Float64:
        """Noise (6, 6) of the last pose, carried to a pose T (4, 4) that moves with it."""
        if self._last is None:
            return np.zeros((6, 6))
        return _levered(self._last[2], T[:3, 3] - self._last[1][:3, 3])[:6, :6]

    def add(self, frame: int, T: Float64, link: Link | None, shared: SharedErrors, *, is_keyframe: bool) -> Float64:
        """Covariance (6, 6) of a frame's pose: perturbation on the left, fixed axes of the world.

        Args:
            frame: index of the frame.
            T: (4, 4) T_world_from_frame.
            link: to its keyframe; None where nothing connects it to one.
            shared: how large the errors are that all links share.
            is_keyframe: later frames may hang on it. A keyframe that is made a frame late needs no word.
        """
        if link is None:
            noise = self._of_start(T)
        else:
            T_keyframe, before = self._of_keyframe(link.keyframe, poses.compose(T, link.T_frame_from_keyframe))
            noise = _levered(before, T[:3, 3] - T_keyframe[:3, 3]) + _with_unit(link.noise_in(T_keyframe), 0.0)
        noise = 0.5 * (noise + noise.T)
        self._last = (frame, T, noise)
        self._drift = 0.0 if link is None else link.drift**2
        if is_keyframe:
            self._begin(frame, T, noise)
        if link is not None and np.isfinite(link.depth):
            self._depth = link.depth
        self._carry_shared(T)
        spread = self._shared * shared.std
        return np.asarray(noise[:6, :6] + spread @ spread.T)

    def _carry_shared(self, T: Float64) -> None:
        """The derivatives at the next pose: those at the last one, levered, and what its step adds."""
        if self._place is not None:
            last, step = self._place, poses.compose(poses.inverse(self._place), T)
            self._shared = _levered_derivative(self._shared, T[:3, 3] - last[:3, 3])
            self._shared += _of_step(last[:3, :3], step, self._depth)
        self._place = T

    def _of_keyframe(self, index: int, T: Float64) -> tuple[Float64, Float64]:
        if self._last is not None and self._last[0] == index:  # it became a keyframe with the frame before, or now
            self._begin(*self._last)
        elif index not in self._keyframes:
            self._keyframes[index] = (T, self._of_start(T))
        self._keyframes.move_to_end(index)
        while len(self._keyframes) > _MOST_KEYFRAMES:
            self._keyframes.popitem(last=False)
        return self._keyframes[index]

    def _begin(self, index: int, T: Float64, noise: Float64) -> None:
        """A frame becomes a keyframe."""
        self._keyframes[index] = (T, noise + _with_unit(np.zeros((6, 6)), self._drift))

    def _of_start(self, T: Float64) -> Float64:
        """Noise of a pose that nothing connects to the chain: that with which the chain begins."""
        if self._begun is None:
            return np.zeros((7, 7))
        return _levered(self._begun[1], T[:3, 3] - self._begun[0][:3, 3])


def _levered(noise: Float64, lever: Float64) -> Float64:
    """Noise (7, 7) of a pose and its unit, carried to a pose at a distance `lever` (3,) in the world's axes."""
    J = np.eye(7)
    J[:3, 3:6], J[:3, 6] = -poses.skew(lever), lever
    return np.asarray(J @ noise @ J.T)


def _with_unit(noise: Float64, variance: float) -> Float64:
    """Noise (7, 7) of a pose, from that (6, 6) without the unit, and the variance of that."""
    whole = np.zeros((7, 7))
    whole[:6, :6], whole[6, 6] = noise, variance
    return whole


def _levered_derivative(derivative: Float64, lever: Float64) -> Float64:
    """A derivative (6, P) of a pose, carried to one that is fixed to it at a distance `lever` (3,)."""
    J = np.eye(6)
    J[:3, 3:] = -poses.skew(lever)
    return np.asarray(J @ derivative)


def _of_step(R: Float64, step: Float64, depth: float) -> Float64:
    """Derivative (6, 22) of a pose by the shared errors of one step.

    A wrong metre stretches the step. A wrong principal point turns all rays alike, as if the camera were mounted with a
    small turn d: the step T becomes Exp(d) T Exp(-d). A wrong focal length stretches what is seen of turns about x and
    y and of motion along them. What else a wrong calibration does is a linear map of the turn, of which nothing is
    known: a wrong field of displacements over the image, part of which looks like a turn and part like a motion past
    points at their depth.

    Args:
        R: (3, 3) R_world_from_camera before the step.
        step: (4, 4) T_before_from_after.
        depth: of the points, metres.
    """
    t, w = step[:3, 3], poses.log_rotation(step)
    derivative = np.zeros((6, _PARAMETERS))
    derivative[:3, 0] = t
    derivative[:3, 1:3] = -poses.skew(t)[:, :2]
    derivative[3:, 1:3] = -poses.skew(w)[:, :2]
    derivative[:2, 3], derivative[3:5, 3] = t[:2], w[:2]
    derivative[3:, 4:13] = np.kron(np.eye(3), w)
    derivative[:3, 13:] = depth * derivative[3:, 4:13]
    turned = np.zeros((6, _PARAMETERS))
    turned[:3], turned[3:] = R @ derivative[:3], R @ derivative[3:]
    return turned
