"""`densematch live` without ROS: what it hands over to rclpy, and what it refuses before it looks for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ros2_densematch.cli.live import ros_arguments
from ros2_densematch.cli.main import main

NOTHING: dict[str, str | None] = {
    "image": None, "camera_info": None, "depth": None, "right/image": None, "odometry": None,
}  # fmt: skip


def test_what_the_user_gave_to_ros_goes_on_unchanged() -> None:
    given = ["--ros-args", "-r", "image:=/cam/image_raw", "--params-file", "robot.yaml"]
    assert ros_arguments(NOTHING, given) == given
    assert ros_arguments(NOTHING, []) == []


def test_named_topics_become_remappings_and_optional_inputs_parameters() -> None:
    topics = {**NOTHING, "image": "/cam/left/image_rect", "right/image": "/cam/right/image_rect"}
    assert ros_arguments(topics, []) == [
        "--ros-args",
        "-r", "image:=/cam/left/image_rect",
        "-p", "right_image_topic:=/cam/right/image_rect",
        "-r", "camera_info:=/cam/left/camera_info",
    ]  # fmt: skip
    named = {**NOTHING, "image": "/cam/image", "camera_info": "/calibration"}
    assert "camera_info:=/calibration" in ros_arguments(named, [])
    assert "camera_info:=/cam/camera_info" not in ros_arguments(named, [])


def test_the_users_own_remappings_come_first_because_the_first_wins() -> None:
    given = ["--ros-args", "-r", "camera_info:=/mine"]
    found = ros_arguments({**NOTHING, "image": "/cam/image"}, given)
    assert found.index("camera_info:=/mine") < found.index("camera_info:=/cam/camera_info")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--matcher", "superduper"], "--matcher superduper: there is no such matcher"),
        (["--config", "nowhere.yaml"], "there is no configuration file nowhere.yaml"),
        (["--mask", "nowhere.png", "--ros-args", "-p", "x:=1"], "there is no mask nowhere.png"),
        (["--no-such-option"], "No such option"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["live", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1
