"""`densematch match`: what it writes for a pair and for a list, and what it does with bad lines."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image as PilImage

IMAGES = ("rgb/000000.png", "rgb/000004.png")
INTRINSICS = "260 0 159.5 0 260 119.5 0 0 1"


def true_pose() -> np.ndarray:
    """T_query_from_reference of the flight's frames 0 and 4."""
    yaw, x = np.deg2rad(2.4), 0.24
    c, s = np.cos(yaw), np.sin(yaw)
    R = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, R @ [-x, 0, 0]
    return T


def a_line(*, pose: bool = True) -> str:
    words = f"{IMAGES[0]} {IMAGES[1]} {INTRINSICS} {INTRINSICS}"
    return words + " " + " ".join(f"{v:.9g}" for v in true_pose().ravel()) if pose else words


def test_a_pair_without_cameras_gives_correspondences(densematch, flight: Path, tmp_path: Path) -> None:
    outcome = densematch("match", *(flight / i for i in IMAGES), "--matcher", "sift", "--out", tmp_path)
    assert outcome.code == 0, outcome.err
    assert {p.name for p in tmp_path.iterdir()} == {"000000.npz", "matches.png", "summary.json"}
    found = np.load(tmp_path / "000000.npz")
    n = len(found["score"])
    assert n > 50
    assert found["reference_xy"].shape == found["query_xy"].shape == (n, 2)
    assert found["precision"].shape == (n, 3)
    assert found["reference_xy"].dtype == np.float32
    assert 0 < float(found["overlap"]) <= 1
    assert "T_query_from_reference" not in found
    summary = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    assert summary["pairs"][0]["matches"] == n
    assert "no camera" in summary["pairs"][0]["status"]
    assert summary["timings_ms"]["encode"]["median"] > 0
    uncalibrated = summary["pairs"][0]["uncalibrated"]
    assert uncalibrated["kind"] in ("fundamental", "homography")
    x = [np.column_stack([found[name], np.ones(n)]) for name in ("reference_xy", "query_xy")]
    lines = x[0] @ np.array(uncalibrated["fundamental"]).T
    distance = np.abs(np.sum(lines * x[1], 1)) / np.hypot(lines[:, 0], lines[:, 1])
    assert np.median(distance[found["fundamental_inliers"]]) < 1.5
    np.testing.assert_allclose(found["homography"], uncalibrated["homography"])
    picture = cv2.imread(str(tmp_path / "matches.png"))
    assert picture.shape[1] == 1280


def test_a_camera_file_gives_the_pose(densematch, flight: Path, tmp_path: Path) -> None:
    camera = tmp_path / "c.yaml"
    matrix = [float(v) for v in INTRINSICS.split()]
    camera.write_text(
        yaml.safe_dump(
            {
                "image_width": 320,
                "image_height": 240,
                "camera_name": "c",
                "camera_matrix": {"rows": 3, "cols": 3, "data": matrix},
                "distortion_model": "plumb_bob",
                "distortion_coefficients": {"rows": 1, "cols": 5, "data": [0.0] * 5},
            }
        ),
        "utf-8",
    )
    out = tmp_path / "o"
    words = (*(flight / i for i in IMAGES), "--reference-camera", camera, "--matcher", "sift", "--out", out)
    assert densematch("match", *words).code == 0
    found = np.load(out / "000000.npz")
    turn = found["T_query_from_reference"][:3, :3] @ true_pose()[:3, :3].T
    assert np.rad2deg(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))) < 0.5
    assert str(found["geometry"]) == "CALIBRATED"
    assert str(found["scale"]) == "UNIT"
    assert found["covariance"].shape == (6, 6)
    assert found["inliers"].sum() > 50


def test_nothing_is_matched_where_a_mask_is_black(densematch, flight: Path, tmp_path: Path) -> None:
    left, top = np.zeros((2, 240, 320), np.uint8)
    left[:, :200], top[:120] = 255, 1  # a picture, and labels
    for name, mask in (("left", left), ("top", top)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), mask)
    cv2.imwrite(str(tmp_path / "deep.png"), (left > 0) * np.uint16(65535))
    command = ("match", *(flight / i for i in IMAGES), "--matcher", "sift", "--out", tmp_path / "o")

    def matched(*options: object) -> tuple[np.ndarray, np.ndarray]:
        outcome = densematch(*command, *options)
        assert outcome.code == 0, outcome.err
        found = np.load(tmp_path / "o/000000.npz")
        assert len(found["score"]) > 30
        return found["reference_xy"], found["query_xy"]

    reference, query = matched()
    assert min(reference[:, 0].max(), query[:, 0].max()) > 250
    for name in ("left.png", "deep.png"):
        reference, query = matched("--mask", tmp_path / name)
        assert max(reference[:, 0].max(), query[:, 0].max()) < 199.6
    reference, query = matched("--mask", tmp_path / "left.png", "--reference-mask", tmp_path / "top.png")
    assert reference[:, 0].max() > 200
    assert reference[:, 1].max() < 119.6
    assert query[:, 0].max() < 199.6
    assert query[:, 1].max() > 120
    reference, query = matched("--reference-mask", tmp_path / "top.png")
    assert reference[:, 1].max() < 119.6
    assert query[:, 0].max() > 250


