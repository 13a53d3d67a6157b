"""What image files tell of their camera: a way up, and a focal length that is a guess with a name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ros2_densematch.files.exif import read_exif
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.io.sources.files import read_image


def photo(path: Path, size: tuple[int, int] = (600, 400), orientation: object = None, **details: float) -> Path:
    image = Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8))
    exif = image.getexif()
    if orientation is not None:
        exif[274] = orientation
    names = {"equivalent": 41989, "focal": 37386, "resolution": 41486, "unit": 41488, "width": 40962, "height": 40963}
    exif.get_ifd(34665).update({names[key]: value for key, value in details.items()})
    image.save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_orientation_and_focal_length_are_read(tmp_path: Path, suffix: str) -> None:
    found = read_exif(photo(tmp_path / f"a{suffix}", orientation=6, equivalent=26))
    assert (found.orientation, found.size) == (6, (600, 400))
    if suffix == ".tif":
        return  # Pillow reads the details of a TIFF, but does not write them
    assert found.focal_source == "26 mm on 35 mm film"
    assert found.focal_px == pytest.approx(26 * np.hypot(600, 400) / np.hypot(36, 24))  # 36 x 24 mm of film


def test_the_focal_length_by_the_pixels_of_the_sensor(tmp_path: Path) -> None:
    # 4 mm at 10000 pixels an inch, stored at half the size that was taken
    found = read_exif(photo(tmp_path / "a.jpg", focal=4.0, resolution=10000, unit=2, width=1200, height=800))
    assert found.focal_px == pytest.approx(4.0 * 10000 / 25.4 / 2)
    assert "4 mm at 393.7 pixels a mm" in found.focal_source


@pytest.mark.parametrize(
    "details",
    [
        {},
        {"equivalent": 0},
        {"equivalent": 60000},
        {"focal": 4.0},
        {"equivalent": 26, "width": 400, "height": 400},  # cut to a square, or from one
    ],
)
def test_where_nothing_is_told_nothing_is_guessed(tmp_path: Path, details: dict[str, float]) -> None:
    path = photo(tmp_path / "a.jpg", **details)
    assert read_exif(path).focal_px is None
    with pytest.raises(ValueError, match=r"a\.jpg has no focal length"):
        Camera.from_exif(path)


@pytest.mark.parametrize("orientation", [0, 9])
def test_an_orientation_that_there_is_not_turns_nothing(tmp_path: Path, orientation: int) -> None:
    assert read_exif(photo(tmp_path / "a.jpg", orientation=orientation)).orientation == 1


def test_damaged_data_says_nothing(tmp_path: Path) -> None:
    data = bytearray(photo(tmp_path / "a.jpg", orientation=6, equivalent=26).read_bytes())
    at = data.index(b"Exif")
    for end in range(at + 6, at + 90, 3):
        cut = bytearray(data)
        cut[end : end + 3] = b"\xff\xff\xff"
        (tmp_path / "b.jpg").write_bytes(cut)
        assert read_exif(tmp_path / "b.jpg").orientation in range(1, 9)
    (tmp_path / "b.jpg").write_text("no image")
    assert read_exif(tmp_path / "b.jpg").size is None
    assert read_exif(tmp_path / "nowhere.jpg").focal_px is None
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg"):
        Camera.from_exif(tmp_path / "nowhere.jpg")


def test_a_guessed_camera_is_of_the_stored_pixels_and_says_that_it_is_a_guess(tmp_path: Path) -> None:
    camera = Camera.from_exif(photo(tmp_path / "a.jpg", orientation=6, equivalent=26))
    assert camera.size == (600, 400)
    np.testing.assert_allclose(camera.K[:2, 2], (299.5, 199.5))
    assert camera.uncertainty is not None
    assert camera.uncertainty.focal >= 0.02


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_image_files_are_read_as_they_are_stored(tmp_path: Path, suffix: str, orientation: int) -> None:
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[:10, :20] = 255
    image = Image.fromarray(stored)
    image.getexif()[274] = orientation
    image.save(tmp_path / f"a{suffix}", exif=image.getexif(), **({"lossless": True} if suffix == ".webp" else {}))
    read = read_image(tmp_path / f"a{suffix}")
    assert read.shape == stored.shape
    assert np.abs(read.astype(int) - stored).mean() < 5
