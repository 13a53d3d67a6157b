"""Small recordings from one description: container x encoding x clock x calibration, and what is right for each."""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from ros2_densematch.messages.typestore import ros1_typestore, ros2_typestore

SECOND = 10**9
START = 1_700_000_000 * SECOND
PERIOD = SECOND // 10
FRAMES = 10
WIDTH, HEIGHT, FOCAL = 32, 24, 30.0

CONTAINERS = (
    "mcap",
    "mcap-zstd",
    "mcap-ros1",
    "sqlite3",
    "sqlite3-zstd",
    "sqlite3-file",
    "ros1",
    "ros1-bz2",
    "ros1-lz4",
)
ENCODINGS = (
    "mono8",
    "rgb8",
    "bgr8",
    "bgra8",
    "bayer_rggb8",
    "bayer_grbg16",
    "yuv422",
    "nv12",
    "nv21",
    "mono16",
    "rgb16",
    "jpeg",
    "jpeg-padded",
    "png",
)
CALIBRATIONS = ("good", "none", "empty-first", "zoom", "binned", "region", "latched")


@dataclass(frozen=True)
class Clock:
    """Stamps and recording times of the images, and what of them is right.

    Attributes:
        stamps_ns, recorded_ns: of each image, in the order of recording.
        kept: which images become frames, in their order.
        times_ns: their times.
        warned: whether something must be said.
    """

    stamps_ns: list[int]
    recorded_ns: list[int]
    kept: list[int]
    times_ns: list[int]
    warned: bool = False


def _clock(change: Callable[[list[int]], None], kept: list[int] | None = None, *, warned: bool = True) -> Clock:
    stamps = [START + i * PERIOD for i in range(FRAMES)]
    change(stamps)
    kept = list(range(FRAMES)) if kept is None else kept
    recorded = [START + i * PERIOD + 7_000_000 for i in range(FRAMES)]
    return Clock(stamps, recorded, kept, [stamps[i] for i in kept], warned)


def _future(stamps: list[int]) -> None:
    stamps[4] += 3600 * SECOND


def _past(stamps: list[int]) -> None:
    stamps[5] -= 60 * SECOND


def _back(stamps: list[int]) -> None:
    stamps[4:] = [s - 3600 * SECOND for s in stamps[4:]]


def _forward(stamps: list[int]) -> None:
    stamps[6:] = [s + 3600 * SECOND for s in stamps[6:]]


def _twice(stamps: list[int]) -> None:
    stamps[3] = stamps[2]


def _swapped(stamps: list[int]) -> None:
    stamps[3], stamps[4] = stamps[4], stamps[3]


def _frozen(stamps: list[int]) -> None:
    stamps[3:7] = [stamps[3]] * 4


def _none(stamps: list[int]) -> None:
    stamps[:] = [0] * FRAMES


def clocks() -> dict[str, Clock]:
    """Every clock by its name."""
    regular = _clock(lambda stamps: None, warned=False)
    slow = [START + 5 * i * PERIOD for i in range(FRAMES)]
    swapped = _clock(_swapped, [0, 1, 2, 4, 3, 5, 6, 7, 8, 9], warned=False)
    frozen = _clock(_frozen)
    without = _clock(_none, warned=False)
    return {
        "regular": regular,
        "recorded slowly": Clock(regular.stamps_ns, slow, regular.kept, regular.times_ns),
        "converted": Clock(regular.stamps_ns, regular.stamps_ns, regular.kept, regular.times_ns),
        "future": _clock(_future, [i for i in range(FRAMES) if i != 4]),
        "past": _clock(_past, [i for i in range(FRAMES) if i != 5]),
        "back": _clock(_back),
        "forward": _clock(_forward),
        "twice": _clock(_twice, [i for i in range(FRAMES) if i != 3]),
        "swapped": swapped,
        "frozen": Clock(frozen.stamps_ns, frozen.recorded_ns, frozen.kept, regular.times_ns, True),
        "no stamps": Clock(without.stamps_ns, without.recorded_ns, without.kept, without.recorded_ns),
    }


