"""Parameters, topics and the words about silent inputs: data from which declarations and documentation are made."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from ros2_densematch.configuration import Configuration, option_names, parameter_names, pose_of_text
from ros2_densematch.live.parameters import checked, declared
from ros2_densematch.live.topics import PUBLISHED, SERVICES, SUBSCRIBED, Qos
from ros2_densematch.live.watch import Publisher, another_cause, mismatch, silence, small_buffer_advice, twins
from ros2_densematch.messages.definitions import message_definitions
from ros2_densematch.messages.typestore import ros2_typestore


def test_the_parameters_are_those_of_the_file_with_type_range_and_words(repository: Path) -> None:
    found = declared()
    assert [p.name for p in found] == [*parameter_names(), *option_names()]
    written = (repository / "config" / "matcher.yaml").read_text("utf-8")
    flat = " ".join(line.strip().removeprefix("# ") for line in written.splitlines())
    for p in found:
        assert p.description, p.name
        # of the options those of the default matcher stand in the file, as comments; docs/ros.md has them all
        assert p.description in flat or p.name in option_names(), p.name
        assert yaml.safe_load(str(p.default)) == p.default or p.kind == "string"
    by_name = {p.name: p for p in found}
    inliers = by_name["tracker.min_inliers"]
    assert (inliers.kind, inliers.default, inliers.low, inliers.high, inliers.read_only) == (
        "integer", 20, 8, 1000, False,
    )  # fmt: skip
    assert by_name["image_transport"].choices == ("auto", "raw", "compressed")
    assert by_name["image_transport"].read_only
    # what the contract lets change while the node runs
    for name in ("matcher", "preset", "mask", "tracker.keyframe_overlap", "tracker.pose.max_epipolar_error_px"):
        assert not by_name[name].read_only


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tracker.min_inliers": 3}, "tracker.min_inliers = 3: input should be greater than or equal to 8"),
        ({"tracker.min_inlier": 30}, "did you mean 'tracker.min_inliers'"),
        ({"odom_frame": "map"}, "odom_frame is read-only: set it when the node is started"),
        ({"base_from_camera": "0 0 0 0 0 0 2"}, "does not have length 1"),
        ({"tracker.pose.min_inliers": 2}, "tracker.pose.min_inliers = 2: input should be greater than or equal to 8"),
    ],
)
def test_a_bad_change_is_refused_with_the_reason(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        checked(Configuration(), changes)


def test_a_good_change_keeps_the_rest() -> None:
    start = checked(Configuration(), {"tracker.min_inliers": 33})
    both = checked(start, {"matcher": "sift", "tracker.pose.min_parallax_px": 0.7, "odom_frame": "odom"})
    assert (both.tracker.min_inliers, both.matcher, both.tracker.pose.min_parallax_px) == (33, "sift", 0.7)


def test_extrinsics_as_text() -> None:
    T = pose_of_text("1, 2, 3, 0 0 0 1")
    assert T[:3, 3].tolist() == [1.0, 2.0, 3.0]


def test_every_topic_and_service_has_a_known_type_and_words() -> None:
    known = set(ros2_typestore().types)
    for topic in (*SUBSCRIBED.values(), *PUBLISHED.values()):
        assert topic.type in known, topic.name
        assert topic.description
    services = {"std_srvs/srv/Trigger", "std_srvs/srv/SetBool"} | {
        name.removesuffix("_Request") for name in message_definitions() if name.endswith("_Request")
    }
    assert {s.type for s in SERVICES} <= services


RELIABLE, BEST_EFFORT = Qos("reliable", 1), Qos("best_effort", 1)
IMAGE = "sensor_msgs/msg/Image"


@pytest.mark.parametrize(
    ("qos", "publisher", "words"),
    [
        (RELIABLE, Publisher("/cam", IMAGE, True, False), ""),
        (BEST_EFFORT, Publisher("/cam", IMAGE, True, True), ""),
        (RELIABLE, Publisher("/cam", IMAGE, False, False), "asks for reliable: incompatible QoS"),
        (Qos("reliable", 1, True), Publisher("/cam", IMAGE, True, False), "asks for transient local"),
        (RELIABLE, Publisher("/cam", "sensor_msgs/msg/CompressedImage", True, False), "publishes sensor_msgs/msg/Comp"),
    ],
)
def test_why_a_publisher_does_not_reach_us(qos: Qos, publisher: Publisher, words: str) -> None:
    found = mismatch(IMAGE, qos, publisher)
    assert (found == "") == (words == "")
    assert words in found


def test_silence_names_topic_publisher_and_cause() -> None:
    def said(publishers: list[Publisher], **more: object) -> str:
        return silence("/cam/image", IMAGE, BEST_EFFORT, publishers, 5.2, ever=False, **more)  # type: ignore[arg-type]

    nobody = said([], similar=["/cam2/image"])
    assert nobody.startswith("no data on /cam/image for 5 s: nobody publishes it")
    assert "/cam2/image" in nobody
    assert "publisher is gone" in silence("/cam/image", IMAGE, BEST_EFFORT, [], 5.0, ever=True)
    compressed = said([], other_form=("/cam/image/compressed", "image_transport:=compressed"))
    assert compressed.endswith(
        "nobody publishes it, but /cam/image/compressed is published: image_transport:=compressed"
    )
    wrong = said([Publisher("/driver", "sensor_msgs/msg/CompressedImage", True, False)])
    assert "/driver publishes sensor_msgs/msg/CompressedImage, this node" in wrong
    fits = said([Publisher("/driver", IMAGE, True, False)], large=True, rmem_max=212_992)
    assert "though /driver publishes it" in fits
    assert "sysctl -w net.core.rmem_max" in fits
    assert "sysctl" not in said([Publisher("/driver", IMAGE, True, False)], large=True, rmem_max=10**8)


def test_small_buffers_are_named_only_where_they_matter() -> None:
    assert "rmem_max is 212992" in small_buffer_advice(BEST_EFFORT, 212_992)
    assert small_buffer_advice(RELIABLE, 212_992) == ""
    assert small_buffer_advice(BEST_EFFORT, 10**8) == ""
    assert small_buffer_advice(BEST_EFFORT, None) == ""


def test_nodes_of_one_name_are_counted() -> None:
    assert twins("/a/matcher", ["/matcher", "/a/matcher", "/b/matcher"]) == ""
    assert twins("/a/matcher", []) == ""  # the graph does not show this node yet
    assert twins("/matcher", ["/matcher", "/rviz", "/matcher"]).startswith("2 nodes are called /matcher")


def test_a_silence_is_named_again_when_its_cause_is_another() -> None:
    def line(publishers: list[Publisher], seconds: float) -> str:
        qos = Qos("reliable", 1)
        return silence("/image", "sensor_msgs/msg/Image", qos, publishers, seconds, ever=False)

    nobody, later = line([], 2.0), line([], 9.0)
    wrong = line([Publisher("/camera", "sensor_msgs/msg/Image", reliable=False, transient_local=False)], 12.0)
    assert nobody != later
    assert not another_cause(nobody, later)
    assert another_cause(later, wrong)
    assert not another_cause("", nobody)
    assert not another_cause("frame 3: too short", "frame 4: too short")


def test_values_that_contradict_each_other_are_named_together() -> None:
    with pytest.raises(ValueError, match=r"tracker\.pose: min_iterations must lie in 1\.\.max_iterations, got 90"):
        checked(Configuration(), {"tracker.pose.min_iterations": 90, "tracker.pose.max_iterations": 80})