def test_a_result_is_exported_and_what_is_none_is_named(densematch, flight: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text(a_line() + "\n")
    arguments = ("--pairs", tmp_path / "pairs.txt", "--root", flight, "--matcher", "sift", "--out", tmp_path / "out")
    assert densematch("match", *arguments).code == 0
    pytest.importorskip("h5py")
    outcome = densematch("export", "hloc", tmp_path / "out", "--out", tmp_path / "hloc")
    assert outcome.code == 0, outcome.err
    assert "2 images, 1 pairs" in outcome.out
    assert {p.name for p in (tmp_path / "hloc").iterdir()} == {"features.h5", "matches.h5", "pairs.txt"}
    assert (tmp_path / "hloc/pairs.txt").read_text() == "000000.png 000004.png\n"
    for arguments, words in (
        (("hloc", tmp_path / "hloc", "--out", tmp_path / "x"), "contains no summary.json"),
        (("kitti", tmp_path / "out", "--out", tmp_path / "x.txt"), "holds no trajectory.tum"),
        (("colmap", tmp_path / "out", "--out", tmp_path), "is a folder: name a file"),
        (("hloc", tmp_path / "out", "--out", tmp_path / "x", "--cell", "0"), "--cell 0 must be positive"),
    ):
        refused = densematch("export", *arguments)
        assert refused.code == 2
        assert words in refused.err


@pytest.mark.parametrize("options", [("--K", "260,260,159.5,119.5"), ("--fov", "63.2")])
def test_intrinsics_or_a_field_of_view_give_the_pose(
    densematch, flight: Path, tmp_path: Path, options: tuple[str, str]
) -> None:
    images = [flight / i for i in IMAGES]
    outcome = densematch("match", *images, "--matcher", "sift", "--out", tmp_path, *options)
    assert outcome.code == 0, outcome.err
    T = np.load(tmp_path / "000000.npz")["T_query_from_reference"]
    cosine = (np.trace(T[:3, :3] @ true_pose()[:3, :3].T) - 1) / 2
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))) < 0.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--K", "260,260"), "--K 260,260: write four numbers fx,fy,cx,cy"),
        (("--K", "0,260,1,1"), "--K 0,260,1,1: fx and fy must be positive"),
        (("--fov", "200"), "--fov 200 must lie between 1 and 170 degrees"),
        (("--fov", "60", "--K", "1,1,1,1"), "give one of them"),
    ],
)
def test_wrong_intrinsics_are_named(
    densematch, flight: Path, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    outcome = densematch("match", *(flight / i for i in IMAGES), "--matcher", "sift", "--out", tmp_path, *options)
    assert outcome.code == 2
    assert words in outcome.err


def test_a_list_is_worked_off_and_bad_lines_are_named_counted_and_skipped(
    densematch, flight: Path, tmp_path: Path
) -> None:
    (flight / "notes.txt").write_text("not an image")
    lines = ["# a comment", a_line(), "", "only three words", a_line(pose=False), "rgb/000000.png rgb/no.png"]
    lines += ["notes.txt rgb/000000.png", a_line().replace("260", "x", 1)]
    (tmp_path / "pairs.txt").write_text("\n".join(lines), "utf-8")
    out = tmp_path / "o"
    words = ("--pairs", tmp_path / "pairs.txt", "--root", flight, "--matcher", "sift", "--out", out)
    outcome = densematch("match", *words)
    assert outcome.code == 2  # two pairs are there, but the list was not all good
    assert {p.name for p in out.iterdir()} == {
        *("000000.npz", "000000.png"),
        *("000002.npz", "000002.png"),  # numbers stay when a bad line is repaired
        "summary.json",
    }
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    assert (summary["total"], summary["matched"]) == (6, 2)
    assert [entry["line"] for entry in summary["skipped"]] == [4, 6, 7, 8]
    for line, reason in ((4, "3 fields"), (6, "rgb/no.png"), (7, "notes.txt"), (8, "could not convert")):
        assert reason in next(e["reason"] for e in summary["skipped"] if e["line"] == line)
        assert f"line {line} skipped" in outcome.err
    exact, unknown = summary["pairs"]
    assert exact["rotation_error_deg"] < 0.5
    assert exact["translation_error_deg"] < 8.0
    assert unknown["rotation_error_deg"] is None


@pytest.mark.parametrize("kind", ["rgba", "sixteen_bit", "grey", "jpeg"])
def test_any_usual_image_file_is_converted(densematch, flight: Path, tmp_path: Path, kind: str) -> None:
    grey = cv2.imread(str(flight / IMAGES[0]), cv2.IMREAD_GRAYSCALE)
    file = tmp_path / "image.png"
    if kind == "rgba":
        cv2.imwrite(str(file), np.dstack([grey, grey, grey, np.full_like(grey, 200)]))
    elif kind == "sixteen_bit":
        cv2.imwrite(str(file), grey.astype(np.uint16) * 257)
    elif kind == "grey":
        cv2.imwrite(str(file), grey)
    else:
        file = tmp_path / "image.jpg"
        cv2.imwrite(str(file), np.dstack([grey] * 3))
    words = (file, flight / IMAGES[1], "--matcher", "sift", "--no-pictures", "--out", tmp_path / "o")
    assert densematch("match", *words).code == 0
    assert len(np.load(tmp_path / "o" / "000000.npz")["score"]) > 50
    assert not (tmp_path / "o" / "matches.png").exists()


def test_what_is_missing_is_named(densematch, flight: Path, tmp_path: Path) -> None:
    image = flight / IMAGES[0]
    for words, expected in (
        ((image,), "give two images"),
        ((image, tmp_path / "no.png"), "no.png"),
        ((image, image, "--pairs", tmp_path / "p.txt"), "give one of the two"),
        (("--pairs", tmp_path / "p.txt"), "p.txt"),
        ((image, image, "--query-camera", tmp_path / "c.yaml"), "give both"),
        ((image, image, "--reference-camera", tmp_path / "c.yaml"), "c.yaml"),
    ):
        outcome = densematch("match", *words, "--matcher", "sift", "--out", tmp_path / "o")
        assert outcome.code == 2
        assert outcome.err.count("\n") == 1
        assert expected in outcome.err
    assert not (tmp_path / "o").exists()


def test_a_list_without_pairs_is_refused(densematch, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("# nothing\n")
    assert "has no pairs" in densematch("match", "--pairs", tmp_path / "p.txt", "--out", tmp_path / "o").err


def test_two_runs_give_the_same_arrays(densematch, flight: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        words = (*(flight / i for i in IMAGES), "--matcher", "sift", "--no-pictures", "--out", tmp_path / name)
        assert densematch("match", *words).code == 0
    assert (tmp_path / "a" / "000000.npz").read_bytes() == (tmp_path / "b" / "000000.npz").read_bytes()


def test_photos_that_tell_their_focal_length_give_a_pose_by_a_guess_with_a_name(
    densematch, flight: Path, tmp_path: Path
) -> None:
    """260 px of a 320 x 240 picture are 28.1 mm of film: 28 mm is what a phone would write."""
    photos = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for name, photo in zip(IMAGES, photos, strict=True):
        image = PilImage.open(flight / name)
        image.getexif().get_ifd(34665)[41989] = 28
        image.save(photo, exif=image.getexif(), quality=95)
    outcome = densematch("match", *photos, "--matcher", "sift", "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert "focal length guessed from EXIF (28 mm on 35 mm film, 259 px)" in outcome.out
    (row,) = json.loads((tmp_path / "out/summary.json").read_text("utf-8"))["pairs"]
    assert row["intrinsics"].startswith("focal length guessed")
    assert row["uncalibrated"]["kind"] in ("fundamental", "homography")
    with np.load(tmp_path / "out/000000.npz") as found:
        assert str(found["intrinsics"]) == "guess"
        T = found["T_query_from_reference"]
        assert {"fundamental", "homography", "covariance", "reference_K"} <= set(found.files)
    assert np.rad2deg(np.arccos((np.trace(T[:3, :3].T @ true_pose()[:3, :3]) - 1) / 2)) < 1.0
    given = densematch("match", *photos, "--matcher", "sift", "--fov", "63.2", "--out", tmp_path / "fov")
    assert "EXIF" not in given.out
    with np.load(tmp_path / "fov/000000.npz") as found:
        assert str(found["intrinsics"]) == "given"
        assert "fundamental" not in found.files
