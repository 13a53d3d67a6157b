"""Every layout, on a tiny folder of its form: the pairs, their truth in our conventions, and what cannot be used."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from ros2_densematch.evaluation.datasets import base
from ros2_densematch.evaluation.datasets.base import Dataset, DatasetError
from ros2_densematch.evaluation.datasets.catalogue import KNOWN, download_help, layouts, open_dataset
from ros2_densematch.geometry import poses

K = np.array([[100.0, 0, 20], [0, 101, 15], [0, 0, 1]])


def pose(x: float, turn: float = 0.0) -> np.ndarray:
    return poses.make_pose(poses.exp_rotation([0, turn, 0]), [x, 0.1, 0.2])


def text(matrix: np.ndarray) -> str:
    return " ".join(f"{v:.12g}" for v in np.asarray(matrix).ravel())


def image(path: Path, size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))
    return path


def only_truth(dataset: Dataset, kind: type) -> object:
    assert len(dataset.pairs) == 1, (dataset.pairs, dataset.unusable)
    assert isinstance(dataset.pairs[0].truth, kind)
    return dataset.pairs[0].truth


def test_superglue_lists_with_turns(tmp_path: Path) -> None:
    image(tmp_path / "raw_images" / "a.png")
    T = pose(1.0, 0.2)
    line = f"a.png b.png 0 3 {text(K)} {text(K)} {text(T)}"
    (tmp_path / "yfcc_test_pairs_with_gt.txt").write_text(line + "\nbroken line\n")
    dataset = open_dataset("pose", "yfcc100m", tmp_path)
    truth = only_truth(dataset, base.PoseTruth)
    np.testing.assert_allclose(truth.T_query_from_reference, T, atol=1e-9)
    assert dataset.pairs[0].turns == (0, 3)
    assert dataset.pairs[0].reference == tmp_path / "raw_images" / "a.png"
    assert "2 fields" in dataset.unusable[0][1]
    assert dataset.research_only


def test_megadepth1500(tmp_path: Path) -> None:
    cameras = [pose(0.0), pose(1.0, 0.1), pose(2.0, 0.2)]
    infos = np.empty(2, object)
    infos[:] = [((0, 1), 0.4, np.zeros((3, 2))), ((2, 0), 0.3, np.zeros((3, 2)))]
    np.savez(
        tmp_path / "0015_0.1_0.3.npz",
        image_paths=np.array(["Undistorted_SfM/0015/images/a.jpg", "b.jpg", "c.jpg"], object),
        intrinsics=np.stack([K, 2 * K, K]),
        poses=np.stack(cameras),
        pair_infos=infos,
    )
    dataset = open_dataset("pose", "megadepth1500", tmp_path)
    assert [p.name for p in dataset.pairs] == ["0015_0.1_0.3/0", "0015_0.1_0.3/1"]
    truth = dataset.pairs[1].truth
    assert isinstance(truth, base.PoseTruth)
    np.testing.assert_allclose(truth.T_query_from_reference, cameras[0] @ np.linalg.inv(cameras[2]), atol=1e-12)
    assert dataset.pairs[0].reference == tmp_path / "Undistorted_SfM/0015/images/a.jpg"


class _Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return (importlib.import_module, ("this_must_not_be_imported",))


def test_a_list_that_asks_for_code_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError):
        pickle.loads(pickle.dumps(_Harmful()))  # an ordinary reader would run it
    array = np.empty(1, object)
    array[0] = _Harmful()
    np.savez(tmp_path / "0022_0.1_0.3.npz", image_paths=array)
    with pytest.raises(DatasetError, match="nothing was executed"):
        open_dataset("pose", "megadepth1500", tmp_path)


def test_scannet1500_scales_K_to_the_stored_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "test.npz", name=np.array([[707, 0, 15, 585], [707, 0, 15, 600]]))
    np.savez(tmp_path / "intrinsics.npz", scene0707_00=np.array([[577.0, 0, 319.5], [0, 578, 239.5], [0, 0, 1]]))
    scene = tmp_path / "scene0707_00"
    for frame, T in ((15, pose(0.0)), (585, pose(1.0, 0.3))):
        image(scene / "color" / f"{frame}.jpg", (1280, 960))
        (scene / "pose").mkdir(exist_ok=True)
        (scene / "pose" / f"{frame}.txt").write_text("\n".join(text(row) for row in T))
    dataset = open_dataset("pose", "scannet1500", tmp_path)
    truth = only_truth(dataset, base.PoseTruth)
    np.testing.assert_allclose(truth.T_query_from_reference, np.linalg.inv(pose(1.0, 0.3)) @ pose(0.0), atol=1e-9)
    np.testing.assert_allclose(truth.reference_K, [[1154, 0, 639.5], [0, 1156, 479.5], [0, 0, 1]])
    assert dataset.unusable[0][0] == "scene0707_00/15-600"  # its pose file is missing


def test_strecha_cameras(tmp_path: Path) -> None:
    for name, x in (("0000", 0.0), ("0001", 1.0)):
        image(tmp_path / "fountain" / "images" / f"{name}.jpg")
        T = pose(x, 0.1 * x)
        rows = [*K, np.zeros(3), *T[:3, :3], T[:3, 3]]
        file = tmp_path / "fountain" / "gt_dense_cameras" / f"{name}.jpg.camera"
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join(text(row) for row in rows) + "\n40 30\n")
    truth = only_truth(open_dataset("pose", str(tmp_path)), base.PoseTruth)
    np.testing.assert_allclose(truth.T_query_from_reference, np.linalg.inv(pose(1.0, 0.1)) @ pose(0.0), atol=1e-9)


def test_eth3d_is_a_colmap_model_half_a_pixel_away(tmp_path: Path) -> None:
    model = tmp_path / "courtyard" / "dslr_calibration_undistorted"
    model.mkdir(parents=True)
    (model / "cameras.txt").write_text("# comment\n3 PINHOLE 40 30 100 101 20.5 15.5\n")
    rows = []
    for i, (name, x) in enumerate((("b.jpg", 1.0), ("a.jpg", 0.0))):
        image(tmp_path / "courtyard" / "images" / name)
        T = pose(x, 0.1 * x)
        qx, qy, qz, qw = poses.quaternion_from_matrix(T)
        t = text(T[:3, 3])
        rows += [f"{i} {qw} {qx} {qy} {qz} {t} 3 {name}", ""]  # an image without points has an empty line
    (model / "images.txt").write_text("# comment\n" + "\n".join(rows) + "\n")
    dataset = open_dataset("pose", str(tmp_path))
    truth = only_truth(dataset, base.PoseTruth)
    assert dataset.pairs[0].reference.name == "a.jpg"
    np.testing.assert_allclose(truth.T_query_from_reference, pose(1.0, 0.1) @ np.linalg.inv(pose(0.0)), atol=1e-9)
    np.testing.assert_allclose(truth.reference_K, K)


def test_wxbs(tmp_path: Path) -> None:
    folder = tmp_path / "WGALBS" / "bridge"
    image(folder / "01.png"), image(folder / "02.png")
    points = np.random.default_rng(0).uniform(0, 30, (9, 4))
    np.savetxt(folder / "corrs.txt", points)
    short = tmp_path / "WGALBS" / "short"
    short.mkdir()
    np.savetxt(short / "corrs.txt", points[:3])
    dataset = open_dataset("pose", "wxbs", tmp_path)
    truth = only_truth(dataset, base.EpipolarTruth)
    np.testing.assert_allclose(np.hstack([truth.reference_xy, truth.query_xy]), points)
    assert dataset.pairs[0].subset == "WGALBS"
    assert "at least 8" in dataset.unusable[0][1]


def test_hpatches_and_oxford_names(tmp_path: Path) -> None:
    H = np.array([[1, 0, 5], [0, 1, -3], [0, 0, 1.0]])
    for i in range(2, 7):
        image(tmp_path / "v_wall" / f"{i}.ppm")
        np.savetxt(tmp_path / "v_wall" / f"H_1_{i}", H)
    image(tmp_path / "v_wall" / "1.ppm")
    dataset = open_dataset("homography", "hpatches", tmp_path)
    assert [p.name for p in dataset.pairs] == [f"v_wall/1-{i}" for i in range(2, 7)]
    assert {p.subset for p in dataset.pairs} == {"viewpoint"}
    assert dataset.pairs[0].reference.name == "1.ppm"
    oxford = tmp_path / "oxford" / "graf"
    image(oxford / "img1.png"), image(oxford / "img2.png")
    np.savetxt(oxford / "H1to2p", H)
    pair = open_dataset("homography", str(tmp_path / "oxford")).pairs[0]
    assert (pair.reference.name, pair.query.name) == ("img1.png", "img2.png")


def test_middlebury_disparity_of_both_generations(tmp_path: Path) -> None:
    old, new = tmp_path / "cones", tmp_path / "Adirondack"
    old.mkdir(), new.mkdir()
    cv2.imwrite(str(old / "disp2.png"), np.full((30, 40), 24, np.uint8))
    disparity = np.arange(1200, dtype="<f4").reshape(30, 40)
    disparity[0, 0] = np.inf
    (new / "disp0.pfm").write_bytes(b"Pf\n40 30\n-1.0\n" + disparity[::-1].tobytes())
    dataset = open_dataset("dense", "middlebury-stereo", tmp_path)
    by_name = {p.name: p.truth.read() for p in dataset.pairs if isinstance(p.truth, base.FlowTruth)}
    assert by_name["cones"][0][5, 5].tolist() == [-6.0, 0.0]  # cones: a quarter of a pixel a unit
    flow, known = by_name["Adirondack"]
    assert flow[3, 4].tolist() == [-disparity[3, 4], 0.0]
    assert not known[0, 0]


def test_kitti_disparity_and_flow(tmp_path: Path) -> None:
    training = tmp_path / "training"
    for folder in ("image_2", "image_3"):
        image(training / folder / "000000_10.png"), image(training / folder / "000000_11.png")
    for folder in ("disp_occ_0", "flow_occ"):
        (training / folder).mkdir()
    cv2.imwrite(str(training / "disp_occ_0" / "000000_10.png"), np.full((30, 40), 256 * 3 + 128, np.uint16))
    encoded = np.zeros((30, 40, 3), np.uint16)
    encoded[..., 2], encoded[..., 1], encoded[..., 0] = 2**15 + 64 * 5, 2**15 - 64 * 2, 1
    encoded[0, 0, 0] = 0
    cv2.imwrite(str(training / "flow_occ" / "000000_10.png"), encoded)
    stereo = only_truth(open_dataset("dense", "kitti-stereo", tmp_path), base.FlowTruth)
    assert stereo.read()[0][4, 4].tolist() == [-3.5, 0.0]
    dataset = open_dataset("dense", "kitti-flow", tmp_path)
    flow, known = only_truth(dataset, base.FlowTruth).read()
    assert flow[4, 4].tolist() == [5.0, -2.0]
    assert known.sum() == 1199
    assert dataset.pairs[0].query.name == "000000_11.png"


def flo(path: Path, u: float, v: float, unknown: float = 1e10) -> None:
    flow = np.tile(np.array([u, v], "<f4"), (30, 40, 1))
    flow[0, 0] = unknown
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.float32(202021.25).tobytes() + np.array([40, 30], "<i4").tobytes() + flow.tobytes())


@pytest.mark.parametrize("name", ["middlebury-flow", "sintel", "tss"])
def test_flo_layouts(tmp_path: Path, name: str) -> None:
    if name == "middlebury-flow":
        flo(tmp_path / "other-gt-flow" / "Dimetrodon" / "flow10.flo", 3, -1)
        for frame in (10, 11):
            image(tmp_path / "other-data" / "Dimetrodon" / f"frame{frame}.png")
    elif name == "sintel":
        flo(tmp_path / "training" / "flow" / "alley_1" / "frame_0001.flo", 3, -1)
        for frame in (1, 2):
            image(tmp_path / "training" / "final" / "alley_1" / f"frame_000{frame}.png")
    else:
        flo(tmp_path / "JODS" / "pair" / "flow1.flo", 3, -1)
        image(tmp_path / "JODS" / "pair" / "image1.png"), image(tmp_path / "JODS" / "pair" / "image2.png")
    dataset = open_dataset("dense", name, tmp_path)
    truth = only_truth(dataset, base.FlowTruth)
    flow, known = truth.read()
    assert flow[5, 7].tolist() == [3.0, -1.0]
    assert known.sum() == 1199
    assert dataset.pairs[0].query.is_file()
    assert truth.pck == (name == "tss")


def test_a_cut_flo_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "training" / "flow" / "alley_1" / "frame_0001.flo"
    flo(file, 1, 1)
    file.write_bytes(file.read_bytes()[:-4])
    image(tmp_path / "training" / "final" / "alley_1" / "frame_0001.png")
    truth = only_truth(open_dataset("dense", "sintel", tmp_path), base.FlowTruth)
    with pytest.raises(DatasetError, match="is cut"):
        truth.read()


def test_proposal_flow_with_the_normalisation_of_each_paper(tmp_path: Path) -> None:
    pascal, willow = tmp_path / "pascal", tmp_path / "willow"
    image(pascal / "JPEGImages" / "a.jpg", (40, 30)), image(pascal / "JPEGImages" / "b.jpg", (80, 60))
    (pascal / "test_pairs.csv").write_text(
        "source_image,target_image,class,XA,YA,XB,YB\n"
        "PF-dataset-PASCAL/JPEGImages/a.jpg,PF-dataset-PASCAL/JPEGImages/b.jpg,1,1;2,3;4,5;6,7;8\n"
        "PF-dataset-PASCAL/JPEGImages/a.jpg,PF-dataset-PASCAL/JPEGImages/b.jpg,1,1;2,3;4,5,7;8\n"
    )
    dataset = open_dataset("dense", "pf-pascal", pascal)
    truth = only_truth(dataset, base.KeypointTruth)
    assert truth.length_px == 80.0
    assert truth.reference_xy.tolist() == [[1, 3], [2, 4]]
    assert truth.query_xy.tolist() == [[5, 7], [6, 8]]
    assert len(dataset.unusable) == 1
    image(willow / "duck" / "a.png"), image(willow / "duck" / "b.png")
    axes = [f"{axis}{side}{k}" for side in "AB" for axis in "XY" for k in range(1, 11)]
    values = [*range(10), *range(10), *range(0, 20, 2), *range(10)]
    header, row = ",".join(["imageA", "imageB", *axes]), ",".join(["duck/a.png", "duck/b.png", *map(str, values)])
    (willow / "test_pairs_pf.csv").write_text(f"{header}\n{row}\n")
    truth = only_truth(open_dataset("dense", "pf-willow", willow), base.KeypointTruth)
    assert truth.length_px == 18.0  # the box around the query's key points


def test_caltech101_masks_are_the_inside_of_the_outlines(tmp_path: Path) -> None:
    image(tmp_path / "101_ObjectCategories" / "a.png"), image(tmp_path / "101_ObjectCategories" / "b.png")
    (tmp_path / "test_pairs.csv").write_text(
        "imageA,imageB,class,XA,YA,XB,YB\n"
        "Caltech-101/101_ObjectCategories/a.png,Caltech-101/101_ObjectCategories/b.png,3,"
        "10;19;19;10,5;5;14;14,0;9;9;0,0;0;9;9\n"
    )
    first, second = only_truth(open_dataset("dense", "caltech101", tmp_path), base.LabelTruth).read()
    assert first.sum() == second.sum() == 100
    assert first[5:15, 10:20].all()


def test_frames_csv_as_keyframe_pairs(tmp_path: Path) -> None:
    lines = ["index,timestamp_ns,image,depth,tx,ty,tz,qx,qy,qz,qw"]
    lines += [f"{i},{i},rgb/{i}.jpg,,{0.1 * i},0,0,0,0,0,1" for i in range(22)]
    (tmp_path / "frames.csv").write_text("\n".join(lines))
    (tmp_path / "camera.json").write_text(f'{{"K": [{", ".join(text(K).split())}], "distortion_model": "none"}}')
    dataset = open_dataset("pose", str(tmp_path))
    assert [p.name for p in dataset.pairs] == ["0+1", "0+2", "0+5", "0+10", "20+1"]
    truth = dataset.pairs[2].truth
    assert isinstance(truth, base.PoseTruth)
    np.testing.assert_allclose(truth.T_query_from_reference[:3, 3], [-0.5, 0, 0])
    assert truth.min_baseline == 0.05


def test_what_fits_nothing_is_refused_with_the_files_that_would(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"pairs\.txt"):
        open_dataset("pose", str(tmp_path))
    with pytest.raises(DatasetError, match="belongs to `eval homography`"):
        open_dataset("pose", "hpatches", tmp_path)
    with pytest.raises(DatasetError, match="--download-help"):
        open_dataset("pose", "megadepth1500")
    with pytest.raises(FileNotFoundError, match="no known data set"):
        open_dataset("pose", "megadepht1500")


def test_every_known_data_set_has_a_layout_and_a_licence() -> None:
    names = {layout.name for task in ("pose", "homography", "dense") for layout in layouts(task)}  # type: ignore[arg-type]
    assert {known.layout for known in KNOWN.values()} <= names
    for name, known in KNOWN.items():
        lines = "\n".join(download_help(name))
        assert known.licence in lines
        assert ("research only" in lines) == known.research_only
