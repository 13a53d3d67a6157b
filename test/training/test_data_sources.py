"""MegaDepth, ScanNet, CSV pairs and recordings as training data, built small: what they give, and what faults say."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from ros2_densematch.messages import conversions
from ros2_densematch.messages.typestore import message_class
from ros2_densematch.training.data.bag import BagConfig, RecordingPairs
from ros2_densematch.training.data.dataset import PairDataset
from ros2_densematch.training.data.judged import JudgedViews
from ros2_densematch.training.data.megadepth import MegaDepthConfig, MegaDepthPairs
from ros2_densematch.training.data.neighbours import NeighbourConfig
from ros2_densematch.training.data.pairs_csv import CsvPairs, CsvPairsConfig
from ros2_densematch.training.data.posed_views import ViewPair
from ros2_densematch.training.data.recording import RecordingConfig
from ros2_densematch.training.data.restricted_pickle import read_numpy_dictionary
from ros2_densematch.training.data.sample import Pair, Part
from ros2_densematch.training.data.scannet import ScanNetConfig, ScanNetPairs
from ros2_densematch.training.data.source import Opening
from ros2_densematch.training.data.sources import open_sources
from ros2_densematch.training.images import TrainingDataError
from ros2_densematch.training.recipe import Recipe
from ros2_densematch.training.run.fitting import fit_to_data

WIDTH, HEIGHT, FOCAL, WALL = 128, 96, 100.0, 2.0
K = np.array([[FOCAL, 0, 63.5], [0, FOCAL, 47.5], [0, 0, 1]])
SECOND = 10**9


def wall_image(x: float, seed: int = 0) -> np.ndarray:
    """RGB view of a textured wall 2 m away from a camera at x metres: a metre moves the picture by 50 px."""
    noise = np.random.default_rng(seed).uniform(0, 255, (24, 120, 3))
    wide = np.clip(cv2.resize(noise, (600, HEIGHT), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)
    shift = np.array([[1, 0, -200 - x * FOCAL / WALL], [0, 1, 0]], np.float64)
    return cv2.warpAffine(wide, shift, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)


def write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])


def camera_at(x: float) -> np.ndarray:
    """T_world_from_camera."""
    T = np.eye(4)
    T[0, 3] = x
    return T


def assert_truth_holds(pair: Pair) -> None:
    """Image 1 seen through the dense warp looks like image 0, and the points agree with the warp."""
    truth = pair.dense()
    assert truth.valid.mean() > 0.1
    warp = np.nan_to_num(truth.warp, nan=-1.0)
    seen = cv2.remap(pair.image1, warp[..., 0], warp[..., 1], cv2.INTER_LINEAR)
    assert np.corrcoef(seen[truth.valid].ravel(), pair.image0[truth.valid].ravel())[0, 1] > 0.9
    at = cv2.remap(warp, pair.points0[:, 0][None], pair.points0[:, 1][None], cv2.INTER_LINEAR)[0]
    assert np.median(np.linalg.norm(at - pair.points1, axis=1)) < 0.1


def assert_motion(views: ViewPair) -> None:
    """The relative pose is a step along x, and depth is that of the wall."""
    assert np.allclose(views.T_1_from_0[:3, :3], np.eye(3))
    assert np.allclose(views.T_1_from_0[1:3, 3], 0)
    assert 0.05 < abs(views.T_1_from_0[0, 3]) < 1.5
    assert np.nanmedian(views.depth0) == pytest.approx(WALL, abs=1e-3)


# --- MegaDepth --------------------------------------------------------------------------------------------------------


def write_megadepth(root: Path, scenes: dict[str, int]) -> None:
    """Scenes with so many photos each, 0.2 m apart; overlap falls with the distance."""
    h5py = pytest.importorskip("h5py", reason="MegaDepth's depth is HDF5: install densematch[train]")
    for number, (scene, count) in enumerate(scenes.items()):
        info: dict[str, Any] = {"image_paths": [], "depth_paths": [], "intrinsics": [], "poses": []}
        for k in range(count):
            photo, depth = f"Undistorted_SfM/{scene}/images/{k}.jpg", f"phoenix/{scene}/{k}.h5"
            write_image(root / photo, wall_image(0.2 * k, number))
            (root / depth).parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(root / depth, "w") as file:
                values = np.full((HEIGHT, WIDTH), WALL, np.float32)
                values[:8] = 0  # as where the reconstruction has no surface
                file["depth"] = values
            K_corner = K.copy()
            K_corner[:2, 2] += 0.5  # COLMAP's pixel origin
            info["image_paths"].append(photo)
            info["depth_paths"].append(depth)
            info["intrinsics"].append(K_corner)
            info["poses"].append(np.linalg.inv(camera_at(0.2 * k)))
        pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
        info["pairs"] = np.array(pairs)
        info["overlaps"] = np.array([1.0 / (b - a) - 0.05 for a, b in pairs])
        for key in ("image_paths", "depth_paths", "intrinsics", "poses"):
            info[key] = np.array(info[key], dtype=object)
        (root / "prep_scene_info").mkdir(exist_ok=True)
        np.save(root / "prep_scene_info" / f"{scene}.npy", info, allow_pickle=True)


@pytest.fixture(scope="module")
def megadepth(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("megadepth")
    write_megadepth(root, {"0001": 3, "0002": 4, "0015": 3, "0121": 3})
    return root


def test_megadepth_pairs_hold_their_truth_and_leave_benchmarks_out(megadepth):
    source = MegaDepthPairs(megadepth)
    assert {p.stem for p in source.files()} == {"0001", "0002"}
    for seed in range(4):
        assert_motion(source.draw_views(np.random.default_rng(seed)))
        assert_truth_holds(source.draw(np.random.default_rng(seed), 64))
    views = source.draw_views(np.random.default_rng(0))
    assert np.isnan(views.depth0[:8]).all()
    assert np.allclose(views.K0, K)


def test_megadepth_draws_pairs_by_overlap_and_scenes_by_the_published_weight(megadepth):
    # scene 0001: overlaps .95 .95 .45; scene 0002: .95 x 3, .45 x 2, .28
    source = MegaDepthPairs(megadepth)
    assert len(source) == (3 + 6) + (3 + 5)  # above 0.01 all, above 0.35 once more
    assert len(MegaDepthPairs(megadepth, config=MegaDepthConfig(overlaps=[0.5]))) == 2 + 3
    assert len(MegaDepthPairs(megadepth, config=MegaDepthConfig(overlaps=[0.01], max_pairs=2))) == 2 + 2
    groups = [source.draw_views(np.random.default_rng(k)).group for k in range(400)]
    share = (6**0.25 + 5**0.25) / (6**0.25 + 5**0.25 + 2 * 3**0.25)
    assert np.mean(np.array(groups) == 1) == pytest.approx(share, abs=0.08)


def test_megadepth_holds_scenes_out_for_validation(tmp_path):
    write_megadepth(tmp_path, {f"{k:04d}": 2 for k in range(1, 5)})
    parts = [MegaDepthPairs(tmp_path, part=Part(0.5, held_out)) for held_out in (False, True)]
    used, held = ({p.stem for p in part.files()} for part in parts)
    assert used | held == {"0001", "0002", "0003", "0004"}
    assert not used & held
    assert len(held) == 2


def test_damaged_megadepth_files_are_skipped_and_counted_by_name_or_end_a_strict_run(tmp_path):
    h5py = pytest.importorskip("h5py")
    write_megadepth(tmp_path, {"0001": 4})
    depth = tmp_path / "phoenix" / "0001"
    with h5py.File(depth / "1.h5", "w") as file:
        file["depth"] = np.full((HEIGHT, WIDTH), np.nan, np.float32)
    with h5py.File(depth / "2.h5", "w") as file:
        file["depth"] = np.ones((10, 12), np.float32)
    (tmp_path / "Undistorted_SfM" / "0001" / "images" / "3.jpg").unlink()
    log = tmp_path / "skipped.txt"
    source = MegaDepthPairs(tmp_path)
    dataset = PairDataset([(source, 1.0)], size=64, max_points=16, skip_log=log)
    with pytest.raises(TrainingDataError, match="20 training files in a row"):
        dataset[0]  # every pair has a damaged member
    told = log.read_text()
    assert len(told.splitlines()) == 20
    for message in (
        "1.h5 holds no finite positive value",
        "2.h5 is 12 x 10, its photo 128 x 96",
        "images/3.jpg: No such",
    ):
        assert message in told
    with pytest.raises(TrainingDataError, match=r"\.h5|3\.jpg"):
        PairDataset([(source, 1.0)], size=64, strict=True)[0]


def npy(content: bytes) -> bytes:
    """A .npy file of one object, with this pickle in it."""
    stream = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + content


class Command:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_pickled_scene_lists_are_read_without_running_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "0001.npy"
    path.write_bytes(npy(pickle.dumps({"pairs": Command()})))
    np.load(path, allow_pickle=True)
    assert (tmp_path / "executed").exists()  # NumPy's own reader would have run it
    (tmp_path / "executed").rmdir()
    with pytest.raises(TrainingDataError, match=r"0001\.npy is refused.*asks for posix\.mkdir.*nothing was executed"):
        read_numpy_dictionary(path)
    assert not (tmp_path / "executed").exists()
    path.write_bytes(npy(b"\x80\x04cut"))
    with pytest.raises(TrainingDataError, match=r"0001\.npy is"):
        read_numpy_dictionary(path)
    np.save(path, np.arange(3))
    with pytest.raises(TrainingDataError, match="instead of a dictionary"):
        read_numpy_dictionary(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_numbers_and_containers_come_back_from_any_protocol(tmp_path, protocol):
    content = {
        "pairs": np.arange(6).reshape(3, 2),
        "names": np.array(["a/b.jpg", None], dtype=object),
        "poses": [np.eye(4), np.eye(4, dtype=np.float32)],
        "score": np.float64(0.5),
        "bytes": b"\x00\xff",
        "set": {1, 2},
        "tuple": (1, "two", 3.0, True),
    }
    path = tmp_path / "scene.npy"
    path.write_bytes(npy(pickle.dumps(content, protocol=protocol)))
    read = read_numpy_dictionary(path)
    assert read.keys() == content.keys()
    assert np.array_equal(read["pairs"], content["pairs"])
    assert read["names"].tolist() == ["a/b.jpg", None]
    assert read["poses"][1].dtype == np.float32
    assert {k: read[k] for k in ("score", "bytes", "set", "tuple")} == {
        k: content[k] for k in ("score", "bytes", "set", "tuple")
    }


# --- ScanNet ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def scannet(tmp_path) -> Path:
    """Two scans in the lists, one of them there: 5 frames 10 apart, colour at twice the size of depth."""
    scan = tmp_path / "scans" / "scene0007_01"
    for k in range(5):
        frame = 10 * k
        large = cv2.resize(wall_image(0.2 * k), (2 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_LINEAR)
        write_image(scan / "color" / f"{frame}.jpg", large)
        for name in ("depth", "pose", "intrinsic"):
            (scan / name).mkdir(exist_ok=True)
        cv2.imwrite(str(scan / "depth" / f"{frame}.png"), np.full((HEIGHT, WIDTH), 1000 * WALL, np.uint16))
        np.savetxt(scan / "pose" / f"{frame}.txt", camera_at(0.2 * k))
    full = np.eye(4)
    full[:3, :3] = [[2 * FOCAL, 0, 127.5], [0, 2 * FOCAL, 95.5], [0, 0, 1]]
    np.savetxt(scan / "intrinsic" / "intrinsic_color.txt", full)
    lists = tmp_path / "scannet_indices" / "scene_data" / "train"
    lists.mkdir(parents=True)
    names = [(7, 1, 10 * a, 10 * b) for a in range(5) for b in range(a + 1, 5)] + [(7, 1, 3, 20), (8, 0, 0, 10)]
    np.savez(lists / "scene0007_01.npz", name=np.array(names), score=np.linspace(0.9, 0.1, len(names)))
    return tmp_path


def test_scannet_pairs_hold_their_truth(scannet):
    source = ScanNetPairs(scannet)
    assert len(source) == 10  # without frame 3, and without the scan that is not there
    views = source.draw_views(np.random.default_rng(0))
    assert_motion(views)
    assert np.allclose(views.K0, K)
    assert views.image0.shape == (HEIGHT, WIDTH, 3)
    for seed in range(4):
        assert_truth_holds(source.draw(np.random.default_rng(seed), 64))
    assert len(ScanNetPairs(scannet, config=ScanNetConfig(min_overlap=0.85))) == 1


def test_scannet_frames_without_pose_and_missing_scans_are_named(scannet):
    scan = scannet / "scans" / "scene0007_01"
    for k in range(5):
        np.savetxt(scan / "pose" / f"{10 * k}.txt", np.full((4, 4), -np.inf))
    with pytest.raises(TrainingDataError, match=r"pose/\d+\.txt is no finite 4 x 4 matrix"):
        ScanNetPairs(scannet).draw(np.random.default_rng(0), 64)
    scan.rename(scannet / "elsewhere")
    with pytest.raises(TrainingDataError, match="leaves a pair of a scan that is there"):
        ScanNetPairs(scannet)
    with pytest.raises(TrainingDataError, match="no training list"):
        ScanNetPairs(scannet / "scans")


# --- pairs in a CSV file ----------------------------------------------------------------------------------------------


def write_pairs(folder: Path, lines: list[list[str]]) -> Path:
    for k in range(4):
        write_image(folder / "images" / f"{k}.jpg", wall_image(0.0, k))
    with (folder / "pairs.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(lines)
    return folder / "pairs.csv"


def test_csv_pairs_are_positives_and_their_classes_tell_the_negatives(tmp_path):
    file = write_pairs(
        tmp_path,
        [
            ["source_image", "target_image", "class", "flip"],
            ["images/0.jpg", "images/1.jpg", "cat", "0"],
            ["images/2.jpg", "images/3.jpg", "dog", "1"],
            ["images/1.jpg", "images/0.jpg", "cat", "0"],
        ],
    )
    dataset = PairDataset([(CsvPairs(file), 1.0)], size=64, max_points=16)
    samples = [dataset[i] for i in range(16)]
    assert {int(s["group"]) for s in samples} == {0, 1}
    assert not any(s["valid"].any() for s in samples)
    assert samples[0]["image0"].shape == (3, 64, 64)
    mirrored = next(s for s in samples if int(s["group"]) == 1)
    plain = cv2.resize(wall_image(0.0, 2), (64, 64), interpolation=cv2.INTER_AREA)[:, ::-1] / 255.0
    assert np.abs(mirrored["clean0"].permute(1, 2, 0).numpy() - plain).mean() < 0.05


def test_faults_of_csv_pairs_name_line_or_file(tmp_path):
    file = write_pairs(tmp_path, [["image0", "image1"], ["images/0.jpg", "images/nine.jpg"]])
    with pytest.raises(TrainingDataError, match=r"nine\.jpg"):
        CsvPairs(file).draw(np.random.default_rng(0), 64)
    assert (
        CsvPairs(file, config=CsvPairsConfig(images=Path("other")))._rows[0].image0 == tmp_path / "other/images/0.jpg"
    )
    with pytest.raises(TrainingDataError, match="no header"):
        CsvPairs(write_pairs(tmp_path, [["images/0.jpg", "images/1.jpg"]]))
    with pytest.raises(TrainingDataError, match="line 2 has 1 columns"):
        CsvPairs(write_pairs(tmp_path, [["image0", "image1"], ["images/0.jpg"]]))
    with pytest.raises(TrainingDataError, match="names no pair"):
        CsvPairs(write_pairs(tmp_path, [["image0", "image1"]]))


# --- recordings -------------------------------------------------------------------------------------------------------


def write_sequence(folder: Path, count: int = 8, *, depth: bool = True, nan_depth: int = -1) -> Path:
    """A folder with frames.csv; the camera moves 0.1 m a frame along a wall."""
    rows = [["index", "timestamp_ns", "image", "depth", "tx", "ty", "tz", "qx", "qy", "qz", "qw"]]
    for k in range(count):
        write_image(folder / f"rgb/{k}.jpg", wall_image(0.1 * k))
        name = f"depth/{k}.png" if depth else ""
        if depth:
            (folder / "depth").mkdir(exist_ok=True)
            value = 0 if k == nan_depth else 1000 * WALL
            cv2.imwrite(str(folder / name), np.full((HEIGHT, WIDTH), value, np.uint16))
        rows.append([str(v) for v in (k, SECOND + k * SECOND // 10, f"rgb/{k}.jpg", name, 0.1 * k, 0, 0, 0, 0, 0, 1)])
    with (folder / "frames.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    camera = {
        "width": WIDTH,
        "height": HEIGHT,
        "K": K.ravel().tolist(),
        "distortion_model": "none",
        "depth_scale": 1000,
    }
    (folder / "camera.json").write_text(json.dumps(camera))
    return folder


def write_bag(folder: Path, count: int = 8, *, depth: bool = True, D: tuple[float, ...] = (0.0,) * 5) -> Path:
    """The same as a rosbag2 with image, CameraInfo, 32-bit depth and ground truth topics."""
    info = message_class("sensor_msgs/msg/CameraInfo")(
        header=conversions.header_message(SECOND, "cam"),
        height=HEIGHT,
        width=WIDTH,
        distortion_model="plumb_bob",
        d=np.array(D),
        k=K.ravel(),
        r=np.eye(3).ravel(),
        p=np.hstack([K, np.zeros((3, 1))]).ravel(),
        binning_x=0,
        binning_y=0,
        roi=message_class("sensor_msgs/msg/RegionOfInterest")(0, 0, 0, 0, False),
    )
    messages: list[tuple[str, int, Any]] = [("/cam/camera_info", SECOND, info)]
    picture = message_class("sensor_msgs/msg/Image")
    for k in range(count):
        stamp = SECOND + k * SECOND // 10
        header = conversions.header_message(stamp, "cam")
        pixels = np.ascontiguousarray(wall_image(0.1 * k)).ravel()
        messages.append(("/cam/image_raw", stamp, picture(header, HEIGHT, WIDTH, "rgb8", 0, 3 * WIDTH, pixels)))
        if depth:
            metres = np.full(HEIGHT * WIDTH, WALL, np.float32).view(np.uint8)
            messages.append(("/cam/depth", stamp, picture(header, HEIGHT, WIDTH, "32FC1", 0, 4 * WIDTH, metres)))
        pose = message_class("geometry_msgs/msg/PoseStamped")(
            conversions.header_message(stamp, "world"), conversions.pose_message(camera_at(0.1 * k))
        )
        messages.append(("/ground_truth/pose", stamp, pose))
    with Writer(folder, version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connections: dict[str, Any] = {}
        for topic, log_ns, message in messages:
            if topic not in connections:
                store = conversions.ros2_typestore()
                connections[topic] = writer.add_connection(topic, message.__msgtype__, typestore=store)
            writer.write(connections[topic], log_ns, conversions.to_cdr(message))
    return folder


@pytest.mark.parametrize("kind", ["bag", "frames.csv"])
def test_a_recording_with_depth_and_poses_gives_exact_warps(tmp_path, kind):
    path = write_bag(tmp_path / "bag") if kind == "bag" else write_sequence(tmp_path)
    source = RecordingPairs(path, config=BagConfig(homographies=0.0))
    assert source.has_views
    assert source.has_dense
    assert len(source._pairs) > 8
    assert not source.problems
    for seed in range(4):
        assert_motion(source.draw_views(np.random.default_rng(seed)))
        assert_truth_holds(source.draw(np.random.default_rng(seed), 64))
    mixed = RecordingPairs(path)
    assert_truth_holds(mixed.draw(np.random.default_rng(1), 64))


def test_frames_with_depth_judge_any_match(tmp_path):
    source = RecordingPairs(write_sequence(tmp_path), config=BagConfig(homographies=0.0))
    shift = -FOCAL * source.draw_views(np.random.default_rng(3)).T_1_from_0[0, 3] / WALL
    judge = JudgedViews(source).draw(np.random.default_rng(3)).judge
    here = np.array([[64.0, 40.0], [64.0, 40.0], [64.0, 60.0]])
    there = here - [[shift, 0], [shift + 4, 0], [shift, 1]]
    assert judge(here, there).tolist() == [1, 0, 1]


def test_lens_distortion_is_taken_out_before_depth_is_used(tmp_path):
    straight, curved = (
        RecordingPairs(write_bag(tmp_path / name, 2, D=D), config=BagConfig(max_overlap=1.0)).draw_views(
            np.random.default_rng(0)
        )
        for name, D in (("straight", (0.0,) * 5), ("curved", (0.2, 0.0, 0.0, 0.0, 0.0)))
    )
    # The ray through pixel (100, 80) was recorded farther out: x_d = x (1 + 0.2 r^2).
    x, y = (100 - 63.5) / FOCAL, (80 - 47.5) / FOCAL
    stretch = 1 + 0.2 * (x * x + y * y)
    at = np.array([[[63.5 + FOCAL * x * stretch, 47.5 + FOCAL * y * stretch]]], np.float32)
    expected = cv2.remap(straight.image0, at, None, cv2.INTER_LINEAR)[0, 0].astype(int)
    assert np.abs(curved.image0[80, 100].astype(int) - expected).max() <= 12
    assert np.abs(straight.image0[80, 100].astype(int) - expected).max() > 12


def test_images_alone_give_homographies_and_matched_neighbours(tmp_path):
    path = write_bag(tmp_path / "bag", depth=False)
    settings = NeighbourConfig(matcher="sift", pairs=4, gaps=[1, 2], min_matches=8)
    source = RecordingPairs(path, config=BagConfig(neighbours=settings, homographies=0.0), cache=tmp_path / "kept")
    assert len(source._matched) == 4
    assert not source.has_dense
    pair = source.draw(np.random.default_rng(0), 64)
    # Along the wall the whole picture moves by 5 px a frame, so between two crops there is one affine map.
    shifts = [np.median(m.xy1 - m.xy0, 0) / (m.frames[1] - m.frames[0]) for m in source._matched]
    assert np.allclose(shifts, [-5, 0], atol=0.3)
    homogeneous = np.c_[pair.points0, np.ones(len(pair.points0))]
    affine = np.linalg.lstsq(homogeneous, pair.points1, rcond=None)[0]
    assert len(homogeneous) > 8
    assert np.median(np.linalg.norm(homogeneous @ affine - pair.points1, axis=1)) < 0.5
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "kept").iterdir()}
    again = RecordingPairs(path, config=BagConfig(neighbours=settings, homographies=0.0), cache=tmp_path / "kept")
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "kept").iterdir()} == before
    assert np.array_equal(again.draw(np.random.default_rng(0), 64).points1, pair.points1)
    dense = RecordingPairs(path, dense=True)
    assert dense.has_dense
    assert_truth_holds(dense.draw(np.random.default_rng(2), 64))


def test_depth_that_is_asked_for_and_missing_is_an_error_with_the_remedy(tmp_path):
    path = write_sequence(tmp_path, depth=False)
    with pytest.raises(TrainingDataError, match=r"0 frames with depth.*name depth_topic"):
        RecordingPairs(path, config=BagConfig(labels="depth"))


def test_the_end_of_a_recording_is_held_out_in_one_piece(tmp_path):
    path = write_sequence(tmp_path, 10)
    used, held = (RecordingPairs(path, part=Part(0.3, held_out)) for held_out in (False, True))
    assert used._frames == list(range(7))
    assert held._frames == [7, 8, 9]
    assert used._pairs.max() < 7 <= held._pairs.min()


def test_depth_without_any_value_is_counted_and_its_frame_not_used_for_warps(tmp_path):
    source = RecordingPairs(write_sequence(tmp_path, nan_depth=3))
    assert len(source.problems) == 1
    assert "the depth of frame 3" in source.problems[0]
    assert 3 not in source._pairs


def test_damaged_files_of_a_recording_are_named(tmp_path):
    path = write_sequence(tmp_path)
    (path / "rgb" / "2.jpg").write_bytes(b"no picture")
    (path / "depth" / "5.png").write_bytes(b"no depth")
    source = RecordingPairs(path)
    assert len(source) == 7
    assert len(source.problems) == 2
    assert any(str(path) in problem and "2.jpg" in problem for problem in source.problems)
    assert any("depth/5.png" in problem for problem in source.problems)


def test_long_and_large_recordings_are_thinned_and_reduced(tmp_path):
    settings = RecordingConfig(max_frames=4, max_side=64)
    source = RecordingPairs(write_sequence(tmp_path, 9), config=BagConfig(recording=settings, homographies=0.0))
    assert 2 <= len(source) <= 4
    views = source.draw_views(np.random.default_rng(0))
    assert views.image0.shape == (48, 64, 3)
    assert views.K0[0, 2] == pytest.approx(31.5)
    assert_truth_holds(source.draw(np.random.default_rng(0), 64))


def test_what_is_no_recording_is_refused_by_name(tmp_path):
    with pytest.raises(TrainingDataError, match=r"cannot train on .*nothing"):
        RecordingPairs(tmp_path / "nothing")
    with pytest.raises(TrainingDataError, match="1 frames that can be read"):
        RecordingPairs(write_sequence(tmp_path, 1))


# --- the recipe and the data folder -----------------------------------------------------------------------------------


def recipe(*sources: dict[str, Any], **data: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "test",
            "matcher": "gcm",
            "data": {"size": 64, "sources": list(sources) or [{"kind": "photos", "weight": 1}], **data},
            "stages": [{"stage": "descriptor", "max_steps": 1}],
        }
    )


def test_a_data_folder_of_another_kind_takes_the_place_of_the_recipes_sources(tmp_path, megadepth, scannet):
    pairs = write_pairs(tmp_path / "csv", [["image0", "image1"], ["images/0.jpg", "images/1.jpg"]])
    found = {
        "bag": write_sequence(tmp_path / "sequence"),
        "megadepth": megadepth,
        "scannet": scannet,
        "pairs_csv": pairs,
        "photos": tmp_path / "csv" / "images",
    }
    photos = {"kind": "photos", "weight": 1, "settings": {"rotation_deg": 7}}
    for kind, data in found.items():
        changed, said = fit_to_data(recipe(photos), data)
        assert [s.kind for s in changed.data.sources] == [kind]
        assert f"of the kind `{kind}`" in said
        sources = open_sources(changed.data.sources, data, Opening(tmp_path / "out", lambda *_: None))
        assert sources[0][0].draw(np.random.default_rng(0), 64).image0.shape == (64, 64, 3)
    wanted = {"kind": "megadepth", "weight": 2, "folder": "megadepth", "settings": {"max_pairs": 7}}
    kept = fit_to_data(recipe(wanted), megadepth)[0].data.sources[0]
    assert (kept.folder, kept.settings.max_pairs) == (Path("."), 7)
    assert fit_to_data(recipe(photos), found["bag"])[0].data.sources[0].settings.homography.rotation_deg == 7


def test_folders_that_are_there_are_used_as_the_recipe_says(tmp_path):
    for k in range(2):
        write_image(tmp_path / "train_photos" / f"{k}.jpg", wall_image(0.0, k))
    assert fit_to_data(recipe(), tmp_path) == (recipe(), "")
    with pytest.raises(FileNotFoundError, match=r"training data is missing: .*train_scenes"):
        fit_to_data(recipe({"kind": "photos", "weight": 1}, {"kind": "scenes", "weight": 1}), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds none of the recipe's folders \(train_photos\)"):
        fit_to_data(recipe(), tmp_path / "empty")
    deep = recipe({"kind": "megadepth", "weight": 1})
    with pytest.raises(ValueError, match=r"recipe's folders \(megadepth\)"):
        fit_to_data(deep, tmp_path)  # photos lie below, but nobody asked for them
    with pytest.raises(FileNotFoundError, match="no data folder"):
        fit_to_data(recipe(), tmp_path / "nowhere")


def test_photos_anywhere_below_the_data_folder_give_way_to_a_bag(tmp_path):
    photos = recipe({"kind": "photos", "weight": 1, "folder": "."})
    bag = write_bag(tmp_path / "bag")
    assert [s.kind for s in fit_to_data(photos, bag)[0].data.sources] == ["bag"]
    assert [s.kind for s in fit_to_data(photos, next(bag.glob("*.db3")))[0].data.sources] == ["bag"]
    assert fit_to_data(photos, write_sequence(tmp_path / "sequence")) == (photos, "")


def test_dense_recipes_leave_matched_neighbours_out(tmp_path):
    path = write_bag(tmp_path / "bag", depth=False)
    changed, _ = fit_to_data(recipe(dense=True), path)
    [(source, _)] = open_sources(changed.data.sources, path, Opening(tmp_path / "out", lambda *_: None, dense=True))
    assert source.has_dense
