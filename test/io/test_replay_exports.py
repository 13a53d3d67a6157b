"""Exports of a replay, read back by the libraries that they are for (gtsam, rerun-sdk, foxglove-sdk where they are
installed): poses, order of covariances, pixels and times."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ros2_densematch.files.results_folder import ForeignFileError
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.relative_pose import Geometry, RelativePose, Scale
from ros2_densematch.geometry.trajectory import Trajectory
from ros2_densematch.io.exports.foxglove import ANNOTATIONS, POSE, write_foxglove
from ros2_densematch.io.exports.gtsam import read_factor_graph, read_factors, to_gtsam, write_gtsam
from ros2_densematch.io.exports.replay_result import FrameResult, beside_their_frames, read_frame_results
from ros2_densematch.io.exports.rerun import IMAGE, RerunLog
from ros2_densematch.io.results.relative_poses import RelativePosesCsv
from ros2_densematch.io.results.result_bag import ResultBag
from ros2_densematch.io.results.tum import write_tum
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.tracked_frame import Status, TrackedFrame

SIZE = (64, 48)
CAMERA = Camera.from_matrix([[50.0, 0, 31.5], [0, 50, 23.5], [0, 0, 1]], *SIZE)
YAW, OFFSET = 0.3, np.array([0.5, 0.1, 2.0])
# the camera turns by YAW about its y axis and stands OFFSET away, in the keyframe's axes
T_KEYFRAME_FROM_FRAME = poses.make_pose(poses.exp_rotation(np.array([0.0, YAW, 0.0])), OFFSET)
SIGMAS = np.array([0.01, 0.02, 0.03, 0.001, 0.002, 0.003])  # x y z, rotation x y z; on the left, axes of the frame


def tracked_frames(scale: Scale) -> list[TrackedFrame]:
    """A keyframe, a frame that was tracked against it, and one that was lost."""
    T = poses.inverse(T_KEYFRAME_FROM_FRAME)
    if scale is Scale.UNIT:
        T[:3, 3] /= np.linalg.norm(T[:3, 3])
    if scale is Scale.NONE:
        T[:3, 3] = 0
    random = np.random.default_rng(0)
    xy = [random.uniform(5, 40, (9, 2)).astype(np.float32) for _ in range(2)]
    matches = Correspondences(*xy, np.linspace(0, 1, 9).astype(np.float32), 0.8, SIZE, SIZE)
    inliers = np.arange(9) < 6
    pose = RelativePose(
        T, Geometry.CALIBRATED, scale, 0.01, np.diag(SIGMAS**2), inliers, 9, 6, 6 / 9, 0.3, 4.0, 0.1, "fine"
    )
    common: dict[str, Any] = {"keyframe_id": 0, "keyframe_index": 0, "keyframe_stamp_ns": 10**9, "scale": scale}
    return [
        TrackedFrame(0, 10**9, Status.INITIALISED, "first", T_world_from_camera=np.eye(4), is_keyframe=True, **common),
        TrackedFrame(
            1, 10**9 + 10**8, Status.TRACKED, "tracked", correspondences=matches, relative_pose=pose,
            T_world_from_camera=T_KEYFRAME_FROM_FRAME, num_inliers=6, inliers=inliers, **common,
        ),
        TrackedFrame(2, 10**9 + 2 * 10**8, Status.LOST, "lost", **common),
    ]  # fmt: skip


def result_of(folder: Path, scale: Scale) -> Path:
    """The result folder that a replay of these frames leaves."""
    folder.mkdir()
    tracked = tracked_frames(scale)
    with ResultBag(folder / "bag", frame_id="camera") as bag, RelativePosesCsv(folder / "relative_poses.csv") as table:
        for one in tracked:
            bag.write(one)
            table.write(one)
    posed = [one for one in tracked if one.T_world_from_camera is not None]
    stamps, T = np.array([one.stamp_ns for one in posed]), np.stack([np.asarray(o.T_world_from_camera) for o in posed])
    write_tum(folder / "trajectory.tum", Trajectory(stamps, T))
    (folder / "summary.json").write_text(json.dumps({"command": "replay", "files": ["trajectory.tum"]}))
    return folder


@pytest.fixture(params=[Scale.METRIC, Scale.UNIT, Scale.NONE], ids=str)
def scale(request: pytest.FixtureRequest) -> Scale:
    return request.param


def test_a_result_folder_says_what_the_tracker_said(tmp_path: Path) -> None:
    live = [FrameResult.of(tracked) for tracked in tracked_frames(Scale.METRIC)]
    read = list(read_frame_results(result_of(tmp_path / "result", Scale.METRIC)))
    assert len(read) == len(live) == 3
    for a, b in zip(read, live, strict=True):
        for name in ("index", "stamp_ns", "status", "reason", "is_keyframe", "segment", "keyframe_stamp_ns"):
            assert getattr(a, name) == getattr(b, name), name
        for name in ("reference_xy", "query_xy", "score", "inlier"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert (a.T_world_from_camera is None) == (b.T_world_from_camera is None)
        if a.T_world_from_camera is not None:
            np.testing.assert_allclose(a.T_world_from_camera, b.T_world_from_camera, atol=1e-6)


def test_no_factor_has_a_length_that_nobody_measured(tmp_path: Path, scale: Scale) -> None:
    graph = read_factor_graph(result_of(tmp_path / "result", scale))
    (factor,) = graph.factors
    assert (factor.key1, factor.key2) == (0, 1)
    assert factor.kind == {Scale.METRIC: "between", Scale.UNIT: "essential", Scale.NONE: "rotation"}[scale]
    expected = {Scale.METRIC: OFFSET, Scale.UNIT: OFFSET / np.linalg.norm(OFFSET), Scale.NONE: np.zeros(3)}[scale]
    np.testing.assert_allclose(factor.T[:3, 3], expected, atol=1e-6)
    np.testing.assert_allclose(factor.T[:3, :3], T_KEYFRAME_FROM_FRAME[:3, :3], atol=1e-6)
    out = tmp_path / "out"
    out.mkdir()
    assert write_gtsam(out, graph) == ["factors.json"] + (["graph.g2o"] if scale is Scale.METRIC else [])
    again = read_factors(out / "factors.json")
    np.testing.assert_array_equal(again.factors[0].covariance, factor.covariance)
    np.testing.assert_array_equal(again.values[1], graph.values[1])


def drawn_covariance(measure: Any, scale: Scale) -> np.ndarray:
    """Covariance of measure(T_keyframe_from_frame) when the relative pose errs as its covariance says."""
    random = np.random.default_rng(1)
    T = tracked_frames(scale)[1].relative_pose.T_query_from_reference  # type: ignore[union-attr]
    drawn = []
    for error in random.normal(size=(6000, 6)) * SIGMAS:
        moved = poses.make_pose(poses.exp_rotation(error[3:]) @ T[:3, :3], T[:3, 3] + error[:3])
        drawn.append(measure(poses.inverse(moved)))
    return np.cov(np.array(drawn).T)


def test_the_covariance_is_in_gtsams_order_rotation_first_on_the_right(tmp_path: Path) -> None:
    """By definition, without gtsam: T Exp(xi), xi = (rotation, translation)."""
    (factor,) = read_factor_graph(result_of(tmp_path / "result", Scale.METRIC)).factors

    def local(T: np.ndarray) -> np.ndarray:
        step = poses.inverse(factor.T) @ T
        return np.concatenate([poses.log_rotation(step[:3, :3]), step[:3, 3]])

    drawn = drawn_covariance(local, Scale.METRIC)
    scale = np.sqrt(np.outer(np.diag(drawn), np.diag(drawn)))
    np.testing.assert_allclose(factor.covariance / scale, drawn / scale, atol=0.06)
    assert factor.covariance[0, 0] < 1e-4 < factor.covariance[5, 5]


def test_gtsam_builds_the_graph_and_finds_no_error_at_the_truth(tmp_path: Path, scale: Scale) -> None:
    gtsam = pytest.importorskip("gtsam")
    graph = read_factor_graph(result_of(tmp_path / "result", scale))
    made, values = to_gtsam(graph)
    assert made.size() == 1
    assert made.error(values) == pytest.approx(0, abs=1e-6)
    factor = made.at(0)
    assert isinstance(factor, gtsam.EssentialMatrixConstraint if scale is Scale.UNIT else gtsam.BetweenFactorPose3)
    T = values.atPose3(1)
    longer = gtsam.Pose3(T.rotation(), 3 * T.translation())
    values.update(1, longer)
    if scale is Scale.METRIC:
        assert made.error(values) > 1000
    else:  # the length is free
        assert made.error(values) == pytest.approx(0, abs=1e-6)
    values.update(1, gtsam.Pose3(gtsam.Rot3.Ypr(0, 0.02, 0) * T.rotation(), T.translation()))
    assert made.error(values) > 10


@pytest.mark.parametrize("scale", [Scale.METRIC, Scale.UNIT], ids=str, indirect=False)
def test_gtsams_own_measure_of_the_error_has_this_covariance(tmp_path: Path, scale: Scale) -> None:
    """A known yaw and a known offset: the whitened errors of drawn poses have variance 1 in every direction."""
    gtsam = pytest.importorskip("gtsam")
    made, values = to_gtsam(read_factor_graph(result_of(tmp_path / "result", scale)))

    def whitened(T: np.ndarray) -> np.ndarray:
        values.update(1, gtsam.Pose3(T))
        return made.at(0).whitenedError(values)

    drawn = drawn_covariance(whitened, scale)
    np.testing.assert_allclose(drawn, np.eye(len(drawn)), atol=0.08)


def test_gtsam_reads_the_g2o_file(tmp_path: Path) -> None:
    gtsam = pytest.importorskip("gtsam")
    graph = read_factor_graph(result_of(tmp_path / "result", Scale.METRIC))
    write_gtsam(tmp_path, graph)
    read, values = gtsam.readG2o(str(tmp_path / "graph.g2o"), True)
    factor = read.at(0)
    np.testing.assert_allclose(factor.measured().matrix(), T_KEYFRAME_FROM_FRAME, atol=1e-6)
    np.testing.assert_allclose(values.atPose3(1).matrix(), T_KEYFRAME_FROM_FRAME, atol=1e-6)
    covariance = np.linalg.inv(factor.noiseModel().information())
    np.testing.assert_allclose(covariance, graph.factors[0].covariance, rtol=1e-3, atol=1e-10)


def frames() -> list[Frame]:
    images = [np.full((SIZE[1], SIZE[0], 3), 40 * (i + 1), np.uint8) for i in range(3)]
    return [Frame(image, 10**9 + i * 10**8, i, CAMERA) for i, image in enumerate(images)]


def test_frames_that_the_source_no_longer_gives_are_left_without_an_image() -> None:
    results = [FrameResult.of(tracked) for tracked in tracked_frames(Scale.METRIC)]
    given = [frame for _, frame in beside_their_frames(results, [frames()[0], frames()[2]])]
    assert [None if frame is None else frame.index for frame in given] == [0, None, 2]
    assert [frame for _, frame in beside_their_frames(results, None)] == [None] * 3


def test_rerun_reads_images_matches_and_poses_on_a_timeline(tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    chunks = pytest.importorskip("rerun.chunk")
    results = [FrameResult.of(tracked) for tracked in tracked_frames(Scale.METRIC)]
    with RerunLog(str(tmp_path / "a.rrd"), "flight") as log:
        for result, frame in beside_their_frames(results, frames()):
            log.add(result, frame)
    assert [file.name for file in tmp_path.iterdir()] == ["a.rrd"]
    found: dict[str, list[Any]] = {}
    for chunk in chunks.RrdReader(tmp_path / "a.rrd").stream():
        found.setdefault(chunk.entity_path.lstrip("/"), []).append(chunk.to_record_batch())
    assert {IMAGE, "world/camera", "world/trajectory/0", "keyframe/image", "plots/inliers", "log"} <= set(found)

    def column(entity: str, name: str) -> list[Any]:
        batches = [b for b in found[entity] if any(name in n for n in b.schema.names)]
        return [row for b in batches for row in b.column(next(n for n in b.schema.names if name in n)).to_pylist()]

    inlier = results[1].inlier
    shown = [np.array(rows) for rows in column(f"{IMAGE}/matches", "positions") if rows]
    np.testing.assert_allclose(shown[0], results[1].query_xy[inlier] + 0.5, atol=1e-5)  # origin: the pixel's corner
    positions = [np.array(rows) for rows in column("world/camera", "translation") if rows]
    np.testing.assert_allclose(positions[1][0], OFFSET, atol=1e-6)
    K = np.array(column(IMAGE, "image_from_camera")[0][0]).reshape(3, 3).T
    np.testing.assert_allclose(K[:2, 2], (32, 24))
    assert len(column(IMAGE, "blob")) == 3
    assert any("time" in name for name in found["log"][0].schema.names)


def test_an_address_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match="nowhere is not a rerun target"):
        RerunLog("nowhere", "flight")


def test_foxglove_reads_annotations_and_poses_at_the_times_of_the_images(tmp_path: Path) -> None:
    pytest.importorskip("foxglove")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from mcap.reader import make_reader

    results = list(read_frame_results(result_of(tmp_path / "result", Scale.METRIC)))
    assert write_foxglove(tmp_path / "a.mcap", results) == 3
    read: dict[str, list[Any]] = {}
    with (tmp_path / "a.mcap").open("rb") as stream:
        for schema, channel, message in make_reader(stream).iter_messages():
            assert schema is not None
            files = descriptor_pb2.FileDescriptorSet.FromString(schema.data)
            pool = descriptor_pool.DescriptorPool()
            for file in files.file:
                pool.Add(file)
            kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(schema.name))
            read.setdefault(channel.topic, []).append((message.log_time, kind.FromString(message.data)))
    assert [stamp for stamp, _ in read[ANNOTATIONS]] == [result.stamp_ns for result in results]
    annotations = read[ANNOTATIONS][1][1]
    trails, points = annotations.points
    inlier = results[1].inlier
    expected = results[1].query_xy[inlier] + 0.5  # origin: the corner of the top-left pixel
    np.testing.assert_allclose([(p.x, p.y) for p in points.points], expected, atol=1e-5)
    np.testing.assert_allclose([(p.x, p.y) for p in trails.points][1::2], expected, atol=1e-5)
    assert len(points.outline_colors) == inlier.sum()
    stamp, pose = read[POSE][1]
    assert stamp == results[1].stamp_ns
    position = pose.pose.position
    np.testing.assert_allclose((position.x, position.y, position.z), OFFSET, atol=1e-6)
    assert len(read[POSE]) == 2  # the lost frame has none


def test_what_is_no_result_of_replay_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="contains no summary"):
        read_factor_graph(tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps({"command": "match"}))
    with pytest.raises(ValueError, match="results of `densematch match`"):
        list(read_frame_results(tmp_path))
    (tmp_path / "factors.json").write_text("{}")
    with pytest.raises(ValueError, match=r"is not a factors\.json"):
        read_factors(tmp_path / "factors.json")


def test_a_viewer_that_does_not_answer_is_named() -> None:
    pytest.importorskip("rerun")
    with (
        pytest.raises(ValueError, match=r"no rerun viewer answers at rerun\+http://127\.0\.0\.1:9/proxy"),
        RerunLog("rerun+http://127.0.0.1:9/proxy", "flight"),
    ):
        pass


def test_exports_replace_their_own_files_and_no_other(tmp_path: Path) -> None:
    result = result_of(tmp_path / "result", Scale.METRIC)
    graph, frames = read_factor_graph(result), list(read_frame_results(result))

    def gtsam(folder: Path) -> None:
        write_gtsam(folder, graph)

    def foxglove(folder: Path) -> None:
        write_foxglove(folder / "a.mcap", frames)

    def rerun(folder: Path) -> None:
        with RerunLog(str(folder / "a.rrd"), "a") as log:
            log.add(frames[0], None)

    # name of a foreign file that must stay, the export, the package that it needs
    cases = [("graph.g2o", gtsam, "json"), ("a.mcap", foxglove, "foxglove"), ("a.rrd", rerun, "rerun")]
    for name, write, package in cases:
        if find_spec(package) is None:
            continue
        folder = tmp_path / package
        folder.mkdir()
        for _ in range(2):
            write(folder)
        for file in folder.iterdir():
            file.unlink()
        (folder / name).write_bytes((next((result / "bag").glob("*.mcap"))).read_bytes())
        before = (folder / name).read_bytes()
        with pytest.raises(ForeignFileError, match=name):
            write(folder)
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == {name: before}


def test_rerun_is_not_fed_on_a_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait for ever."""
    pytest.importorskip("rerun")
    (frame, *_) = read_frame_results(result_of(tmp_path / "result", Scale.METRIC))
    out = tmp_path / "out"
    out.mkdir()
    free = [1 << 30]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free[0]))

    def write() -> None:
        with RerunLog(str(out / "a.rrd"), "a") as log:
            log.add(frame, None)
            free[0] = 1 << 20
            log.add(frame, None)

    for _ in range(2):  # full meanwhile, and full from the start
        with pytest.raises(OSError, match="No space left"):
            write()
        assert not list(out.iterdir())