@dataclass(frozen=True)
class Description:
    """One recording."""

    container: str
    encoding: str
    clock: str
    calibration: str

    def __str__(self) -> str:
        return f"{self.container} {self.encoding} {self.clock} {self.calibration}"


def descriptions(count: int, seed: int = 0) -> list[Description]:
    """So many different recordings, drawn from all combinations of container, encoding, clock and calibration."""
    every = list(itertools.product(CONTAINERS, ENCODINGS, clocks(), CALIBRATIONS))
    random.Random(seed).shuffle(every)
    return [Description(*parts) for parts in every[:count]]


def grey_of(index: int) -> int:
    """The brightness that tells an image from the others."""
    return 20 + 20 * index


def focal_of(description: Description, index: int) -> float | None:
    """The focal length that an image must get."""
    if description.calibration == "none":
        return None
    return FOCAL * 1.5 if description.calibration == "zoom" and index >= FRAMES // 2 else FOCAL


def pose_of(index: int) -> tuple[float, float, float]:
    """Where /odom is at an image, metres."""
    return 0.1 * index, -0.05 * index, 0.01 * index


def write(folder: Path, description: Description) -> Path:
    """The recording; returns the path to open."""
    ros1 = "ros1" in description.container
    store: Any = ros1_typestore() if ros1 else ros2_typestore()
    clock = clocks()[description.clock]
    messages = list(_messages(store, ros1, description, clock))
    if description.container == "mcap-ros1":
        return _write_mcap_ros1(folder / "a.mcap", store, messages)
    if ros1:
        writer: Any = Writer1(folder / "a.bag")
        kind = description.container.partition("-")[2]
        if kind:
            writer.set_compression(Writer1.CompressionFormat[kind.upper()])
        path, serialise = folder / "a.bag", store.serialize_ros1
    else:
        plugin = StoragePlugin.MCAP if description.container.startswith("mcap") else StoragePlugin.SQLITE3
        writer = Writer(folder / "bag", version=8, storage_plugin=plugin)
        mode = {"mcap-zstd": "STORAGE", "sqlite3-zstd": "MESSAGE", "sqlite3-file": "FILE"}.get(description.container)
        if mode:
            writer.set_compression(CompressionMode[mode], CompressionFormat.ZSTD)
        path, serialise = folder / "bag", store.serialize_cdr
    with writer:
        connections: dict[str, Any] = {}
        for topic, recorded_ns, message in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, message.__msgtype__, typestore=store)
            writer.write(connections[topic], recorded_ns, serialise(message, message.__msgtype__))
    return path


def _write_mcap_ros1(path: Path, store: Any, messages: list[tuple[str, int, Any]]) -> Path:
    from mcap.writer import Writer as McapWriter

    with path.open("wb") as stream:
        writer = McapWriter(stream)
        writer.start(profile="ros1")
        channels: dict[str, int] = {}
        for topic, recorded_ns, message in messages:
            if topic not in channels:
                name = message.__msgtype__.replace("/msg/", "/")
                channels[topic] = writer.register_channel(topic, "ros1", writer.register_schema(name, "ros1msg", b""))
            data = bytes(store.serialize_ros1(message, message.__msgtype__))
            writer.add_message(channels[topic], recorded_ns, data, recorded_ns)
        writer.finish()
    return path


def _messages(store: Any, ros1: bool, description: Description, clock: Clock) -> Any:
    types = store.types

    def header(stamp_ns: int) -> Any:
        time = types["builtin_interfaces/msg/Time"](stamp_ns // SECOND, stamp_ns % SECOND)
        name = types["std_msgs/msg/Header"]
        return name(0, time, "cam") if ros1 else name(time, "cam")

    for i, (stamp, recorded) in enumerate(zip(clock.stamps_ns, clock.recorded_ns, strict=True)):
        if description.calibration != "none" and (description.calibration != "latched" or i == 0):
            yield "/cam/camera_info", recorded, _camera_info(types, ros1, header(stamp), description, i)
        yield _image(types, header(stamp), description.encoding, i, recorded)
    # Odometry has a clock that is right, where the images' clock is the recording's.
    for i in range(FRAMES):
        x, y, z = pose_of(i)
        position = types["geometry_msgs/msg/Point"](x, y, z)
        pose = types["geometry_msgs/msg/Pose"](position, types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0))
        stamp = START + i * PERIOD
        yield "/odom", clock.recorded_ns[i], types["geometry_msgs/msg/PoseStamped"](header(stamp), pose)


