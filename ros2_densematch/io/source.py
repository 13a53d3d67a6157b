"""Where frames come from: one entry point for bags, videos, image folders and recorded sequences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from ros2_densematch.geometry.trajectory import Trajectory
from ros2_densematch.tracking.frame import Frame


@dataclass(frozen=True)
class SourceOptions:
    """What the user says about a source; what is None is found by itself where possible.

    Attributes:
        image_topic: topic of the images (bags).
        camera_info_topic: topic of their CameraInfo (bags).
        camera_yaml: calibration file in ROS camera_info format; goes before everything else.
        depth_topic: topic of depth images registered to the images (bags). Without it no depth is read from a bag.
        right_image_topic: topic of the right images of a rectified stereo pair (bags).
        right_camera_yaml: their calibration, with projection_matrix; otherwise their CameraInfo is used.
        odometry_topic: topic of a metric prior (bags): Odometry, PoseStamped, PoseWithCovarianceStamped,
            TransformStamped or tf.
        ground_truth_topic: topic of the true poses, of the same types; without it a topic whose name says so.
        start_s, stop_s: part of the source to read, seconds after its first image.
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
    start_s: float | None = None
    stop_s: float | None = None
    mask: Path | None = None
    rectified: Literal["auto"] | bool = "auto"
    rate_hz: float = 10.0

    def __post_init__(self) -> None:
        for name, value in (("start_s", self.start_s), ("stop_s", self.stop_s)):
            if value is not None and not value >= 0:
                raise ValueError(f"{name} must be at least 0 seconds, got {value}")
        if self.start_s is not None and self.stop_s is not None and self.stop_s <= self.start_s:
            raise ValueError(f"stop_s must lie behind start_s, got {self.stop_s} and {self.start_s}")
        if not 0 < self.rate_hz <= 10_000:
            raise ValueError(f"rate_hz must lie in (0, 10000], got {self.rate_hz}")


class FrameSource(Protocol):
    """An iterable of frames; each iteration reads the source again from its start, one frame at a time.

    Attributes:
        name: short name for reports.
        frame_id: optical frame of the images ("camera" where the source names none).
        length: number of frames, or None where that is not known before reading.
        warnings: what is wrong, one sentence each; grows while frames are read.
        notes: what was chosen on the user's behalf (topics, time stamps), one sentence each.
        dropped: frames left out so far (not decodable, time going back).
        ground_truth: true camera poses, or None.
    """

    @property
    def name(self) -> str: ...
    @property
    def frame_id(self) -> str: ...
    @property
    def length(self) -> int | None: ...
    @property
    def warnings(self) -> list[str]: ...
    @property
    def notes(self) -> list[str]: ...
    @property
    def dropped(self) -> int: ...
    @property
    def ground_truth(self) -> Trajectory | None: ...
    def __iter__(self) -> Iterator[Frame]: ...


def open_source(path: str | Path, options: SourceOptions | None = None) -> FrameSource:
    """Open a bag (folder, .mcap, .db3, .bag), a video file, a folder of images, or a folder with frames.csv.

    Raises:
        FileNotFoundError: there is no such path.
        ValueError: the path is nothing of these, or lacks what the options ask for; the message names the remedy.
    """
    from ros2_densematch.io import bag, folder, records, sequence, video

    path = Path(path)
    options = options or SourceOptions()
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give a bag, a video file or a folder of images")
    if path.is_dir() and (path / "frames.csv").is_file():
        return sequence.SequenceSource(path, options)
    if records.is_bag(path):
        return bag.BagSource(path, options)
    if path.is_dir():
        return folder.FolderSource(path, options)
    if path.suffix.lower() in video.SUFFIXES:
        return video.VideoSource(path, options)
    raise ValueError(
        f"{path} is no source of frames: give a bag ({', '.join(records.SUFFIXES)} or its folder), a video "
        f"({', '.join(video.SUFFIXES)}), a folder of images, or a folder with frames.csv"
    )
