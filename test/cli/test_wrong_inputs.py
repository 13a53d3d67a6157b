"""Wrong inputs and options: one line that names the file or option as the user wrote it, and exit code 2."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

CAMERA = "image_width: 320\nimage_height: {height}\ncamera_matrix: {{data: [{f},0,{cx},0,{f},{cy},0,0,1]}}\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with good and bad files, from which the commands run."""
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), cv2.GaussianBlur(noise, (0, 0), 2))
    cv2.imwrite(str(tmp_path / "small.png"), noise[:40, :50])
    cv2.imwrite(str(tmp_path / "black.png"), 0 * noise)
    (tmp_path / "pics").mkdir()
    for name in ("0.png", "1.png"):
        shutil.copy(tmp_path / "a.png", tmp_path / "pics" / name)
    (tmp_path / "dir").mkdir()
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "notes.txt").write_text("hello\n")
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "bad.yaml").write_text("a: [")
    (tmp_path / "sfit.yaml").write_text("matcher: sfit\n")
    (tmp_path / "flat.yaml").write_text(CAMERA.format(height=200, f=300, cx=159.5, cy=99.5))
    (tmp_path / "metres.yaml").write_text(CAMERA.format(height=240, f=0.004, cx=0.0016, cy=0.0012))
    monkeypatch.chdir(tmp_path)
    return tmp_path


MATCH = "match a.png a.png --matcher sift --out o "
REPLAY = "replay pics --matcher sift --out o "


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("match a.png text.png --matcher sift --out o", "text.png: this is not an image"),
        ("match a.png empty.png --matcher sift --out o", "empty.png: the file is empty; copy or record it again"),
        ("match a.png dir --matcher sift --out o", "there is no image dir"),
        ("match a.png a.png --matcher sfit --out o", "--matcher sfit: there is no such matcher"),
        ("match a.png a.png --config sfit.yaml --out o", "sfit.yaml: sfit: there is no such matcher"),
        (MATCH + "--K 1,2,3", "--K 1,2,3: write four numbers"),
        (MATCH + "--K nan,300,160,120", "--K nan,300,160,120: fx and fy must be positive numbers of pixels"),
        (MATCH + "--fov 600", "--fov 600 must lie between 1 and 170 degrees"),
        (MATCH + "--device gpu", "--device 'gpu': choose auto, cpu, cuda or cuda:N"),
        (MATCH + "--set tracker.min_inliers=few", "--set tracker.min_inliers = 'few'"),
        (MATCH + "--set tracker.mininliers=3", "--set: unknown parameter 'tracker.mininliers'"),
        (MATCH + "--reference-camera notes.txt", "notes.txt: this is not a camera file"),
        (MATCH + "--reference-camera list.yaml", "error: list.yaml: this is not a camera file"),
        (MATCH + "--reference-camera bad.yaml", "error: bad.yaml: this is not a YAML file"),
        (MATCH + "--reference-camera dir", "dir is a folder: give the camera file in it"),
        (MATCH + "--reference-camera flat.yaml", "--reference-camera flat.yaml: the image is 320 x 240"),
        (MATCH + "--mask small.png", "--mask small.png is 50 x 40, a.png is 320 x 240: make a mask of its size"),
        (MATCH + "--reference-mask small.png", "--reference-mask small.png is 50 x 40, a.png is 320 x 240"),
        (MATCH + "--mask bad.yaml", "bad.yaml: this is not an image"),
        (MATCH + "--mask no.png", "there is no mask no.png: check --mask"),
        (MATCH + "--mask black.png", "the mask black.png is entirely black: paint the usable area white"),
        (REPLAY + "--mask small.png", "the mask small.png is 50 x 40, the images are 320 x 240"),
        (REPLAY + "--mask bad.yaml", "bad.yaml: this is not an image"),
        (REPLAY + "--from 30", "--from 30 is after the last image, which comes 0.100 s after the first"),
        (REPLAY + "--from 3 --to 2", "--to 2 must come after --from 3"),
        (REPLAY + "--depth-time-offset 1", "--depth-time-offset 1 needs --depth-topic"),
        (REPLAY + "--ground-truth-time-offset 1", "omit --ground-truth-time-offset"),
        (REPLAY + "--image-topic /x", "omit --image-topic"),
        ("export", "densematch export needs one of hloc, colmap, kitti"),
        ("bench --out notes.txt --matcher sift", "--out notes.txt is a file: choose a folder"),
    ],
)
def test_a_wrong_input_is_one_line_that_names_it(densematch: Any, here: Path, command: str, words: str) -> None:
    done = densematch(*command.split())
    assert done.code == 2
    (line,) = [line for line in done.err.splitlines() if not line.startswith(("device:", "note:"))]
    assert words in line


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (MATCH + "--fov 1.2", "--fov 1.2: the focal length"),  # radians
        (MATCH + "--K 0.9,0.9,0.5,0.5", "--K 0.9,0.9,0.5,0.5: the principal point"),  # relative to the size
        (MATCH + "--reference-camera metres.yaml", "--reference-camera metres.yaml: the focal length"),
        (REPLAY + "--camera metres.yaml", "the calibration in metres.yaml is doubtful: the focal length"),
    ],
)
def test_a_calibration_in_other_units_is_doubted(densematch: Any, here: Path, command: str, words: str) -> None:
    done = densematch(*command.split())
    assert words in done.out + done.err


def test_an_export_replaces_its_own_file_and_no_other(densematch: Any, here: Path) -> None:
    pytest.importorskip("pycolmap")
    pytest.importorskip("h5py")
    densematch(*MATCH.split())
    (here / "pairs.txt").write_text("a.png a.png\n")
    for command in ("export colmap o --out a.png", "export hloc o --out ."):
        before = {file: file.read_bytes() for file in here.iterdir() if file.is_file()}
        done = densematch(*command.split())
        assert done.code == 2
        assert "was not written by densematch" in done.err
        assert {file: file.read_bytes() for file in here.iterdir() if file.is_file()} == before
    for command in ("export colmap o --out o.db", "export hloc o --out h"):
        for _ in range(2):
            assert densematch(*command.split()).code == 0
