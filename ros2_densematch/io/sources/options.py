"""What the user says about a source of frames."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class SourceOptions:
    """What the user says about a source; what is None is found by itself where possible.

    Attributes:
        image_topic: topic of the images (bags).
        camera_info_topic: topic of their CameraInfo (bags).
        camera_yaml: calibration file in ROS camera_info format; overrides everything else.
        depth_topic: topic of depth images registered to the images (bags). Without it no depth is read from a bag.
        right_image_topic: topic of the right images of a rectified stereo pair (bags).
        right_camera_yaml: their calibration, with projection_matrix; otherwise their CameraInfo is used.
        odometry_topic: topic of a metric prior (bags): Odometry, PoseStamped, PoseWithCovarianceStamped,
            TransformStamped or tf.
        ground_truth_topic: topic of the true poses, of the same types; without it a topic whose name says so.
        depth_time_offset_s, right_image_time_offset_s, odometry_time_offset_s, ground_truth_time_offset_s: seconds to
            add to the stamps of that topic, where a clock other than the images' made them; None = the clocks agree.
        start_s, stop_s: part of the source to read, seconds after its first image by the images' stamps; stop_s itself
            is outside.
        every: every so many frames one is read, from the first one of the part on; the others are not decoded.
        at_most_hz: at most so many frames a second are read, by their stamps; None = all.
        mask: image file of the images' size; frames are matched only where it is bright (above 127 of 255).
        rectified: whether the images are rectified ("auto": by the topic's name).
        rate_hz: frame rate given to image folders whose file names are no time stamps.
    """

    image_topic: str | None = None
    camera_info_topic: str | None = None
    camera_yaml: Path | None = None
    depth_topic: str | None = None
    right_image_topic: str | None = None
    right_camera_yaml: Path | None = None
    odometry_topic: str | None = None
    ground_truth_topic: str | None = None
    depth_time_offset_s: float | None = None
    right_image_time_offset_s: float | None = None
    odometry_time_offset_s: float | None = None
    ground_truth_time_offset_s: float | None = None
    start_s: float | None = None
    stop_s: float | None = None
    every: int = 1
    at_most_hz: float | None = None
    mask: Path | None = None
    rectified: Literal["auto"] | bool = "auto"
    rate_hz: float = 10.0

    def __post_init__(self) -> None:
        for name, value in (("--from", self.start_s), ("--to", self.stop_s)):
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be at least 0 seconds after the first image, got {value:g}")
        if self.start_s is not None and self.stop_s is not None and self.stop_s <= self.start_s:
            raise ValueError(
                f"--to {self.stop_s:g} must come after --from {self.start_s:g} (seconds after the first image): "
                "swap or change them"
            )
        if self.stop_s == 0:
            raise ValueError("--to 0 leaves no image: give a time after the first image")
        for field in ("depth", "right_image", "odometry", "ground_truth"):
            offset = getattr(self, f"{field}_time_offset_s")
            option = f"--{field.replace('_', '-')}"
            if offset is not None and not math.isfinite(offset):
                raise ValueError(f"{option}-time-offset must be a number of seconds, got {offset}")
            # true poses are found by the topic's name too
            if offset is not None and field != "ground_truth" and getattr(self, f"{field}_topic") is None:
                raise ValueError(f"{option}-time-offset {offset:g} needs {option}-topic: give the topic")
        if self.every < 1:
            raise ValueError(f"--every must be 1 or more, got {self.every}")
        if self.at_most_hz is not None and not 0 < self.at_most_hz < math.inf:
            raise ValueError(f"--rate must be above 0 frames/s, got {self.at_most_hz:g}")
        if not 0 < self.rate_hz <= 10_000:
            raise ValueError(f"rate_hz must lie in (0, 10000], got {self.rate_hz}")


def refuse_topics(options: SourceOptions, path: Path) -> None:
    """Topics are named for bags only.

    Raises:
        ValueError: the options name a topic.
    """
    if options.ground_truth_time_offset_s is not None:
        raise ValueError(f"{path} is not a bag: omit --ground-truth-time-offset")
    for field in ("image", "camera_info", "depth", "right_image", "odometry", "ground_truth"):
        name = getattr(options, f"{field}_topic")
        if name is not None:
            raise ValueError(f"{path} is not a bag and has no topic {name}: omit --{field.replace('_', '-')}-topic")
