"""Frames out of a bag: rosbag2 (MCAP, sqlite3) or ROS 1, intact or damaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.io.sources import depth_view, topics
from ros2_densematch.io.sources.account import Account
from ros2_densematch.io.sources.base import Companions, Picture, Source
from ros2_densematch.io.sources.camera_infos import CameraInfos
from ros2_densematch.io.sources.clocks import SAMPLE, doubtful_clock, other_clock
from ros2_densematch.io.sources.depth_view import DepthView
from ros2_densematch.io.sources.files import load_camera
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.io.sources.pose_topics import POSE_TYPES, PoseRequest, PoseTrack, StaticTransforms, read_poses
from ros2_densematch.io.sources.records import BagError, Record
from ros2_densematch.io.sources.stamps import stamp_of
from ros2_densematch.io.sources.stereo_check import StereoFinding, check_pair, with_positive_baseline
from ros2_densematch.io.sources.storage import open_records
from ros2_densematch.io.sources.synchronise import Stamped, synchronise
from ros2_densematch.io.sources.thinning import usual_period_s
from ros2_densematch.io.sources.timeline import StampLabel, TimeLine
from ros2_densematch.messages.image import ImageDecodeError, decode_depth, decode_image, is_depth

# Depth from an unsynchronised camera at 30 Hz is at most half a period away; a stereo pair is exposed at once.
_DEPTH_TOLERANCE_NS = 20_000_000
_STEREO_TOLERANCE_NS = 5_000_000
# Recording times run behind the stamps in the headers; the storage is searched with this margin.
_LOG_MARGIN_NS = 2_000_000_000
# The clock of the recording finds a place in it where it agrees this well with the images' clock.
_CLOCKS_AGREE_NS = 1_000_000_000
_UNREADABLE = "not readable"
_MAX_STEREO_ANGLE_DEG = 1.0  # between the cameras of a rectified pair, by /tf_static


@dataclass
class _Companion:
    """A topic whose messages go with the images: depth or right images."""

    topic: str
    tolerance_ns: int
    offset_ns: int
    decode: Callable[[Any], Any]
    account: Account
    matched: set[tuple[int, int]] = field(default_factory=set)  # stamp and recording time of those near an image
    undecodable: int = 0

    def settle(self) -> None:
        """The reading has ended: says in the account why messages were not used."""
        unused, account = self.account.unused, self.account
        far = account.messages - len(self.matched) - unused[_UNREADABLE]
        if far > 0:
            unused[f"farther than {self.tolerance_ns / 1e6:.0f} ms from every image"] = far
        aside = len(self.matched) - account.used - self.undecodable
        if aside > 0:
            unused["with images that are skipped or outside the requested part"] = aside
        if self.undecodable:
            unused["not decodable"] = self.undecodable
        unused += Counter()  # drops what is 0


class BagSource(Source):
    """The frames of one image topic of a bag; see `FrameSource`.

    Raises:
        BagError: the bag cannot be read, or has no such topics; the message lists what it has.
    """

    def __init__(self, path: Path, options: SourceOptions):
        super().__init__(path.resolve().name, options)
        self._records = open_records(path)
        self._image = topics.image_topic(self._records, options, self._log)
        self._images.name = self._image
        message = topics.first_message(self._records, self._image)
        if message is None and self._records.first(self._image) is None:
            raise BagError(f"{path}: {self._image} contains no message; topics: {self._records.describe_topics()}")
        if message is not None and is_depth(message):
            raise BagError(
                f"{self._image} contains depth images: give it with --depth-topic, and an image topic with "
                f"--image-topic; topics: {self._records.describe_topics()}"
            )
        header_frame = str(message.header.frame_id) if message is not None else ""
        self._times = self._sample(self._image)
        self._origin_ns = self._first_stamp()
        static = StaticTransforms(self._records, self._log)
        self._infos = self._camera_infos(header_frame)
        camera = load_camera(options.camera_yaml, options) or (None if self._infos is None else self._infos.first)
        self._companions: list[_Companion] = []
        self._reading: dict[str, _Companion] = {}
        self._depth = self._companion(options.depth_topic, "depth", _DEPTH_TOLERANCE_NS, decode_depth)
        self._right = self._companion(options.right_image_topic, "right images", _STEREO_TOLERANCE_NS, decode_image)
        self._depth_view = self._view_of_depth(camera, header_frame, static)
        self._camera, self._right_camera = camera, self._load_right_camera(header_frame, static)
        self._stereo: StereoFinding | None = None
        self._calibrate(camera, self._right_camera, origin=options.camera_yaml or "")
        self.frame_id = header_frame or self.frame_id
        self._count = self._records.topics[self._image].count
        self._period_s = usual_period_s([stamp for stamp, _ in self._times])
        self._odometry = self._load_odometry(header_frame, static)
        self._truth = self._load_truth(header_frame, static)
        self.ground_truth = None if self._truth is None else self._truth[0].longest
        for companion in self._companions:
            if companion.account.refused:  # it is not read
                companion.account.at_opening = True
                companion.account.messages = self._records.topics[companion.topic].count or 0

    @property
    def warnings(self) -> list[str]:
        return self._records.warnings + super().warnings

    # --- reading -----------------------------------------------------------------------------------------------------

    def _pictures(self) -> Iterator[Picture]:
        if self._infos is not None:
            self._infos.restart()
        for companion in self._companions:
            companion.matched.clear()
            companion.undecodable = 0
        self._reading = {c.topic: c for c in self._companions if not c.account.refused}
        tolerances = {topic: companion.tolerance_ns for topic, companion in self._reading.items()}
        pairs = () if self._infos is None else (self._infos.topic,)
        for image, found in synchronise(self._stream(), self._image, {**tolerances, **dict.fromkeys(pairs, 0)}, pairs):
            for topic, item in found.items():
                if topic in self._reading:
                    self._reading[topic].matched.add((item.stamp_ns, item.recorded_ns))
            yield Picture(
                image.stamp_ns,
                self._image,
                partial(_decode, image.message),
                partial(self._belonging, image, found),
                image.recorded_ns,
                image.stamped,
            )

    def _settle(self) -> None:
        for companion in self._reading.values():
            companion.settle()

    def _belonging(self, image: Stamped, found: dict[str, Stamped], stamp_ns: int) -> Companions:
        """What goes with an image."""
        camera = None if self._infos is None else self._infos.at(image.stamp_ns)
        depth = self._decoded(self._depth, found)
        if depth is not None and self._depth_view is not None:
            seen_by = camera or self._depth_view.image_camera
            depth = self._depth_view.view.registered(depth, seen_by)
        right = self._decoded(self._right, found)
        return Companions(depth, right, self._pose(stamp_ns, image.recorded_ns), camera)

    def _checked_pair(self, image: NDArray[np.uint8], extra: Companions) -> Companions:
        """The first pairs of stereo images show whether they are one, and on which side the right camera is."""
        left, right, companion = extra.camera or self._camera, self._right_camera, self._right
        if extra.right_image is None or left is None or right is None or companion is None:
            return extra
        if self._stereo is None:
            self._stereo = check_pair(image, extra.right_image, left, right)
            if self._stereo is not None and self._stereo.problem:
                companion.account.refused = f"{companion.topic} is not used: {self._stereo.problem}"
            elif self._stereo is not None and self._stereo.flipped:
                self._log.note(
                    f"the baseline of {companion.topic} has the sign of a left camera (P[0, 3] > 0), but the "
                    f"disparities show that it is the right one: the absolute value is used"
                )
        if self._stereo is None:
            return extra
        if self._stereo.problem:
            return replace(extra, right_image=None)
        return replace(extra, right_camera=with_positive_baseline(right)) if self._stereo.flipped else extra

    def _pose(self, stamp_ns: int, recorded_ns: int) -> NDArray[np.float64] | None:
        """The odometry at a time; the ground truth is only counted."""
        if self._truth is not None:
            track, account = self._truth
            account.used += track.covers(stamp_ns, recorded_ns)
        if self._odometry is None:
            return None
        track, account = self._odometry
        pose = track.at(stamp_ns, recorded_ns)
        account.used += pose is not None
        return pose

    def _stream(self) -> Iterator[Stamped]:
        """Messages of the image topic and its companions, in the part that was asked for."""
        companions = {c.topic: c for c in self._companions if not c.account.refused}
        chosen = [self._image, *companions]
        if self._infos is not None:
            chosen.append(self._infos.topic)
        for record in self._records.read(chosen, self._start_of_reading(), None):
            stamp_ns, message, stamped = record.log_time_ns, None, False
            try:
                message = self._records.decode(record)
                stamp_ns = stamp_of(message, record.log_time_ns)
                stamped = stamp_of(message, 0) != 0
            except BagError as error:
                if record.topic == self._image:
                    message, stamped = error, True
                elif record.topic in companions:
                    companions[record.topic].account.messages += 1
                    companions[record.topic].account.unused[_UNREADABLE] += 1
                    self._log.count(f"messages on {record.topic} could not be read", str(error))
                    continue
            if record.topic == self._image:
                yield Stamped(record.topic, stamp_ns, message, record.log_time_ns, stamped)
            elif record.topic in companions:
                companion = companions[record.topic]
                companion.account.seen(stamp_ns + companion.offset_ns, stamped=stamped)
                yield Stamped(record.topic, stamp_ns + companion.offset_ns, message, record.log_time_ns)
            elif message is not None and self._infos is not None:
                if self._infos.add(message, stamp_ns):
                    yield Stamped(record.topic, stamp_ns, None, record.log_time_ns)
                elif self._infos.began:
                    self._log.count(f"CameraInfo on {record.topic} cannot be used", self._infos.unusable)

    def _start_of_reading(self) -> int | None:
        """The time of recording from which on to read; None = from the start.

        The part is asked for by the images' clock. The recording's clock only saves reading what lies before it, where
        the two run alike.
        """
        if not self._options.start_s or self._origin_ns is None or not self._times:
            return None
        start = round(self._options.start_s * 1e9) - _LOG_MARGIN_NS
        if start <= 0:
            return None
        first_recorded = self._times[0][1]
        record = next(self._records.read([self._image], first_recorded + start), None)
        if record is None:
            return None
        ahead = self._stamp(record) - self._origin_ns - (record.log_time_ns - first_recorded)
        return first_recorded + start if abs(ahead) < _CLOCKS_AGREE_NS else None

    def _stamp(self, record: Record) -> int:
        try:
            return stamp_of(self._records.decode(record), record.log_time_ns)
        except BagError:
            return record.log_time_ns

    def _sample(self, topic: str) -> list[tuple[int, int]]:
        """(stamp, time of recording) of the first messages of a topic."""
        return [(self._stamp(r), r.log_time_ns) for r in islice(self._records.read([topic]), SAMPLE)]

    def _first_stamp(self) -> int | None:
        """The stamp of the first image that can be believed."""
        line: TimeLine[None] = TimeLine()
        judged = [j for stamp, recorded in self._times for j in line.push(stamp, recorded, None)] + line.finish()
        return next((j.stamp_ns for j in judged if j.label is StampLabel.USED), None)

    def _decoded(self, companion: _Companion | None, found: dict[str, Stamped]) -> Any:
        if companion is None or companion.topic not in found:
            return None
        item = found[companion.topic]
        try:
            image = companion.decode(item.message)
        except ImageDecodeError as error:
            self._log.count(f"images on {companion.topic} could not be decoded and are not used", str(error))
            companion.undecodable += 1
            return None
        companion.account.used += 1
        return image

    # --- opening -----------------------------------------------------------------------------------------------------

    def _account(self, role: str, topic: str, remedy: str = "") -> Account:
        account = Account(role, topic, remedy=remedy)
        self._accounts.append(account)
        return account

    def _named(self, name: str | None, types: tuple[str, ...], option: str) -> str | None:
        return None if name is None else topics.named_topic(self._records, name, types, option, self._log)

    def _companion(
        self, name: str | None, role: str, tolerance_ns: int, decode: Callable[[Any], Any]
    ) -> _Companion | None:
        option = {"depth": "--depth", "right images": "--right-image"}[role]
        topic = self._named(name, topics.IMAGE_TYPES, f"{option}-topic")
        if topic is None:
            return None
        taken = {self._image: "the images", **{c.topic: c.account.role for c in self._companions}}
        if topic in taken:
            raise BagError(
                f"{option}-topic {name} is the topic of {taken[topic]}: choose another one; topics: "
                f"{self._records.describe_topics()}"
            )
        given = getattr(self._options, f"{option[2:].replace('-', '_')}_time_offset_s")
        account = self._account(role, topic)
        times = self._sample(topic)
        if given is None:
            account.refused = other_clock(role, topic, f"{option}-time-offset", self._times, times)
            doubt = doubtful_clock(role, topic, f"{option}-time-offset", self._times, times)
            if doubt:
                self._log.warn(doubt)
        companion = _Companion(topic, tolerance_ns, round((given or 0.0) * 1e9), decode, account)
        self._companions.append(companion)
        return companion

    def _camera_infos(self, header_frame: str) -> CameraInfos | None:
        """The calibrations of the images, unless the user gave a file."""
        if self._options.camera_yaml is not None:
            return None
        found = topics.camera_infos(
            self._records, self._image, header_frame, self._options.camera_info_topic, self._options, self._log
        )
        if isinstance(found, str):
            self._log.warn(f"{found}: correspondences only, no poses; give a calibration file or --camera-info-topic")
            return None
        return found

    def _load_right_camera(self, left_frame: str, static: StaticTransforms) -> Camera | None:
        """The camera of the right images with the baseline; without one they are refused."""
        if self._right is None:
            return None
        topic, account = self._right.topic, self._right.account
        message = topics.first_message(self._records, topic)
        frame_id = "" if message is None else str(message.header.frame_id)
        if self._options.right_camera_yaml is not None:
            camera = load_camera(self._options.right_camera_yaml, self._options)
        else:
            found = topics.camera_infos(self._records, topic, frame_id, None, self._options, self._log)
            if isinstance(found, str):
                account.refused = account.refused or (
                    f"{found}: no scale from the stereo pair; give a calibration file"
                )
                return None
            camera = found.first
        if camera is None or camera.baseline:
            return camera
        T = static.find(left_frame, frame_id) if left_frame and frame_id and left_frame != frame_id else None
        if T is not None and T[0, 3] > 0 and poses.rotation_angle_deg(T) <= _MAX_STEREO_ANGLE_DEG:
            self._log.note(f"the stereo baseline of {T[0, 3]:.4f} m comes from /tf_static")
            return camera.with_baseline(float(T[0, 3]))
        account.refused = account.refused or (
            f"{topic} is not used: the calibration of the right camera contains no baseline (P[0, 3] is 0 or P is "
            f"missing)"
            f" and {static.describe()}: no scale from the stereo pair; give the calibration of the rectified pair"
        )
        return camera

    def _view_of_depth(self, camera: Camera | None, image_frame: str, static: StaticTransforms) -> _View | None:
        """How to register the depth images; None where they are registered, or nothing is known against it."""
        if self._depth is None or camera is None:
            return None
        message = topics.first_message(self._records, self._depth.topic)
        depth_frame = "" if message is None else str(message.header.frame_id)
        info = topics.camera_info_topic(self._records, self._depth.topic)
        if info is None:
            return None
        found = topics.camera_infos(self._records, self._depth.topic, depth_frame, info, self._options, self._log)
        if isinstance(found, str) or found.first is None:
            self._log.note(f"{found}: the depth is assumed to be registered to the images, which cannot be checked")
            return None
        same_frame = not depth_frame or not image_frame or depth_frame.lstrip("/") == image_frame.lstrip("/")
        extrinsics = np.eye(4) if same_frame else static.find(image_frame, depth_frame)
        why = depth_view.difference(found.first, camera, extrinsics)
        if not why:
            if extrinsics is None:
                self._log.note(
                    f"the depth on {self._depth.topic} is in {depth_frame}, the images are in {image_frame}: with the "
                    f"same camera matrix, it is assumed to be registered"
                )
            return None
        if extrinsics is None:
            self._depth.account.refused = (
                f"{self._depth.topic} is not registered to the images: {why}, and no transform connects {depth_frame} "
                f"to {image_frame}: not used; give the registered depth (aligned_depth_to_color, depth_registered) or "
                "record /tf_static"
            )
            return None
        self._log.note(
            f"the depth on {self._depth.topic} is not registered to the images ({why}): it is reprojected into them"
        )
        return _View(DepthView(found.first, extrinsics), camera)

    def _load_odometry(self, camera_frame: str, static: StaticTransforms) -> tuple[PoseTrack, Account] | None:
        topic = self._named(self._options.odometry_topic, POSE_TYPES, "--odometry-topic")
        if topic is None:
            return None
        account = self._account("odometry", topic, "see --odometry-time-offset if another clock stamped it")
        request = PoseRequest("odometry", camera_frame, self._times, self._options.odometry_time_offset_s)
        track = read_poses(self._records, account, request, static, self._log)
        return None if track is None else (track, account)

    def _load_truth(self, camera_frame: str, static: StaticTransforms) -> tuple[PoseTrack, Account] | None:
        named = self._named(self._options.ground_truth_topic, POSE_TYPES, "--ground-truth-topic")
        found = [named] if named is not None else topics.ground_truth_topics(self._records, POSE_TYPES)
        for topic in found:
            account = self._account("ground truth", topic)
            request = PoseRequest("ground truth", camera_frame, self._times, self._options.ground_truth_time_offset_s)
            track = read_poses(self._records, account, request, static, self._log)
            if track is not None:
                self._log.note(f"ground truth is read from {topic}")
                return track, account
        return None


@dataclass(frozen=True)
class _View:
    """A depth camera, and the camera of the images where no CameraInfo comes with them."""

    view: DepthView
    image_camera: Camera


def _decode(message: Any) -> Any:
    if isinstance(message, BagError):
        raise ImageDecodeError("", str(message), "check the recording", file=True)
    return decode_image(message)
