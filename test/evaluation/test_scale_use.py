"""Inputs that were to give the metric scale and gave none are said, with what they held."""

from __future__ import annotations

import numpy as np
import pytest

from ros2_densematch.evaluation.scale_use import ScaleUse
from ros2_densematch.geometry.relative_pose import Geometry, RelativePose, Scale
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.tracked_frame import Status, TrackedFrame

IMAGE = np.zeros((24, 32), np.uint8)


def use(scale: Scale, *, step_m: float | None = None, depth_m: float | None = None, count: int = 5) -> ScaleUse:
    """So many tracked frames with an odometry that moves by so much a frame, and depth of this value everywhere."""
    found = ScaleUse()
    good = np.ones(9, np.bool_)
    for i in range(count):
        T = np.eye(4)
        T[0, 3] = i * (step_m or 0.0)
        depth = None if depth_m is None else np.full(IMAGE.shape, depth_m, np.float32)
        odometry = None if step_m is None else T
        pose = RelativePose(
            np.eye(4), Geometry.CALIBRATED, scale, 0.01, np.eye(6), good, 9, 9, 1.0, 0.3, 4.0, 0.1, "fine"
        )
        tracked = TrackedFrame(i, i, Status.TRACKED, "tracked", relative_pose=pose, scale=scale)
        found.add(Frame(IMAGE, i, i, depth=depth, odometry=odometry), tracked)
    return found


def test_an_odometry_that_stands_still_is_named() -> None:
    text = use(Scale.UNIT, step_m=0.0).problem("odometry /odom")
    assert text == "no frame has a metric scale, although odometry /odom is there: the odometry moves by 0 m at most"


@pytest.mark.parametrize(("depth_m", "share"), [(0.0, "0 %"), (np.nan, "0 %"), (2.0, "100 %")])
def test_depth_is_named_with_what_is_known_of_it(depth_m: float, share: str) -> None:
    assert f"{share} of the depth values are known" in use(Scale.UNIT, depth_m=depth_m).problem("depth /d")


@pytest.mark.parametrize(
    ("scale", "count", "sources"),
    [(Scale.METRIC, 5, "odometry /odom"), (Scale.UNIT, 2, "odometry /odom"), (Scale.UNIT, 5, "")],
)
def test_nothing_is_said_where_there_is_a_scale_or_none_can_be_expected(scale: Scale, count: int, sources: str) -> None:
    assert use(scale, step_m=0.1, count=count).problem(sources) == ""
