"""The focal length is tested while a camera runs: seldom, twice before a word, and the word is taken back."""

from __future__ import annotations

import numpy as np
import pytest

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.focal_fit import FocalFit
from ros2_densematch.geometry.two_view import estimate_relative_pose
from ros2_densematch.tracking.focal_watch import ASK_EVERY, FocalWatch
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.tracked_frame import Status, TrackedFrame

SIZE = 640, 480
IMAGE = np.zeros((SIZE[1], SIZE[0]), np.uint8)


def camera(focal: float) -> Camera:
    return Camera.from_matrix([[focal, 0, 319.5], [0, focal, 239.5], [0, 0, 1]], *SIZE)


def watch(focal: float, keyframes: int, found: FocalWatch | None = None, first: int = 0) -> FocalWatch:
    """Two frames a keyframe of a camera whose true focal length is 500 px, tracked with another one."""
    found, rng, true, given = found or FocalWatch(), np.random.default_rng(first), camera(500.0), camera(focal)
    for keyframe in range(first, first + keyframes):
        for frame in (3 * keyframe + 1, 3 * keyframe + 2):
            xy = rng.uniform((0, 0), SIZE, (600, 2))
            axis = rng.normal(size=3)
            R = poses.exp_rotation(np.deg2rad(8) * axis / np.linalg.norm(axis))
            rays = np.column_stack([true.normalise(xy), np.ones(len(xy))])
            other = true.project(rays * rng.uniform(2, 8, (len(xy), 1)) @ R.T + rng.normal(0, 0.2, 3))
            other += rng.normal(0, 0.5, xy.shape)
            seen = np.flatnonzero(((other > 0) & (other < SIZE)).all(1))[:200]
            m = Correspondences(
                xy[seen].astype(np.float32), other[seen].astype(np.float32), np.ones(len(seen), np.float32), 1.0, SIZE,
                SIZE,
            )  # fmt: skip
            pose = estimate_relative_pose(m, given, given)
            tracked = TrackedFrame(
                frame, frame * 10**8, Status.TRACKED, "", correspondences=m, relative_pose=pose, inliers=pose.inliers,
                keyframe_index=3 * keyframe,
            )  # fmt: skip
            found.add(Frame(IMAGE, frame * 10**8, frame, given), tracked)
    return found


def test_a_wrong_focal_length_is_doubted_at_the_second_answer() -> None:
    found = watch(525.0, 2 * ASK_EVERY - 1)
    assert found.doubt == ""
    assert "instead of 525.0 px" in found.warning()
    found = watch(525.0, 1, found, first=2 * ASK_EVERY)
    assert "instead of 525.0 px" in found.doubt


def test_the_true_one_is_not_and_a_new_calibration_ends_the_doubt() -> None:
    assert watch(500.0, 2 * ASK_EVERY).doubt == ""
    found = watch(525.0, 2 * ASK_EVERY)
    assert found.doubt
    assert watch(500.0, ASK_EVERY, found, first=100).doubt == ""


def test_it_is_asked_once_every_few_keyframes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(FocalFit, "doubt", lambda self: asked.append(0) or "")
    watch(500.0, 3 * ASK_EVERY)
    assert len(asked) == 3


def test_frames_without_a_pose_or_a_camera_say_nothing() -> None:
    found = FocalWatch()
    for given in (None, camera(500.0)):
        found.add(Frame(IMAGE, 0, 0, given), TrackedFrame(0, 0, Status.LOST, "lost"))
    assert found.warning() == ""
