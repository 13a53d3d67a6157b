"""Exports, read back by the libraries that they are for: places within a hundredth of a pixel, exact poses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.trajectory import Trajectory
from ros2_densematch.io.exports.colmap import write_colmap
from ros2_densematch.io.exports.hloc import write_hloc
from ros2_densematch.io.exports.keypoints import merge_keypoints
from ros2_densematch.io.exports.kitti import write_kitti
from ros2_densematch.io.exports.matched_pairs import MatchedPair, read_matched_pairs
from ros2_densematch.simulation.renderer import render
from ros2_densematch.simulation.worlds import tabletop

SIZE = (640, 480)
CAMERA = Camera.from_matrix([[500.0, 0, 317.2], [0, 510.0, 242.6], [0, 0, 1]], *SIZE)
VIEWS = [
    poses.make_pose(poses.exp_rotation(np.array([0.0, 0.05 * i, 0.01 * i])), np.array([-0.3 * i, 0.02 * i, 0.0]))
    for i in range(3)
]  # T_camera_from_world
NAMES = ("left/a.png", "left/b.png", "right/c.png")
PAIRS = ((0, 1), (0, 2), (1, 2))


@pytest.fixture
def world() -> np.ndarray:
    random = np.random.default_rng(0)
    return np.column_stack([random.uniform(-1.5, 1.5, 300), random.uniform(-1, 1, 300), random.uniform(4, 7, 300)])


def pixels(world: np.ndarray, view: int) -> np.ndarray:
    T = VIEWS[view]
    return CAMERA.project(world @ T[:3, :3].T + T[:3, 3]).astype(np.float32)


@pytest.fixture
def result(tmp_path: Path, world: np.ndarray) -> Path:
    """A result folder of `densematch match` over three views of known points; 30 matches of each pair are wrong."""
    folder = tmp_path / "result"
    folder.mkdir()
    rows = []
    for index, (i, j) in enumerate(PAIRS):
        a, b = pixels(world, i), pixels(world, j)
        good = np.arange(len(world)) < 270
        b = np.where(good[:, None], b, b[::-1])
        score = np.linspace(0.99, 0.5, len(world)).astype(np.float32)
        T = poses.compose(VIEWS[j], poses.inverse(VIEWS[i]))
        arrays = {
            "reference_xy": a, "query_xy": b, "score": score, "overlap": np.float32(1), "inliers": good,
            "reference_size": np.array(SIZE, np.int32), "query_size": np.array(SIZE, np.int32),
            "reference_K": CAMERA.K, "query_K": CAMERA.K, "T_query_from_reference": T,
            "geometry": np.array("CALIBRATED"),
        }  # fmt: skip
        np.savez(folder / f"{index:06d}.npz", **arrays)
        rows.append({"index": index, "reference": f"/photos/{NAMES[i]}", "query": f"/photos/{NAMES[j]}"})
    (folder / "summary.json").write_text(json.dumps({"command": "match", "pairs": rows}))
    return folder


def test_a_place_that_recurs_has_one_number(result: Path, world: np.ndarray) -> None:
    keypoints, pairs = merge_keypoints(read_matched_pairs(result), cell_px=1.0)
    assert set(keypoints) == set(NAMES)
    for name in NAMES[:2]:
        assert len(keypoints[name].xy) <= len(world)
    tracks = {tuple(row) for row in pairs[0].index[pairs[0].inlier]}
    onward = dict(pairs[2].index[pairs[2].inlier])
    direct = dict(pairs[1].index[pairs[1].inlier])
    agree = [direct[a] == onward[b] for a, b in tracks if a in direct and b in onward]
    assert len(agree) > 230
    assert np.mean(agree) > 0.99
    for pair in pairs:
        for side in (0, 1):
            assert len(np.unique(pair.index[:, side])) == len(pair.index)


def test_hloc_reads_features_and_matches(result: Path, tmp_path: Path, world: np.ndarray) -> None:
    h5py = pytest.importorskip("h5py")
    keypoints, pairs = merge_keypoints(read_matched_pairs(result))
    assert write_hloc(tmp_path, keypoints, pairs) == ["features.h5", "matches.h5", "pairs.txt"]
    assert (tmp_path / "pairs.txt").read_text().splitlines()[0] == f"{NAMES[0]} {NAMES[1]}"
    with h5py.File(tmp_path / "features.h5") as features, h5py.File(tmp_path / "matches.h5") as matches:
        a, b = features[NAMES[0]]["keypoints"][()], features[NAMES[1]]["keypoints"][()]
        assert features[NAMES[0]]["image_size"][()].tolist() == list(SIZE)
        group = matches[NAMES[0].replace("/", "-")][NAMES[1].replace("/", "-")]
        found = group["matches0"][()]
        assert len(found) == len(a)
        assert group["matching_scores0"][()][found >= 0].min() > 0.4
        where = np.array([np.argmin(np.linalg.norm(pixels(world, 0) - p, axis=1)) for p in a[found >= 0]])
        error = np.linalg.norm(b[found[found >= 0]] - pixels(world, 1)[where], axis=1)
        assert np.mean(error < 0.8) > 0.88  # a tenth of the matches was made wrong


def test_hloc_is_not_begun_on_a_disk_without_room(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 dies of a segmentation fault there."""
    pytest.importorskip("h5py")
    keypoints, pairs = merge_keypoints(read_matched_pairs(result))
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=20_000))
    with pytest.raises(OSError, match="No space left"):
        write_hloc(out, keypoints, pairs)
    assert not list(out.iterdir())


