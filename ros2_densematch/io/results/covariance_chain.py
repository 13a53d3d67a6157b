"""Covariance of poses that hang on a chain of keyframes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry import poses

Float64 = NDArray[np.float64]

_MOST_KEYFRAMES = 4096  # remembered at once: more than a tracker keeps


@dataclass(frozen=True)
class Link:
    """How a frame hangs on its keyframe.

    Attributes:
        keyframe: index of the keyframe's frame.
        T_frame_from_keyframe: (4, 4), metres.
        noise: (6, 6) of it, conventions of `geometry.poses`.
    """

    keyframe: int
    T_frame_from_keyframe: Float64
    noise: Float64

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

    An error of the metre is the same in every link: it grows with the distance from the start, not with its root.
    """

    def __init__(self) -> None:
        self._keyframes: OrderedDict[int, tuple[Float64, Float64]] = OrderedDict()  # frame index -> pose, noise
        self._last: tuple[int, Float64, Float64] | None = None
        self._begun: tuple[Float64, Float64] | None = None  # where it began or begins anew: pose, noise
        self._origin: Float64 | None = None  # where lengths have no error yet

    def go_on_from(self, T: Float64, noise: Float64) -> None:
        """Begins a new chain at a pose (4, 4) with this noise (6, 6); errors of the metre go on from the old start."""
        self._keyframes.clear()
        self._last = None
        self._begun = (T, noise)

    def noise_of(self, T: Float64) -> Float64:
        """Noise (6, 6) of the last pose, carried to a pose T (4, 4) that moves with it."""
        if self._last is None:
            return np.zeros((6, 6))
        return _levered(self._last[2], T[:3, 3] - self._last[1][:3, 3])

    def add(self, frame: int, T: Float64, link: Link | None, *, is_keyframe: bool, scale_std: float) -> Float64:
        """Covariance (6, 6) of a frame's pose: perturbation on the left, fixed axes of the world.

        Args:
            frame: index of the frame.
            T: (4, 4) T_world_from_frame.
            link: to its keyframe; None where nothing connects it to one.
            is_keyframe: later frames may hang on it. A keyframe that is made a frame late needs no word.
            scale_std: relative standard deviation of the metre.
        """
        if self._origin is None:
            self._origin = T[:3, 3].copy()
        if link is None:
            noise = self._of_start(T)
        else:
            T_keyframe, before = self._of_keyframe(link.keyframe, poses.compose(T, link.T_frame_from_keyframe))
            noise = _levered(before, T[:3, 3] - T_keyframe[:3, 3]) + link.noise_in(T_keyframe)
        noise = 0.5 * (noise + noise.T)
        self._last = (frame, T, noise)
        if is_keyframe:
            self._keyframes[frame] = (T, noise)
        shared = np.zeros(6)
        shared[:3] = (0.0 if np.isnan(scale_std) else scale_std) * (T[:3, 3] - self._origin)
        return np.asarray(noise + np.outer(shared, shared))

    def _of_keyframe(self, index: int, T: Float64) -> tuple[Float64, Float64]:
        if self._last is not None and self._last[0] == index:  # it became a keyframe with the frame before, or now
            self._keyframes[index] = self._last[1:]
        elif index not in self._keyframes:
            self._keyframes[index] = (T, self._of_start(T))
        self._keyframes.move_to_end(index)
        while len(self._keyframes) > _MOST_KEYFRAMES:
            self._keyframes.popitem(last=False)
        return self._keyframes[index]

    def _of_start(self, T: Float64) -> Float64:
        """Noise of a pose that nothing connects to the chain: that with which the chain begins."""
        if self._begun is None:
            return np.zeros((6, 6))
        return _levered(self._begun[1], T[:3, 3] - self._begun[0][:3, 3])


def _levered(noise: Float64, lever: Float64) -> Float64:
    """Noise (6, 6) of a pose, carried to one that is fixed to it at a distance `lever` (3,) in the world's axes."""
    J = np.eye(6)
    J[:3, 3:] = -poses.skew(lever)
    return np.asarray(J @ noise @ J.T)
