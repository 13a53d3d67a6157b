"""What the launch files pass on is what the node has. (`launch` comes with ROS only: a stand-in lets the files load;
test/ros/test_launch_real.py runs them where ROS is.)"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml

from ros2_densematch.configuration import parameter_names
from ros2_densematch.live.reference import launch_parameters
from ros2_densematch.live.topics import PUBLISHED, SUBSCRIBED

LAUNCH_MODULES = (
    *("launch", "launch.actions", "launch.events", "launch.substitutions", "launch.launch_description_sources"),
    *("launch.logging",),
    *("launch_ros", "launch_ros.actions"),
)
IN = set(SUBSCRIBED)
OUT = {topic.name.replace("~", "/matcher") for topic in PUBLISHED.values()}


@pytest.fixture
def load(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in LAUNCH_MODULES:
        monkeypatch.setitem(sys.modules, name, MagicMock())

    def file(name: str) -> types.ModuleType:
        spec = importlib.util.spec_from_file_location(name, repository / f"launch/{name}.launch.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return file


@pytest.fixture
def matcher(load: Any) -> types.ModuleType:
    return load("matcher")


def values(module: types.ModuleType, **given: str) -> dict[str, str]:
    """Every argument with its default, and what is given."""
    defaults = {name: default for name, (default, _) in module.OTHERS.items()}
    defaults |= {name: default for name, (_, default, _) in module.TOPICS.items()}
    return defaults | dict.fromkeys(module.ARGUMENTS, "") | given


def test_every_topic_argument_is_an_input_of_the_node(matcher: types.ModuleType) -> None:
    assert {topic for topic, _, _ in matcher.TOPICS.values()} == IN - {"/tf", "/tf_static", "initialpose"}


def test_every_parameter_without_a_dot_has_an_argument(matcher: types.ModuleType) -> None:
    assert set(matcher.PARAMETERS) == {name for name in parameter_names() if "." not in name}
    assert set(matcher.PARAMETERS) - set(matcher.ARGUMENTS) == set(matcher.NAMED_BY.values())
    assert {"image_reliability", "depth_transport", "base_from_camera"} <= set(matcher.ARGUMENTS)


def test_the_table_of_launch_arguments_is_that_of_the_node(repository: Path) -> None:
    assert (repository / "launch/parameters.json").read_text("utf-8") == launch_parameters()


def test_other_parameters_are_given_in_one_argument(matcher: types.ModuleType) -> None:
    given = values(matcher, params="{tracker.min_inliers: 30, tracker.pose.robust: true}", preset="fast")
    found = matcher.parameters_of(given)
    assert found["tracker.min_inliers"] == 30
    assert found["tracker.pose.robust"] is True
    assert found["preset"] == "fast"
    for wrong in ("tracker.min_inliers", "[1]", "{a: {b: 1}}", "{"):
        with pytest.raises(ValueError, match="write names and values"):
            matcher.parameters_of(values(matcher, params=wrong))


def test_an_input_that_gives_the_scale_is_named_to_the_node_too(matcher: types.ModuleType) -> None:
    found = matcher.parameters_of(values(matcher, odometry="/wheels/odometry", depth="depth"))
    assert (found["odometry_topic"], found["depth_topic"]) == ("odometry", "depth")
    assert "right_image_topic" not in found


def test_a_misspelt_argument_is_warned_about_and_a_foreign_one_is_not(matcher: types.ModuleType) -> None:
    found = matcher.near_misses({"image_reliabilty": "reliable", "robot": "a", "image": "x", "use_sim_tim": "true"})
    assert [text.split()[2] for text in found] == ["image_reliabilty", "use_sim_tim"]
    assert "did you mean image_reliability?" in found[0]


def test_arguments_of_the_files_that_include_it_are_not_taken_for_misspelt_ones(
    load: Any, matcher: types.ModuleType
) -> None:
    replay, two = load("replay"), load("two_cameras")
    assert matcher.near_misses([*replay.ARGUMENTS, *two.SHARED, *two.CAMERAS]) == []


def test_the_arguments_of_the_issue_are_there(matcher: types.ModuleType) -> None:
    wanted = {"camera", "image", "camera_info", "depth", "odometry", "config", "matcher", "preset", "device"}
    wanted |= {"image_transport", "use_sim_time", "publish_tf", "rviz", "auto_activate"}
    assert wanted <= set(values(matcher))


def test_topics_are_below_the_cameras_namespace(matcher: types.ModuleType) -> None:
    given = values(matcher, camera="/camera/color", depth="/camera/aligned/image_raw", odometry="/wheels/odometry")
    assert dict(matcher.remappings_of(given)) == {
        "image": "/camera/color/image_raw",
        "camera_info": "/camera/color/camera_info",
        "depth": "/camera/aligned/image_raw",
        "depth/camera_info": "/camera/aligned/camera_info",
        "odometry": "/wheels/odometry",
    }


def test_the_calibration_is_beside_the_image(matcher: types.ModuleType) -> None:
    given = values(matcher, camera="/stereo", image="left/image_rect", right_image="right/image_rect")
    topics = dict(matcher.remappings_of(given))
    assert topics["camera_info"] == "/stereo/left/camera_info"
    assert topics["right/camera_info"] == "/stereo/right/camera_info"


def test_parameters_have_their_types_and_empty_ones_are_left_to_the_file(matcher: types.ModuleType) -> None:
    assert matcher.parameters_of(values(matcher)) == {"use_sim_time": False}
    given = values(matcher, publish_tf="true", matcher="sift", use_sim_time="True")
    assert matcher.parameters_of(given) == {"publish_tf": True, "matcher": "sift", "use_sim_time": True}
    assert matcher.parameters_of(values(matcher, max_image_age_s="2"))["max_image_age_s"] == 2.0
    with pytest.raises(ValueError, match="sync_wait_s:=soon: write a number"):
        matcher.parameters_of(values(matcher, sync_wait_s="soon"))
    with pytest.raises(ValueError, match="publish_tf:=yes: write true or false"):
        matcher.parameters_of(values(matcher, publish_tf="yes"))


def test_the_default_parameter_file_is_that_of_the_package(matcher: types.ModuleType, repository: Path) -> None:
    assert Path(values(matcher)["config"]) == repository / "config/matcher.yaml"


def test_the_replay_records_what_the_node_publishes(load: Any) -> None:
    replay = load("replay")
    topics = set(replay.recorded_topics("", "matcher"))
    # pictures and the path, made only for those who look at them
    lazy = {f"/matcher/{name}" for name in ("matches_image", "matches_image/compressed", "warp", "path")}
    assert topics - {"/tf_static"} == OUT - lazy
    assert "/rear/matcher/status" in replay.recorded_topics("rear", "matcher")


def test_the_player_waits_until_every_input_of_the_node_is_listened_to(load: Any) -> None:
    replay = load("replay")
    assert "--start-paused" in replay.play_command("bag", "1.0")
    given = {"camera": "/camera/rgb", "image": "image_raw", "depth": "/camera/depth", "bag": "b"}
    played = replay.played_topics(given, "rear")
    assert {"/camera/rgb/image_raw", "/camera/rgb/camera_info", "/camera/depth"} <= set(played)
    assert replay.played_topics({}, "rear")[0] == "/rear/image_raw"
    arguments = replay.gate_arguments("/rear/matcher", played, "60", "30")
    assert arguments.count("--topic") == len(played)
    assert arguments.count("--recorded") == len(replay.OUTPUTS)
    assert arguments[-6:] == ["--recorded", "/rear/matcher/status", "--wait-s", "60", "--settle-s", "30"]


def test_both_cameras_get_what_the_matcher_launch_file_takes(load: Any, matcher: types.ModuleType) -> None:
    two = load("two_cameras")
    assert set(two.SHARED) <= set(values(matcher))
    assert len(set(two.CAMERAS.values())) == 2


def test_the_rviz_layout_shows_topics_that_exist(repository: Path) -> None:
    layout = yaml.safe_load((repository / "config/densematch.rviz").read_text())
    displays = layout["Visualization Manager"]["Displays"]
    shown = {d["Topic"]["Value"] for d in displays if "Topic" in d}
    assert {"/matcher/odometry", "/matcher/matches_image"} <= shown <= OUT


def test_the_foxglove_layout_shows_topics_that_exist(repository: Path) -> None:
    layout = json.loads((repository / "config/foxglove_layout.json").read_text())

    def panels(node: Any) -> list[str]:
        return [node] if isinstance(node, str) else panels(node["first"]) + panels(node["second"])

    assert set(panels(layout["layout"])) == set(layout["configById"])
    text = json.dumps(layout)
    shown = {word for word in text.replace('"', " ").replace(".", " ").split() if word.startswith("/")}
    assert {"/matcher/matches_image", "/matcher/status", "/diagnostics", "/matcher/odometry"} <= shown <= OUT


def test_every_argument_is_described_by_a_sentence(load: Any) -> None:
    matcher, replay, two = load("matcher"), load("replay"), load("two_cameras")
    texts = [text for _, text in matcher.OTHERS.values()] + [text for _, _, text in matcher.TOPICS.values()]
    texts += [entry["description"] for entry in matcher.ARGUMENTS.values()]
    texts += [text for _, text in (*replay.ARGUMENTS.values(), *two.SHARED.values())]
    assert len(texts) > 40
    wrong = [t for t in texts if not (t[0].isupper() and t.endswith(".") and len(t.split()) > 4)]
    assert wrong == []
