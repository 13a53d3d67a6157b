"""From serialised messages to jobs: counting, order, synchronisation. One thread: that of the node's executor."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ros2_densematch.configuration import Configuration
from ros2_densematch.io.sources.stamps import stamp_of
from ros2_densematch.io.sources.timeline import StampLabel, TimeLine, said_of
from ros2_densematch.live.clocks import Clocks
from ros2_densematch.live.core import Job, MatcherCore
from ros2_densematch.live.counters import Drop, SequenceGaps
from ros2_densematch.live.inputs import Inputs
from ros2_densematch.live.synchroniser import Bundle, LiveSynchroniser
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
from ros2_densematch.messages.conversions import time_ns, transform_matrix
from ros2_densematch.messages.typestore import ros2_typestore

_POSE_GAP_NS = 250_000_000  # as in io.pose_topics: odometry is interpolated over at most this


class Reception:
    """Takes the node's input messages as bytes.

    Args:
        core: gets the jobs.
        inputs: keeps calibrations and builds the frames.
        source: the image topic's name, for messages.
        configuration: of the node.
        now_ns: the node's clock, which may be simulated.
        heard_transform: told of every transform on /tf and /tf_static: parent, child, stamp, topic.
        initial_pose: takes a geometry_msgs/PoseWithCovarianceStamped.
        say: takes what was decided about the images' clock, one sentence each.
    """

    def __init__(
        self,
        core: MatcherCore,
        inputs: Inputs,
        source: str,
        configuration: Configuration,
        now_ns: Callable[[], int],
        heard_transform: Callable[[str, str, int, str], None],
        initial_pose: Callable[[Any], None],
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.heard: dict[str, float] = {}  # input -> time.monotonic() of its last message
        self._core, self._inputs, self._source, self._now_ns = core, inputs, source, now_ns
        self._store = ros2_typestore()
        self._heard_transform, self._initial_pose = heard_transform, initial_pose
        self._say = say
        self._problems: dict[str, str] = {}
        self._configuration = configuration
        self._begin()

    def _begin(self) -> None:
        self._time: TimeLine[None] = TimeLine(look_ahead=0)
        self._gap_said = False
        self._segment = 0
        self._gaps = SequenceGaps()
        self._clocks = Clocks()
        self._synchroniser = LiveSynchroniser(0)
        self.configure(self._configuration)

    def configure(self, configuration: Configuration) -> None:
        """Takes other tolerances and waits."""
        self._configuration = configuration
        self._synchroniser.wait_ns = round(configuration.sync_wait_s * 1e9)
        self._synchroniser.expect(DEPTH, round(configuration.depth_tolerance_s * 1e9))
        self._synchroniser.expect(RIGHT, round(configuration.stereo_tolerance_s * 1e9))
        self._synchroniser.expect(ODOMETRY, _POSE_GAP_NS, until_after=True)
        self._synchroniser.expect(CAMERA_INFO, 0, pairs_only=True)

    def begin(self) -> None:
        """The node was activated."""
        self.heard.clear()
        self._problems.clear()
        self._begin()

    def end(self) -> None:
        """The node is deactivated: what waits is dropped and counted."""
        waiting = self._synchroniser.clear()
        if waiting:
            self._core.counters.drop(Drop.STOPPED, "it was waiting for its companions", waiting)

    @property
    def waiting(self) -> int:
        """Images that wait for what belongs to them."""
        return self._synchroniser.waiting

    def offered(self, name: str) -> None:
        """Somebody publishes this input now."""
        if name in (CAMERA_INFO, DEPTH, RIGHT, ODOMETRY):
            self._synchroniser.offered(name)

    def not_offered(self) -> list[str]:
        """The inputs that belong to images and that nobody is known to publish."""
        return self._synchroniser.not_offered()

    def problems(self) -> dict[str, str]:
        """Input -> what is wrong with its messages, for inputs whose last message could not be used."""
        found = {f"{name} content": text for name, text in self._problems.items() if text}
        for (name, what), text in self._misfits().items():
            found[f"{name} {what}"] = text
        found["focal length"] = self._core.focal_doubt
        return {what: text for what, text in found.items() if text}

    def unused(self) -> set[str]:
        """The inputs that reach no image, because their frame or their clock is another."""
        return {name for (name, _), text in self._misfits().items() if text}

    def _misfits(self) -> dict[tuple[str, str], str]:
        """(input, what does not fit) -> why, in words; "" where it fits."""
        frame = self._image_frame
        found = {
            (DEPTH, "registration"): self._inputs.depth_problem(frame) if DEPTH in self.heard else "",
            (ODOMETRY, "frame"): self._inputs.odometry_problem(frame) if ODOMETRY in self.heard else "",
        }
        return found | {(name, "clock"): self._clocks.problem(name) for name in (DEPTH, RIGHT, ODOMETRY)}

    _image_frame = ""

    def receive(self, name: str, kind: str, data: bytes, info: dict[str, Any]) -> None:
        """Takes one message.

        Args:
            name: input, as in `topics.SUBSCRIBED`.
            kind: its type.
            data: CDR bytes.
            info: what the middleware says of it: received_timestamp, publication_sequence_number.
        """
        now = time.time_ns()
        self.heard[name] = time.monotonic()
        number = -1
        if name == IMAGE:
            number = self._core.counters.receive(now)
            lost = self._gaps.missed(info.get("publication_sequence_number"))
            if lost:
                self._core.counters.drop(Drop.LOST, f"{lost} before image {number}", lost)
        try:
            message = self._store.deserialize_cdr(data, kind)
        except Exception as error:  # noqa: BLE001 - damaged bytes make the parser fail in any way
            self._broken(name, number, f"it is not a {kind} ({type(error).__name__}: {error})")
            return
        if name in (TF, TF_STATIC):
            self._take_transforms(name, message)
            return
        if name == INITIAL_POSE:
            self._initial_pose(message)
            return
        stamp_ns = stamp_of(message, self._now_ns())
        self._clocks.heard(name, stamp_ns, self.heard[name])
        if name == IMAGE:
            self._take_image(message, stamp_ns, number, int(info.get("received_timestamp") or 0) or now)
        elif name in (CAMERA_INFO, RIGHT_INFO, DEPTH_INFO):
            self._problems[name] = self._inputs.camera_info(name, message, stamp_ns)
            if name == CAMERA_INFO and not self._problems[name]:
                self._submit(self._synchroniser.companion(name, stamp_ns, message, time.time_ns()))
        else:
            if name == ODOMETRY:
                self._problems[name] = self._inputs.odometry(stamp_ns, message)
            self._submit(self._synchroniser.companion(name, stamp_ns, message, time.time_ns()))

    def release(self) -> None:
        """Lets go the images that waited long enough."""
        self._submit(self._synchroniser.release(time.time_ns()))

    def _take_image(self, message: Any, stamp_ns: int, number: int, arrival_ns: int) -> None:
        self._image_frame = str(message.header.frame_id)
        counters = self._core.counters
        last = self._time.last_ns
        (judged,) = self._time.push(stamp_ns, arrival_ns, None)
        self._say_time()
        if judged.label is not StampLabel.USED:
            reason = f"its stamp is an outlier: {judged.why}"
            if last is not None and stamp_ns <= last:
                reason = f"its stamp {stamp_ns / 1e9:.6f} s is not after the previous image's {last / 1e9:.6f} s"
            self._core.refuse(number, stamp_ns, Drop.OUT_OF_ORDER, reason, self._image_frame)
            return
        if judged.segment != self._segment:
            self._segment = judged.segment
            dropped = self._synchroniser.clear()
            if dropped:
                counters.drop(Drop.OUT_OF_ORDER, "it was waiting when the clock was set back", dropped)
            self._core.reset(f"the images' clock was set back to {stamp_ns / 1e9:.3f} s")
        limit = self._configuration.max_image_age_s
        age = (self._now_ns() - stamp_ns) * 1e-9
        if limit and age > limit:
            reason = f"it is {age:.3f} s old, max_image_age_s is {limit:g}"
            self._core.refuse(number, stamp_ns, Drop.TOO_OLD, reason, self._image_frame)
            return
        now = time.time_ns()
        self._submit(self._synchroniser.image(stamp_ns, message, arrival_ns=arrival_ns, number=number, now_ns=now))

    def _say_time(self) -> None:
        """What was decided about the images' clock; of long pauses the first, silence itself is watched elsewhere."""
        for decision in self._time.decisions:
            self._say(f"{self._source}: {decision}")
        if self._time.gaps and not self._gap_said:
            self._gap_said = True
            self._say(f"{self._source}: {said_of(self._time.gaps)} (logged once)")
        self._time.decisions.clear()
        self._time.gaps.clear()

    def _submit(self, bundles: list[Bundle]) -> None:
        for bundle in bundles:
            build = partial(self._inputs.frame, bundle, self._source)
            self._core.submit(Job(bundle.number, bundle.stamp_ns, bundle.arrival_ns, build))

    def _take_transforms(self, name: str, message: Any) -> None:
        for item in message.transforms:
            parent, child = str(item.header.frame_id), str(item.child_frame_id)
            self._heard_transform(parent, child, time_ns(item.header.stamp), name)
            if name == TF:
                continue
            try:
                T = transform_matrix(item.transform)
            except ValueError as error:
                self._problems[TF_STATIC] = f"{child} on /tf_static cannot be used: {error}"
                continue
            self._inputs.transforms.add(parent, child, T)

    def _broken(self, name: str, number: int, reason: str) -> None:
        if name == IMAGE:
            self._core.refuse(number, self._now_ns(), Drop.MALFORMED, reason, "")
        else:
            self._problems[name] = f"a message on {name} cannot be read: {reason}"
