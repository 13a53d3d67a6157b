"""When a keyframe is replaced."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.relative_pose import Scale
from ros2_densematch.tracking.attempt import Attempt
from ros2_densematch.tracking.config import TrackerConfig
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.keyframe import Keyframe

_CELLS_X, _CELLS_Y = 10, 8


def covered_cells(xy: NDArray[np.floating], size: tuple[int, int]) -> int:
    """Cells of a 10 x 8 grid over an image of `size` (width, height) that hold at least one of `xy` (N, 2)."""
    column = np.clip((np.asarray(xy)[:, 0] + 0.5) * _CELLS_X / size[0], 0, _CELLS_X - 1).astype(int)
    row = np.clip((np.asarray(xy)[:, 1] + 0.5) * _CELLS_Y / size[1], 0, _CELLS_Y - 1).astype(int)
    return len(np.unique(row * _CELLS_X + column))


@dataclass(frozen=True)
class Sharing:
    """How much a frame and a keyframe share.

    Attributes:
        inliers: matches that agree with the pose.
        cells: of the keyframe's image that they cover.
        parallax_deg: median angle between their rays without the rotation.
        rotation_deg: between the two cameras.
        guided: the matches come from a guided match, which gives fewer: each kind is compared with its own.
    """

    inliers: int
    cells: int
    parallax_deg: float = 0.0
    rotation_deg: float = 0.0
    guided: bool = False

    @staticmethod
    def of(attempt: Attempt, T_frame_from_keyframe: Float64) -> Sharing:
        """What a localised frame shares with its keyframe when its pose is (4, 4)."""
        found, keyframe = attempt.found, attempt.keyframe
        return Sharing(
            attempt.inliers,
            covered_cells(attempt.matches.reference_xy[found.inliers], keyframe.size),
            found.parallax_deg,
            poses.rotation_angle_deg(T_frame_from_keyframe),
            attempt.guided,
        )


def with_best(keyframe: Keyframe, sharing: Sharing) -> Keyframe:
    """The keyframe with the most that any frame so far shared with it."""
    return replace(
        keyframe,
        best_inliers=keyframe.best_inliers.raised(sharing.inliers, guided=sharing.guided),
        best_cells=max(keyframe.best_cells, sharing.cells),
    )


def outworn(keyframe: Keyframe, sharing: Sharing, config: TrackerConfig) -> str:
    """Why the keyframe should be replaced, in words; "" when it should stay.

    Args:
        keyframe: `with_best` of this frame.
    """
    inliers, cells, best = sharing.inliers, sharing.cells, keyframe.best_inliers.of(guided=sharing.guided)
    if cells < config.keyframe_overlap * keyframe.best_cells:
        return f"matches cover {100 * cells / keyframe.best_cells:.0f} % of the area they covered at best"
    if inliers < config.keyframe_inliers * best:
        return f"{inliers} matches agree, {best:.0f} did at best"
    if inliers < 2 * config.min_inliers:
        return f"only {inliers} matches agree"
    if sharing.parallax_deg > config.keyframe_parallax_deg:
        return f"the parallax is {sharing.parallax_deg:.1f} degrees"
    if sharing.rotation_deg > config.keyframe_rotation_deg:
        return f"the camera has turned by {sharing.rotation_deg:.0f} degrees"
    return ""


def unsuitable(keyframe: Keyframe, frame: Frame, scale: Scale) -> str:
    """Why a keyframe must be replaced by this frame whatever their matches are, in words; "" where nothing is wrong.

    Args:
        scale: of the map so far. Where it is metric and not every frame has a depth image, a keyframe without one knows
            its points through others only; the first frame that measures them itself takes its place.
    """
    if frame.size != keyframe.size:
        return f"the image size changed from {keyframe.size} to {frame.size}"
    if frame.depth is None or keyframe.structure is None:
        return ""
    if scale is Scale.NONE and keyframe.structure.depth is None:
        return "it is the first one with a depth image"
    if scale is Scale.METRIC and not keyframe.structure.measured:
        return "it has a depth image and the keyframe has none"
    return ""