def _camera_info(types: Any, ros1: bool, header: Any, description: Description, index: int) -> Any:
    kind = description.calibration
    focal = focal_of(description, index) or 0.0
    width, height, cx, cy, binning = WIDTH, HEIGHT, 15.5, 11.5, 0
    roi = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    if kind == "binned":
        width, height, binning, focal, cx, cy = 2 * WIDTH, 2 * HEIGHT, 2, 2 * focal, 2 * cx + 0.5, 2 * cy + 0.5
    if kind == "region":
        width, height, cx, cy = 40, 30, cx + 4, cy + 3
        roi = types["sensor_msgs/msg/RegionOfInterest"](4, 3, HEIGHT, WIDTH, False)
        roi.x_offset, roi.y_offset, roi.height, roi.width = 4, 3, HEIGHT, WIDTH
    if kind == "empty-first" and index < 2:
        focal = cx = cy = 0.0
        width = height = 0
    K = np.array([focal, 0, cx, 0, focal, cy, 0, 0, 1.0 if focal else 0.0])
    P = np.array([focal, 0, cx, 0, 0, focal, cy, 0, 0, 0, 1.0, 0])
    names = ("D", "K", "R", "P") if ros1 else ("d", "k", "r", "p")
    arrays = dict(zip(names, (np.zeros(5), K, np.eye(3).ravel(), P), strict=True))
    return types["sensor_msgs/msg/CameraInfo"](
        header=header,
        height=height,
        width=width,
        distortion_model="plumb_bob",
        binning_x=binning,
        binning_y=binning,
        roi=roi,
        **arrays,
    )


def _image(types: Any, header: Any, encoding: str, index: int, recorded_ns: int) -> tuple[str, int, Any]:
    grey = np.full((HEIGHT, WIDTH), grey_of(index), np.uint8)
    if encoding in ("jpeg", "jpeg-padded", "png"):
        extension = ".png" if encoding == "png" else ".jpg"
        data = cv2.imencode(extension, grey)[1].tobytes() + bytes(5000 if encoding == "jpeg-padded" else 0)
        message = types["sensor_msgs/msg/CompressedImage"](header, extension[1:], np.frombuffer(data, np.uint8))
        return "/cam/image_raw/compressed", recorded_ns, message
    data, step = _pixels(grey, encoding)
    message = types["sensor_msgs/msg/Image"](header, HEIGHT, WIDTH, encoding, 0, step, np.frombuffer(data, np.uint8))
    return "/cam/image_raw", recorded_ns, message


def _pixels(grey: np.ndarray[Any, Any], encoding: str) -> tuple[bytes, int]:
    """The bytes of a grey image in an encoding, and the length of a row."""
    if encoding in ("rgb8", "bgr8"):
        return np.repeat(grey, 3).tobytes(), 3 * WIDTH
    if encoding == "bgra8":
        return np.repeat(grey, 4).tobytes(), 4 * WIDTH
    if encoding == "yuv422":  # U Y V Y
        return b"".join(struct.pack("4B", 128, int(y), 128, int(y)) for y in grey.ravel()[::2]), 2 * WIDTH
    if encoding in ("nv12", "nv21"):
        return grey.tobytes() + bytes([128]) * (WIDTH * HEIGHT // 2), WIDTH
    if encoding in ("mono16", "bayer_grbg16", "rgb16"):
        channels = 3 if encoding == "rgb16" else 1
        return np.repeat(grey.astype("<u2") * 16, channels).tobytes(), 2 * channels * WIDTH
    return grey.tobytes(), WIDTH
