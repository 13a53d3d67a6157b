"""Which times the names of image files say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ros2_densematch.io.sources.file_stamps import kinds_of_names, stamps_from_names
from ros2_densematch.io.sources.opening import open_source

SECOND = 10**9
START = 1_700_000_000 * SECOND + 5_000_000
TIMES = [START + i * SECOND // 20 for i in range(40)]


@pytest.mark.parametrize(
    "name",
    [
        lambda t, i: f"{t}",
        lambda t, i: f"{t // 10**3}",
        lambda t, i: f"{t // 10**6}",
        lambda t, i: f"{t if i % 2 else t // 10**3}",  # two units in one folder
        lambda t, i: f"{t // SECOND}.{t % SECOND:09d}",
        lambda t, i: f"{t // SECOND}_{t % SECOND:09d}",
        lambda t, i: f"{t // SECOND}-{t % SECOND // 1000:06d}",
        lambda t, i: f"{t // SECOND}.{t % SECOND}",  # nanoseconds without their leading zeros
        lambda t, i: f"{t / SECOND:.3f}".rstrip("0"),  # a fraction without the zeros behind it
        lambda t, i: f"cam0_{t}_left",
        lambda t, i: f"{i:06d}_{t}",
        lambda t, i: f"IMG_20231114_2213{20 + t // SECOND % 10}_{t % SECOND // 10**6:03d}",
    ],
)
def test_the_unit_and_the_place_of_the_time_are_found(name: Callable[[int, int], str]) -> None:
    names = [name(t, i) for i, t in enumerate(TIMES)]
    found = stamps_from_names(names)
    assert found is not None
    assert found.stamps_ns == pytest.approx(TIMES, abs=1000)


@pytest.mark.parametrize(
    ("names", "step_ns", "unit"),
    [
        ([f"{1234567890 + i * 100_000}" for i in range(9)], SECOND // 10, "microseconds"),
        ([f"{9_999_900_000_000 + i * SECOND // 20}" for i in range(9)], SECOND // 20, "nanoseconds"),
        ([f"{i * SECOND // 20:019d}" for i in range(9)], SECOND // 20, "nanoseconds"),
    ],
)
def test_a_clock_of_its_own_is_told_by_its_steps(names: list[str], step_ns: int, unit: str) -> None:
    found = stamps_from_names(names)
    assert found is not None
    assert unit in found.unit
    assert found.stamps_ns == [(found.stamps_ns[0] or 0) + i * step_ns for i in range(9)]


@pytest.mark.parametrize("form", ["{:06d}", "{:010d}", "{:019d}", "frame{}", "20231114_221320_x{}"])
def test_frame_numbers_are_no_times(form: str) -> None:
    assert stamps_from_names([form.format(i) for i in range(12)]) is None


def test_a_stray_name_does_not_cost_the_others_their_times() -> None:
    found = stamps_from_names([*map(str, TIMES), "thumb"])
    assert found is not None
    assert found.stamps_ns == [*TIMES, None]


def test_pictures_of_two_cameras_in_one_folder_are_told_apart() -> None:
    names = [f"{side}_{t}" for t in TIMES for side in ("left", "right")]
    assert stamps_from_names(names) is None
    assert kinds_of_names(names) == ["left_0", "right_0"]


# --- folders ----------------------------------------------------------------------------------------------------------


def fill(folder: Path, names: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        cv2.imwrite(str(folder / name), np.zeros((24, 32), np.uint8))
    return folder


def test_files_are_read_in_the_order_of_their_times(tmp_path: Path) -> None:
    fill(tmp_path, [f"{t / SECOND:.3f}".rstrip("0") + ".png" for t in TIMES])  # .25 lies before .5
    assert [f.stamp_ns for f in open_source(tmp_path)] == pytest.approx(TIMES, abs=1000)


def test_numbered_files_keep_their_order_where_the_clock_was_set_back(tmp_path: Path) -> None:
    times = [*TIMES[:10], *(t - 3600 * SECOND for t in TIMES[10:20])]
    source = open_source(fill(tmp_path, [f"{i:04d}_{t}.png" for i, t in enumerate(times)]))
    assert [f.stamp_ns for f in source] == times
    assert any("set back" in text for text in source.warnings)


def test_what_is_left_out_of_a_folder_is_said(tmp_path: Path) -> None:
    fill(tmp_path, [*(f"{t}.png" for t in TIMES[:5]), "thumb.png", "._hidden.png"])
    (tmp_path / "IMG_1.HEIC").write_bytes(b"x")
    source = open_source(tmp_path)
    assert sum(1 for _ in source) == 5
    assert any("1 images" in text and "thumb.png" in text for text in source.warnings)
    assert any("IMG_1.HEIC are HEIC" in text and "convert them to jpeg" in text for text in source.warnings)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["a.heic", "b.HEIC"], "2 files such as a.heic are HEIC, which is not read: convert them to jpeg or png"),
        (["a.dng"], "DNG"),
        (["images/1.png"], "its folder images does: give "),
        (["bag/metadata.yaml"], "its folder bag does: give "),
        (["notes.txt"], "holds no image"),
    ],
)
def test_a_folder_without_images_is_answered_with_what_it_holds(tmp_path: Path, files: list[str], words: str) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"x")
    with pytest.raises(ValueError, match=words):
        open_source(tmp_path)


def test_two_cameras_in_one_folder_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, [f"{side}_{t}.png" for t in TIMES[:4] for side in ("left", "right")])
    with pytest.raises(ValueError, match=r"have 2 patterns with separate times \(left_0, right_0\)"):
        open_source(tmp_path)
