"""The node without ROS: frames in, outcomes and messages out."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from ros2_densematch.configuration import Configuration, configuration_from
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.io.results.odometry import T_BODY_FROM_OPTICAL, MetricState, of_base
from ros2_densematch.live.core import FrameOutcome, Job, MatcherCore
from ros2_densematch.live.counters import Drop
from ros2_densematch.live.diagnostics import Level, diagnostic_message, report
from ros2_densematch.live.publication import Publication
from ros2_densematch.messages.conversions import correspondences_from_message, pose_matrix, time_ns, to_cdr
from ros2_densematch.messages.errors import ImageDecodeError
from ros2_densematch.messages.image import decode_image
from ros2_densematch.messages.typestore import ros2_typestore
from ros2_densematch.simulation.flight import demo_camera, look
from ros2_densematch.simulation.renderer import render
from ros2_densematch.simulation.worlds import workshop
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.tracked_frame import Status, TrackedFrame
from ros2_densematch.tracking.tracker import Tracker

SIFT = configuration_from({"matcher": "sift", "odom_frame": "odom", "tf_wait_s": 0.0})


class Silent:
    def info(self, text: str) -> None: ...

    def warning(self, text: str) -> None: ...

    def error(self, text: str) -> None: ...


class Recorder:
    """The core's sink and the publication's transport at once."""

    def __init__(self, configuration: Configuration = SIFT, wanted: tuple[str, ...] = ()) -> None:
        self.outcomes: list[FrameOutcome] = []
        self.messages: list[tuple[str, Any]] = []
        self.anew: list[str] = []
        self.complaints: list[str] = []
        self.changed = threading.Condition()
        self.publication = Publication(configuration, self._send, lambda topic: topic in wanted, time.time_ns, Silent())

    def _send(self, topic: str, message: Any) -> None:
        kind = message.__msgtype__
        self.messages.append((topic, ros2_typestore().deserialize_cdr(to_cdr(message), kind)))

    def publish(self, outcome: FrameOutcome) -> None:
        self.publication.publish(outcome)
        with self.changed:
            self.outcomes.append(outcome)
            self.changed.notify_all()

    def began_anew(self, reason: str) -> None:
        self.anew.append(reason)
        self.publication.began_anew(reason)

    def complain(self, text: str) -> None:
        self.complaints.append(text)

    def wait(self, number: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.outcomes) >= number, 60)

    def on(self, topic: str) -> list[Any]:
        return [message for name, message in self.messages if name == topic]


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    """A small camera that moves to the left, with depth."""
    scene, camera = workshop(), demo_camera(320, 240)
    found = []
    for index in range(5):
        drawn = render(scene, camera, look(np.array([1.0, -1.0 + 0.06 * index, 1.35]), 0.0, np.radians(6.0), 0.0))
        depth = drawn.depth.astype(np.float32)
        found.append(Frame(drawn.image, (index + 1) * 100_000_000, index, camera, depth, source="/image"))
    return found


def job(frame: Frame) -> Job:
    return Job(frame.index, frame.stamp_ns, time.time_ns(), lambda: (frame, "cam"))


def broken(number: int, error: Exception) -> Job:
    def build() -> tuple[Frame, str]:
        raise error

    return Job(number, number, time.time_ns(), build)


def run(core: MatcherCore, sink: Recorder, frames: list[Frame]) -> None:
    core.start()
    for frame in frames:
        core.submit(job(frame))
        sink.wait(len(sink.outcomes) + 1)


def test_messages_are_those_of_the_tracker(frames: list[Frame]) -> None:
    sink = Recorder()
    core = MatcherCore(SIFT, sink)
    run(core, sink, frames)
    assert core.stop()
    tracker = Tracker(core.loaded.matcher, SIFT.tracker)
    expected = [tracker.process(frame) for frame in frames]
    matches = sink.on("~/correspondences")
    assert len(matches) == len(sink.on("~/relative_pose")) == len(frames) - 1
    for message, tracked in zip(matches, expected[1:], strict=True):
        got = correspondences_from_message(message)
        np.testing.assert_array_equal(got.query_xy, tracked.correspondences.query_xy)
        assert message.reference_keyframe_id == tracked.keyframe_id
    for message, tracked in zip(sink.on("~/odometry"), expected, strict=True):
        in_odom = T_BODY_FROM_OPTICAL @ tracked.T_world_from_camera
        np.testing.assert_allclose(pose_matrix(message.pose.pose), in_odom, atol=1e-12)
        assert message.child_frame_id == "cam"
    last = sink.on("~/status")[-1]
    assert (last.frames_processed, last.frames_dropped, last.odometry_reason) == (len(frames), 0, "")
    assert [m.keyframe_id for m in sink.on("~/keyframe")] == [k.id for k in tracker.keyframes]
    assert not sink.on("~/matches_image")  # nobody listens
    assert not sink.on("/tf")


def test_every_frame_is_a_witness_of_the_focal_length(frames: list[Frame], monkeypatch: pytest.MonkeyPatch) -> None:
    class Watch:
        doubt = "the focal length does not fit"
        taken: ClassVar[list[int]] = []

        def add(self, frame: Frame, tracked: TrackedFrame) -> None:
            assert frame.index == tracked.index
            self.taken.append(frame.index)

    monkeypatch.setattr("ros2_densematch.live.core.FocalWatch", Watch)
    sink = Recorder()
    core = MatcherCore(SIFT, sink)
    run(core, sink, frames)
    assert core.stop()
    assert Watch.taken == [frame.index for frame in frames]
    assert core.focal_doubt == Watch.doubt


def test_every_keyframe_that_a_message_names_was_announced(frames: list[Frame]) -> None:
    sink = Recorder(SIFT, ("~/matches_image",))
    core = MatcherCore(SIFT, sink)
    core.start()
    for index, frame in enumerate(frames * 2):
        if index == 3:
            core.request_keyframe().result(10)
        core.submit(job(replace(frame, index=index, stamp_ns=(index + 1) * 1000)))
        sink.wait(index + 1)
    core.stop()
    announced = {m.keyframe_id for m in sink.on("~/keyframe")}
    assert {m.reference_keyframe_id for m in sink.on("~/correspondences")} <= announced
    assert len(announced) >= 2
    assert "it was asked for" in sink.outcomes[3].tracked.reason
    pictures = sink.on("~/matches_image")
    assert len(pictures) == len(frames) * 2 - 1
    assert pictures[0].encoding == "rgb8"
    assert not sink.on("~/matches_image/compressed")  # each form only for its own listeners


def test_the_compressed_picture_is_the_raw_one(frames: list[Frame]) -> None:
    both = Recorder(SIFT, ("~/matches_image", "~/matches_image/compressed"))
    core = MatcherCore(SIFT, both)
    run(core, both, frames[:2])
    only = Recorder(SIFT, ("~/matches_image/compressed",))
    other = MatcherCore(SIFT, only)
    run(other, only, frames[:2])
    assert core.stop()
    assert other.stop()
    (raw,), (compressed,) = both.on("~/matches_image"), both.on("~/matches_image/compressed")
    assert compressed.header == raw.header
    assert compressed.format == "rgb8; jpeg compressed bgr8"
    read, drawn = decode_image(compressed), decode_image(raw)
    assert read.shape == drawn.shape
    blurred, swapped = (np.abs(image.astype(int) - drawn).mean() for image in (read, read[:, :, ::-1]))
    assert blurred < 8.0  # JPEG blurs the lines
    assert blurred < 0.5 * swapped, (blurred, swapped)
    assert not only.on("~/matches_image")
    assert only.on("~/matches_image/compressed")[0].data.tobytes() == compressed.data.tobytes()


def test_the_path_is_where_the_odometry_was_at_the_keyframes(frames: list[Frame]) -> None:
    settings = configuration_from(
        {"matcher": "sift", "base_frame": "base_link", "base_from_camera": "0.2 0.0 0.3 -0.5 0.5 -0.5 0.5"}
    )
    sink = Recorder(settings, ("~/path",))
    core = MatcherCore(settings, sink)
    core.start()
    for index, frame in enumerate(frames):
        core.request_keyframe().result(10)
        core.submit(job(frame))
        sink.wait(index + 1)
    core.stop()
    path = sink.on("~/path")[-1]
    odometry = {time_ns(m.header.stamp): pose_matrix(m.pose.pose) for m in sink.on("~/odometry")}
    announced = [time_ns(m.header.stamp) for m in sink.on("~/keyframe")]
    assert len(announced) == len(frames)
    assert [time_ns(p.header.stamp) for p in path.poses] == announced
    assert {path.header.frame_id, *(p.header.frame_id for p in path.poses)} == {"odom"}
    for pose in path.poses:
        np.testing.assert_allclose(pose_matrix(pose.pose), odometry[time_ns(pose.header.stamp)], atol=1e-9)
    assert len(sink.on("~/path")) == len(frames)


def test_without_metric_scale_the_path_is_empty_as_the_odometry_is(frames: list[Frame]) -> None:
    sink = Recorder(SIFT, ("~/path",))
    core = MatcherCore(SIFT, sink)
    run(core, sink, [replace(frame, depth=None) for frame in frames])
    core.stop()
    assert sink.on("~/keyframe")
    assert not sink.on("~/odometry")
    assert not sink.on("~/path")


def test_what_cannot_be_used_is_counted_named_and_survived(frames: list[Frame]) -> None:
    sink = Recorder()
    core = MatcherCore(SIFT, sink)
    core.start()
    jobs = [
        job(frames[0]),
        broken(1, ImageDecodeError("rgb9", "encoding not supported", "republish")),
        broken(2, ValueError("the mask is 3 x 3")),
        broken(3, RuntimeError("cuDNN error")),
        job(replace(frames[1], image=frames[1].image[:8, :8], camera=None, depth=None)),
        job(frames[2]),
    ]
    for number, each in enumerate(jobs, start=1):
        core.submit(each)
        sink.wait(number)
    core.refuse(9, 9, Drop.OUT_OF_ORDER, "its stamp went back", "cam")
    sink.wait(7)
    core.stop()
    drops = core.counters.snapshot().drops
    assert drops == {Drop.MALFORMED: 1, Drop.UNSUITABLE: 2, Drop.FAILED: 1, Drop.OUT_OF_ORDER: 1}
    assert len(sink.complaints) == 5  # the first of each kind, also where two kinds have one reason
    assert [o.tracked.status is Status.REJECTED for o in sink.outcomes] == [False, True, True, True, True, False, True]
    assert "RuntimeError: cuDNN error" in sink.on("~/status")[3].reason
    assert sink.outcomes[5].tracked.status is Status.TRACKED


def test_a_slow_matcher_never_falls_behind(frames: list[Frame]) -> None:
    sink = Recorder()
    core = MatcherCore(SIFT, sink)
    core.load()
    encode = core.loaded.matcher._encode

    def slow(*arguments: Any, **named: Any) -> Any:
        time.sleep(0.08)
        return encode(*arguments, **named)

    core.loaded.matcher._encode = slow  # type: ignore[method-assign]
    core.start()
    count = 60
    for number in range(count):
        frame = replace(frames[number % 5], index=number, stamp_ns=(number + 1) * 1000)
        core.counters.receive(time.time_ns())
        core.submit(job(frame))
        time.sleep(0.01)
    with sink.changed:
        assert sink.changed.wait_for(lambda: sink.outcomes[-1].tracked.index == count - 1, 60)
    core.stop()
    found = core.counters.snapshot()
    assert found.received == count
    assert found.processed + found.dropped == count
    assert found.drops[Drop.REPLACED] > 10
    assert sink.outcomes[-1].tracked.index == count - 1
    times = core.times.summary()
    # nothing waits longer than one image's work, and than a busy machine lets a thread wait; a queue would be 4 s long
    assert times["waited"].max < 1.2 * times["matcher"].max + 1000.0


def test_settings_change_between_two_images(frames: list[Frame]) -> None:
    sink = Recorder()
    core = MatcherCore(SIFT, sink)
    run(core, sink, frames[:2])
    fewer = configuration_from({"matcher": "sift", "tracker.max_matches": 60})
    assert core.prepare(fewer) is None  # the same matcher: what is known stays
    core.apply(fewer, None).result(10)
    run(core, sink, frames[2:3])
    assert len(sink.outcomes[-1].tracked.correspondences) <= 60
    assert sink.outcomes[-1].tracked.keyframe_id == 0
    with pytest.raises(ValueError, match="unknown preset 'turbo' of sift"):
        core.prepare(configuration_from({"matcher": "sift", "preset": "turbo"}))
    other = configuration_from({"matcher": "gcm", "preset": "turbo", "device": "cpu", "weights": "random"})
    core.apply(other, core.prepare(other)).result(60)
    run(core, sink, frames[3:4])
    core.stop()
    assert sink.outcomes[-1].tracked.status is Status.INITIALISED
    numbers = [m.keyframe_id for m in sink.on("~/keyframe")]
    assert numbers == sorted(set(numbers))  # never used twice
    assert sink.outcomes[-1].tracked.new_keyframes[0].id == numbers[-1] > 0
    assert "gcm" in sink.anew[-1]


def test_disabled_and_stopped_images_are_counted(frames: list[Frame]) -> None:
    sink = Recorder()
    core = MatcherCore(SIFT, sink)
    core.submit(job(frames[0]))
    core.start()
    core.enabled = False
    core.submit(job(frames[0]))
    core.stop()
    assert core.counters.snapshot().drops == {Drop.STOPPED: 1, Drop.DISABLED: 1}
    core.release()
    assert core.loaded is None


def test_match_pair_is_the_offline_match(frames: list[Frame]) -> None:
    core = MatcherCore(SIFT, Recorder())
    with pytest.raises(ValueError, match="configure and activate"):
        core.match_pair(frames[0].image, frames[1].image, None, None).result(10)
    core.start()
    camera: Camera = frames[0].camera
    matches, pose = core.match_pair(frames[0].image, frames[2].image, (camera, camera), 200).result(10)
    core.stop()
    matcher = core.loaded.matcher
    expected = matcher.match(matcher.encode(frames[0].image), matcher.encode(frames[2].image), max_matches=200)
    np.testing.assert_array_equal(matches.query_xy, expected.query_xy)
    assert pose is not None
    assert pose.ok


def test_diagnostics_say_what_is_wrong_first(frames: list[Frame]) -> None:
    sink = Recorder()
    core = MatcherCore(SIFT, sink)
    assert report(core, None, [], "inactive").message == "inactive"
    assert report(core, None, [], "active").level is Level.STALE
    run(core, sink, frames[:2])
    good = report(core, sink.publication.last, [], "active")
    assert good.level is Level.OK
    assert 0 < float(good.values["matcher_ms.median"]) <= float(good.values["matcher_ms.max"])
    assert 0 < float(good.values["matcher_ms.mean"]) <= float(good.values["matcher_ms.max"])
    assert report(core, sink.publication.last, ["no data on /depth for 6 s"], "active").level is Level.STALE
    for number in range(5):
        core.submit(broken(number, RuntimeError("out of memory")))
        sink.wait(3 + number)
    bad = report(core, sink.publication.last, [], "active")
    core.stop()
    assert bad.level is Level.ERROR
    assert "the last 5 images failed: RuntimeError: out of memory" in bad.message
    message = diagnostic_message(bad, stamp_ns=1, name="/matcher: matching", hardware="/image")
    again = ros2_typestore().deserialize_cdr(to_cdr(message), message.__msgtype__)
    assert {v.key: v.value for v in again.status[0].values}["dropped.failed"] == "5"


def test_without_extrinsics_odometry_of_the_base_is_withheld_with_the_reason(frames: list[Frame]) -> None:
    settings = configuration_from({"matcher": "sift", "base_frame": "base_link"})
    sink = Recorder(settings)
    core = MatcherCore(settings, sink)
    run(core, sink, frames[:2])
    assert not sink.on("~/odometry")
    assert "the pose of the camera in base_link is unknown" in sink.on("~/status")[-1].odometry_reason
    mount = poses.make_pose(look(np.zeros(3), 0.0, 0.0, 0.0)[:3, :3], [0.2, 0.0, 0.3])
    sink.publication.transforms.add("base_link", "mast", np.eye(4))
    sink.publication.transforms.add("mast", "cam", mount)
    run(core, sink, frames[2:3])
    core.stop()
    found = sink.on("~/odometry")[-1]
    assert found.child_frame_id == "base_link"
    # two steps of 6 cm to the left are +y of a base that looks along x
    np.testing.assert_allclose(pose_matrix(found.pose.pose)[:3, 3], [0.0, 0.12, 0.0], atol=0.01)


def test_odometry_of_the_base_agrees_with_small_changes_of_the_camera() -> None:
    rng = np.random.default_rng(3)
    mount = poses.make_pose(poses.exp_rotation(rng.normal(size=3)), rng.normal(size=3))
    T = poses.make_pose(poses.exp_rotation(rng.normal(size=3)), rng.normal(size=3))
    square = rng.normal(size=(6, 6))
    covariance = square @ square.T
    twist = rng.normal(size=6)
    state = of_base(MetricState(T, covariance, twist, covariance, np.eye(4), covariance), mount)

    def base(change: np.ndarray) -> np.ndarray:
        moved = T.copy()
        moved[:3, 3] += change[:3]
        moved[:3, :3] = poses.exp_rotation(change[3:]) @ T[:3, :3]
        return poses.compose(mount, moved, poses.inverse(mount))

    step, J = 1e-6, np.zeros((6, 6))
    for axis in range(6):
        ahead, behind = base(step * np.eye(6)[axis]), base(-step * np.eye(6)[axis])
        J[:3, axis] = (ahead[:3, 3] - behind[:3, 3]) / (2 * step)
        J[3:, axis] = poses.log_rotation(ahead[:3, :3] @ behind[:3, :3].T) / (2 * step)
    np.testing.assert_allclose(state.covariance, J @ covariance @ J.T, rtol=1e-5, atol=1e-6)
    # the camera's twist for a short time moves the base by the base's twist
    after = T.copy()
    after[:3, 3] += T[:3, :3] @ twist[:3] * step
    after[:3, :3] = T[:3, :3] @ poses.exp_rotation(twist[3:] * step)
    moved = poses.compose(
        poses.inverse(poses.compose(mount, T, poses.inverse(mount))),
        poses.compose(mount, after, poses.inverse(mount)),
    )
    np.testing.assert_allclose(moved[:3, 3] / step, state.velocity[:3], atol=1e-4)
    np.testing.assert_allclose(poses.log_rotation(moved[:3, :3]) / step, state.velocity[3:], atol=1e-4)