def test_colmap_sees_the_points_where_they_are(result: Path, tmp_path: Path, world: np.ndarray) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    keypoints, pairs = merge_keypoints(read_matched_pairs(result), cell_px=0.001)
    write_colmap(tmp_path / "database.db", keypoints, pairs)
    database = pycolmap.Database.open(tmp_path / "database.db")
    assert database.num_images() == 3
    images = [database.read_image_with_name(name) for name in NAMES]
    camera = database.read_camera(images[0].camera_id)
    assert camera.has_prior_focal_length
    for view, image in enumerate(images):
        T = VIEWS[view]
        expected = camera.img_from_cam(world @ T[:3, :3].T + T[:3, 3])
        found = database.read_keypoints(image.image_id)[:, :2]
        nearest = np.linalg.norm(expected[:, None] - found[None], axis=2).min(1)
        assert np.quantile(nearest, 0.85) < 0.01
    for i, j in PAIRS:
        geometry = database.read_two_view_geometry(images[i].image_id, images[j].image_id)
        T = poses.compose(VIEWS[j], poses.inverse(VIEWS[i]))
        np.testing.assert_allclose(geometry.cam2_from_cam1.matrix(), T[:3], atol=1e-6)
        assert geometry.config == pycolmap.TwoViewGeometryConfiguration.CALIBRATED
        assert len(geometry.inlier_matches) > 250


def test_the_pixels_of_a_rendered_scene_lie_where_colmaps_cameras_see_its_points(tmp_path: Path) -> None:
    """From the renderer's exact depth: here half a pixel of another convention would show."""
    pycolmap = pytest.importorskip("pycolmap")
    scene, forward = tabletop(), np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # the camera looks along x
    T_world = [poses.make_pose(forward, np.array([0.0, 0.15 * i, 1.0])) for i in range(2)]
    depth = render(scene, CAMERA, T_world[0]).depth
    y, x = (v.ravel() for v in np.mgrid[5 : SIZE[1] : 23, 5 : SIZE[0] : 23])
    points = np.column_stack([CAMERA.normalise(np.column_stack([x, y])), np.ones(len(x))]) * depth[y, x][:, None]
    T = poses.compose(poses.inverse(T_world[1]), T_world[0])
    query = CAMERA.project(points @ T[:3, :3].T + T[:3, 3])
    xy = [np.column_stack([x, y]).astype(np.float32), query.astype(np.float32)]
    count = len(x)
    pair = MatchedPair(
        "a.png", "b.png", *xy, np.ones(count, np.float32), SIZE, SIZE, np.ones(count, np.bool_), CAMERA.K, CAMERA.K, T,
        "CALIBRATED", None,
    )  # fmt: skip
    write_colmap(tmp_path / "database.db", *merge_keypoints([pair], cell_px=0.001))
    database = pycolmap.Database.open(tmp_path / "database.db")
    geometry = database.read_two_view_geometry(1, 2)
    np.testing.assert_allclose(geometry.cam2_from_cam1.matrix(), T[:3], atol=1e-6)
    seen = [database.read_keypoints(i)[:, :2][geometry.inlier_matches[:, i - 1]] for i in (1, 2)]
    moved = (np.eye(4)[:3], geometry.cam2_from_cam1.matrix())
    order = [np.flatnonzero((xy[0] + 0.5 == point).all(1))[0] for point in seen[0]]
    assert len(order) == count
    for i in range(2):
        expected = database.read_camera(1).img_from_cam(points[order] @ moved[i][:, :3].T + moved[i][:, 3])
        assert np.abs(expected - seen[i]).max() < 0.01


