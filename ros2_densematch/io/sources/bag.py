"""Frames out of a bag: rosbag2 (MCAP, sqlite3) or ROS 1, intact or damaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.trajectory import Trajectory
from ros2_densematch.io.sources import topics
from ros2_densematch.io.sources.base import Companions, Picture, Source
from ros2_densematch.io.sources.files import load_camera
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.io.sources.pose_topics import POSE_TYPES, StaticTransforms, pose_at, read_trajectory
from ros2_densematch.io.sources.records import BagError
from ros2_densematch.io.sources.stamps import stamp_of
from ros2_densematch.io.sources.storage import open_records
from ros2_densematch.io.sources.synchronise import Stamped, synchronise
from ros2_densematch.messages.image import ImageDecodeError, decode_depth, decode_image, is_depth

# Depth from an unsynchronised camera at 30 Hz is at most half a period away; a stereo pair is exposed at once.
_DEPTH_TOLERANCE_NS = 20_000_000
_STEREO_TOLERANCE_NS = 5_000_000
# Recording times run behind the stamps in the headers; the storage is searched with this margin.
_LOG_MARGIN_NS = 2_000_000_000


class BagSource(Source):
    """The frames of one image topic of a bag; see `FrameSource`.

    Raises:
        BagError: the bag cannot be read, or has no such topics; the message lists what it has.
    """

    def __init__(self, path: Path, options: SourceOptions):
        super().__init__(path.resolve().name, options)
        self._records = open_records(path)
        self._image = topics.image_topic(self._records, options, self._log)
        first = self._records.first(self._image)
        if first is None:
            raise BagError(f"{path}: {self._image} holds no message; topics: {self._records.describe_topics()}")
        self._first_log_ns = first.log_time_ns
        message = topics.first_message(self._records, self._image)
        if message is not None and is_depth(message):
            raise BagError(
                f"{self._image} holds depth images: name it with --depth-topic and a topic of pictures with "
                f"--image-topic; topics: {self._records.describe_topics()}"
            )
        header_frame = str(message.header.frame_id) if message is not None else ""
        self._depth = self._named(options.depth_topic, topics.IMAGE_TYPES, "--depth-topic")
        self._right = self._named(options.right_image_topic, topics.IMAGE_TYPES, "--right-image-topic")
        camera = load_camera(options.camera_yaml, options) or topics.camera(
            self._records, self._image, header_frame, options.camera_info_topic, options, self._log
        )
        self._calibrate(camera, self._load_right_camera())
        self.frame_id = header_frame or self.frame_id
        self._count = self._records.topics[self._image].count
        static = StaticTransforms(self._records, self._log)
        self._odometry = self._load_odometry(header_frame, static)
        self.ground_truth = self._load_truth(header_frame, static)

    @property
    def warnings(self) -> list[str]:
        return self._records.warnings + self._log.warnings

    def _pictures(self) -> Iterator[Picture]:
        tolerances = {}
        if self._depth is not None:
            tolerances[self._depth] = _DEPTH_TOLERANCE_NS
        if self._right is not None:
            tolerances[self._right] = _STEREO_TOLERANCE_NS
        found: Counter[str] = Counter()  # images with a companion, by its topic

        def companions(item: Stamped, messages: dict[str, Any]) -> Companions:
            depth = self._companion(messages, self._depth, decode_depth)
            right = self._companion(messages, self._right, decode_image)
            found.update({self._image: 1, self._depth or "": depth is not None, self._right or "": right is not None})
            odometry = None if self._odometry is None else pose_at(self._odometry, item.stamp_ns)
            return Companions(depth, right, odometry)

        for item, messages in synchronise(self._stream(), self._image, tolerances):
            decode = partial(decode_image, item.message)
            yield Picture(item.stamp_ns, item.index, self._image, decode, partial(companions, item, messages))
        for topic, tolerance in tolerances.items():
            if found[self._image] and not found[topic]:
                self._log.warn(f"no message on {topic} lies within {tolerance / 1e6:.0f} ms of an image: not used")

    def _stream(self) -> Iterator[Stamped]:
        """Messages of the image topic and its companions, in the part that was asked for."""
        options, chosen = self._options, [t for t in (self._image, self._depth, self._right) if t is not None]
        start_ns = stop_ns = None
        if options.start_s is not None:
            start_ns = self._first_log_ns + round(options.start_s * 1e9) - _LOG_MARGIN_NS
            first = topics.first_message(self._records, self._image)
            if first is not None:
                self._assembler.wanted(stamp_of(first, self._first_log_ns))  # sets the origin of time
        if options.stop_s is not None:
            stop_ns = self._first_log_ns + round(options.stop_s * 1e9) + _LOG_MARGIN_NS
        for record in self._records.read(chosen, start_ns, stop_ns):
            try:
                message = self._records.decode(record)
            except BagError as error:
                if record.topic == self._image:
                    self._drop_undecodable(self._assembler.number(), error)
                else:
                    self._log.count(f"messages on {record.topic} could not be read", str(error))
                continue
            stamp_ns = stamp_of(message, record.log_time_ns)
            if record.topic != self._image:
                yield Stamped(record.topic, stamp_ns, message)
            elif (index := self._number(stamp_ns)) is not None:
                yield Stamped(record.topic, stamp_ns, message, index)

    def _companion(self, found: dict[str, Any], topic: str | None, decode: Any) -> Any:
        if topic is None or topic not in found:
            return None
        try:
            return decode(found[topic])
        except ImageDecodeError as error:
            self._log.count(f"images on {topic} could not be decoded and are not used", str(error))
            return None

    def _named(self, name: str | None, types: tuple[str, ...], option: str) -> str | None:
        return None if name is None else topics.named_topic(self._records, name, types, option, self._log)

    def _load_right_camera(self) -> Camera | None:
        if self._right is None:
            return None
        message = topics.first_message(self._records, self._right)
        frame_id = "" if message is None else str(message.header.frame_id)
        return load_camera(self._options.right_camera_yaml, self._options) or topics.camera(
            self._records,
            self._right,
            frame_id,
            None,
            self._options,
            self._log,
            without="no scale from the stereo pair",
        )

    def _load_odometry(self, camera_frame: str, static: StaticTransforms) -> Trajectory | None:
        topic = self._named(self._options.odometry_topic, POSE_TYPES, "--odometry-topic")
        if topic is None:
            return None
        return read_trajectory(self._records, topic, camera_frame, static, self._log, "odometry")

    def _load_truth(self, camera_frame: str, static: StaticTransforms) -> Trajectory | None:
        named = self._named(self._options.ground_truth_topic, POSE_TYPES, "--ground-truth-topic")
        found = [named] if named is not None else topics.ground_truth_topics(self._records, POSE_TYPES)
        for topic in found:
            truth = read_trajectory(self._records, topic, camera_frame, static, self._log, "ground truth")
            if truth is not None:
                self._log.note(f"ground truth is read from {topic}")
                return truth
        return None
