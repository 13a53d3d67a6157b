"""Which inputs are subscribed: only what was named gives the scale, and the transport is decided once."""

from __future__ import annotations

import pytest

from ros2_densematch.configuration import Configuration
from ros2_densematch.live.topics import (
    CAMERA_INFO,
    DEPTH,
    DEPTH_INFO,
    IMAGE,
    INITIAL_POSE,
    ODOMETRY,
    RIGHT,
    RIGHT_INFO,
    TF,
    TF_STATIC,
)
from ros2_densematch.live.wiring import Input, chosen_transport, other_form, scale_sources, wire


def wired(remappings: dict[str, str] | None = None, namespace: str = "/robot1", **settings: str) -> dict[str, Input]:
    def expand(name: str) -> str:
        return name if name.startswith("/") else f"{namespace}/{name}"

    rules = {expand(source): expand(target) for source, target in (remappings or {}).items()}
    return wire(Configuration(**settings), expand, lambda name: rules.get(expand(name), expand(name)))


def test_a_source_of_scale_that_nobody_named_is_not_used() -> None:
    assert set(wired()) == {IMAGE, CAMERA_INFO, INITIAL_POSE, TF, TF_STATIC}
    assert scale_sources(wired()) == ""


@pytest.mark.parametrize(
    ("settings", "remappings", "name", "topic"),
    [
        ({"odometry_topic": "/robot1/odometry"}, {}, ODOMETRY, "/robot1/odometry"),
        ({"odometry_topic": "odometry"}, {}, ODOMETRY, "/robot1/odometry"),
        ({}, {"odometry": "/wheels"}, ODOMETRY, "/wheels"),
        ({"odometry_topic": "odometry"}, {"odometry": "/wheels"}, ODOMETRY, "/wheels"),
        ({"depth_topic": "/cam/depth"}, {}, DEPTH, "/cam/depth"),
        ({}, {"right/image": "/cam/right/image_rect"}, RIGHT, "/cam/right/image_rect"),
    ],
)
def test_a_named_one_is_used_and_said(
    settings: dict[str, str], remappings: dict[str, str], name: str, topic: str
) -> None:
    inputs = wired(remappings, **settings)
    assert inputs[name].topic == topic
    assert scale_sources(inputs).endswith(topic)
    assert scale_sources(inputs, without={name}) == ""


def test_the_calibration_of_an_optional_image_is_beside_it_unless_it_is_remapped() -> None:
    assert wired(depth_topic="/cam/depth/image_raw")[DEPTH_INFO].topic == "/cam/depth/camera_info"
    assert wired({"depth": "/cam/depth/image_raw"})[DEPTH_INFO].topic == "/cam/depth/camera_info"
    named = wired({"right/image": "/cam/right/image", "right/camera_info": "/calibration"})
    assert named[RIGHT_INFO].topic == "/calibration"


def test_the_name_of_a_transports_topic_decides_the_transport() -> None:
    assert wired()[IMAGE] == Input("/robot1/image", "auto")
    assert wired({"image": "/cam/image/compressed"})[IMAGE] == Input("/cam/image/compressed", "compressed")
    assert wired({"image/compressed": "/cam/jpeg"})[IMAGE].topic == "/cam/jpeg"
    assert wired({"image": "/cam/image"}, image_transport="compressed")[IMAGE].topic == "/cam/image/compressed"
    assert wired({"image": "/cam/image"}, image_transport="raw")[IMAGE].topic == "/cam/image"
    depth = wired(depth_topic="/cam/depth", depth_transport="compressedDepth")[DEPTH]
    assert depth.topic == "/cam/depth/compressedDepth"


@pytest.mark.parametrize(
    ("advertised", "waited_s", "transport"),
    [
        (set(), 10.0, None),
        ({"/image"}, 0.0, "raw"),
        ({"/image", "/image/compressed"}, 10.0, "raw"),
        ({"/image/compressed"}, 0.5, None),
        ({"/image/compressed"}, 2.0, "compressed"),
        ({"/other/image"}, 10.0, None),
    ],
)
def test_raw_images_go_first_and_compressed_ones_after_two_seconds(
    advertised: set[str], waited_s: float, transport: str | None
) -> None:
    assert chosen_transport(advertised, "/image", waited_s) == transport


@pytest.mark.parametrize(
    ("name", "topic", "other"),
    [
        (IMAGE, "/cam/image", ("/cam/image/compressed", "image_transport:=compressed")),
        (RIGHT, "/cam/right/compressed", ("/cam/right", "image_transport:=raw")),
        (DEPTH, "/cam/depth", ("/cam/depth/compressedDepth", "depth_transport:=compressedDepth")),
        (DEPTH, "/cam/depth/compressedDepth", ("/cam/depth", "depth_transport:=raw")),
        (ODOMETRY, "/wheels", None),
    ],
)
def test_the_other_form_of_images_is_named_with_the_argument_for_it(
    name: str, topic: str, other: tuple[str, str] | None
) -> None:
    assert other_form(name, topic) == other