def test_a_pose_on_a_guessed_focal_length_is_not_handed_on(result: Path, tmp_path: Path) -> None:
    """COLMAP gets the guess as a prior of the camera, and the fundamental matrix, which needs none."""
    pycolmap = pytest.importorskip("pycolmap")
    with np.load(result / "000000.npz") as arrays:
        kept = dict(arrays)
    kept |= {
        "intrinsics": np.array("guess"), "uncalibrated": np.array("fundamental"), "fundamental": np.eye(3),
        "fundamental_inliers": np.arange(len(kept["score"])) < 200,
    }  # fmt: skip
    np.savez(result / "000000.npz", **kept)
    (pair,) = read_matched_pairs(result)[:1]
    assert pair.T_query_from_reference is None
    assert pair.inliers.sum() == 200
    write_colmap(tmp_path / "database.db", *merge_keypoints([pair]))
    database = pycolmap.Database.open(tmp_path / "database.db")
    assert database.read_camera(1).has_prior_focal_length
    assert database.read_two_view_geometry(1, 2).config == pycolmap.TwoViewGeometryConfiguration.UNCALIBRATED


def test_colmap_gets_the_fundamental_matrix_of_its_own_pixels(result: Path, tmp_path: Path, world: np.ndarray) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    with np.load(result / "000000.npz") as arrays:
        kept = {n: arrays[n] for n in ("reference_xy", "query_xy", "score", "overlap", "reference_size", "query_size")}
    T, K = poses.compose(VIEWS[1], poses.inverse(VIEWS[0])), np.linalg.inv(CAMERA.K)
    kept["fundamental"] = K.T @ poses.skew(T[:3, 3]) @ T[:3, :3] @ K
    kept["uncalibrated"], kept["fundamental_inliers"] = np.array("fundamental"), np.ones(len(kept["score"]), np.bool_)
    np.savez(result / "000000.npz", **kept)
    keypoints, pairs = merge_keypoints(read_matched_pairs(result)[:1], cell_px=0.001)
    write_colmap(tmp_path / "database.db", keypoints, pairs)
    database = pycolmap.Database.open(tmp_path / "database.db")
    F = database.read_two_view_geometry(1, 2).F
    a, b = (np.column_stack([pixels(world, i) + 0.5, np.ones(len(world))]) for i in (0, 1))
    line = a @ F.T
    assert np.abs(np.sum(line * b, 1) / np.hypot(line[:, 0], line[:, 1])).max() < 0.01


@pytest.mark.parametrize(
    ("model", "D", "name"),
    [
        ("plumb_bob", [0.1, -0.05, 0.001, -0.002, 0.0], "OPENCV"),
        ("plumb_bob", [0.1, -0.05, 0.001, -0.002, 0.01], "FULL_OPENCV"),
        ("rational_polynomial", [0.1, -0.05, 0.001, -0.002, 0.01, 0.02, 0.01, 0.001], "FULL_OPENCV"),
        ("equidistant", [0.01, 0.002, -0.001, 0.0005], "OPENCV_FISHEYE"),
    ],
)
def test_a_distorted_camera_projects_alike_in_colmap(
    result: Path, tmp_path: Path, world: np.ndarray, model: Any, D: list[float], name: str
) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    camera = Camera(*SIZE, CAMERA.K, model, np.array(D))
    keypoints, pairs = merge_keypoints(read_matched_pairs(result))
    write_colmap(tmp_path / "database.db", keypoints, pairs, camera)
    read = pycolmap.Database.open(tmp_path / "database.db").read_camera(1)
    assert read.model_name == name
    np.testing.assert_allclose(read.img_from_cam(world) - 0.5, camera.project(world), atol=0.01)


def test_kitti_rows_are_what_evo_reads(tmp_path: Path) -> None:
    trajectory = Trajectory(np.arange(3) * 10**8, np.stack([poses.inverse(T) for T in VIEWS]))
    write_kitti(tmp_path / "poses.txt", trajectory)
    tools = pytest.importorskip("evo.tools.file_interface")
    np.testing.assert_allclose(
        np.array(tools.read_kitti_poses_file(tmp_path / "poses.txt").poses_se3), trajectory.T_world_from_camera,
        atol=1e-8,
    )  # fmt: skip


def test_what_is_no_result_of_match_is_named(result: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="contains no summary"):
        read_matched_pairs(tmp_path)
    with pytest.raises(ValueError, match=r"is not below .*: give another --root"):
        read_matched_pairs(result, Path("/elsewhere"))
    (result / "000001.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"000001\.npz is missing"):
        read_matched_pairs(result)
    (result / "summary.json").write_text(json.dumps({"command": "replay", "pairs": []}))
    with pytest.raises(ValueError, match="results of `densematch replay`"):
        read_matched_pairs(result)
    (result / "summary.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        read_matched_pairs(result)
