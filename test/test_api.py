"""Two images in one line, in whatever form people hold them; and the result handed on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as PilImage

import ros2_densematch as dm
from ros2_densematch.api.matching import image_of
from ros2_densematch.geometry.trajectory import Trajectory
from ros2_densematch.simulation.renderer import render
from ros2_densematch.simulation.worlds import tabletop


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    """A textured picture, and the same moved by (12, 5) pixels."""
    random = np.random.default_rng(0)
    large = cv2.GaussianBlur(random.integers(0, 255, (280, 360, 3), np.uint8), (0, 0), 1.5)
    large = cv2.normalize(large, None, 0, 255, cv2.NORM_MINMAX)
    return np.ascontiguousarray(large[20:260, 20:340]), np.ascontiguousarray(large[15:255, 8:328])


@pytest.fixture
def paths(images: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> list[Path]:
    names = [tmp_path / "a.png", tmp_path / "b.png"]
    for name, image in zip(names, images, strict=True):
        cv2.imwrite(str(name), image[..., ::-1])
    return names


def test_two_files_in_one_line(paths: list[Path]) -> None:
    found = dm.match(str(paths[0]), paths[1], matcher="sift")
    assert isinstance(found, dm.Correspondences)
    assert len(found) > 50
    np.testing.assert_allclose(np.median(found.query_xy - found.reference_xy, axis=0), (12, 5), atol=0.1)
    assert (
        repr(found) == f"<{len(found)} matches between images of 320 x 240 and 320 x 240, overlap {found.overlap:.2f}>"
    )
    assert found.uncalibrated.kind == "homography"
    np.testing.assert_allclose(found.uncalibrated.homography, [[1, 0, 12], [0, 1, 5], [0, 0, 1]], atol=0.5)
    camera = dm.Camera.from_matrix([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]], 320, 240)
    assert found.relative_pose(camera).num_inliers > 50


def test_masks_leave_pixels_out(paths: list[Path], images: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    allowed = np.zeros((240, 320), np.bool_)
    allowed[:, :150] = True
    cv2.imwrite(str(tmp_path / "mask.png"), allowed * np.uint8(255))
    for mask in (allowed, allowed * 3, tmp_path / "mask.png"):
        found = dm.match(*images, matcher="sift", mask=mask)
        assert len(found) > 20
        assert max(found.reference_xy[:, 0].max(), found.query_xy[:, 0].max()) < 149.6
    found = dm.match(*paths, matcher="sift", reference_mask=allowed)
    assert found.reference_xy[:, 0].max() < 149.6 < found.query_xy[:, 0].max()
    with pytest.raises(ValueError, match="the mask of the reference is 150 x 240, the image 320 x 240: use a mask"):
        dm.match(*images, matcher="sift", mask=allowed[:, :150])
    with pytest.raises(FileNotFoundError, match=r"there is no mask .*no\.png"):
        dm.match(*images, matcher="sift", mask=tmp_path / "no.png")


@pytest.mark.parametrize(
    "convert",
    [
        lambda image: image,
        lambda image: np.dstack([image, np.full(image.shape[:2], 9, np.uint8)]),
        lambda image: PilImage.fromarray(image),
        lambda image: PilImage.fromarray(image).convert("RGBA"),
        lambda image: torch.from_numpy(image).permute(2, 0, 1),
        lambda image: torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255,
        lambda image: image.astype(np.float64) / 255,
    ],
    ids=["numpy", "rgba", "pil", "pil rgba", "tensor", "float tensor", "floats"],
)
def test_every_form_of_an_image_is_the_same_image(convert: Any, images: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(image_of(convert(images[0])), images[0])


def test_grey_and_16_bit_images(images: tuple[np.ndarray, np.ndarray]) -> None:
    grey = images[0][..., 0]
    for form in (grey, grey[..., None], PilImage.fromarray(grey), torch.from_numpy(grey)):
        np.testing.assert_array_equal(image_of(form), grey)
    deep = image_of(grey.astype(np.uint16) * 100 + 7000)
    assert deep.dtype == np.uint8
    assert np.corrcoef(deep.ravel(), grey.ravel())[0, 1] > 0.95
    assert image_of(np.dstack([grey.astype(np.uint16) * 200] * 3)).shape == (*grey.shape, 3)


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ("nowhere.png", FileNotFoundError, "there is no image nowhere.png"),
        (np.zeros((4, 5, 2), np.uint8), ValueError, r"got shape \(4, 5, 2\)"),
        (np.full((20, 20), 200.0), ValueError, "floats must lie in"),
        (np.zeros((20, 20), np.int32), ValueError, "got int32"),
        ([[1, 2]], TypeError, "got list"),
    ],
)
def test_what_is_no_image_is_named(value: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        image_of(value)


def test_a_text_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("hello")
    with pytest.raises(ValueError, match=r"notes\.jpg"):
        dm.match(tmp_path / "notes.jpg", tmp_path / "notes.jpg", matcher="sift")


def test_the_result_goes_on_to_other_tools(paths: list[Path], tmp_path: Path) -> None:
    found = dm.match(*paths, matcher="sift")
    picture = found.plot(tmp_path / "matches.png")
    assert cv2.imread(str(tmp_path / "matches.png")).shape == picture.shape
    with pytest.raises(ValueError, match=r"does not end in \.png or \.jpg"):
        found.plot(tmp_path / "matches.gif")
    a, b, pairs = found.to_opencv()
    assert len(a) == len(b) == len(pairs) == len(found)
    H, _ = cv2.findHomography(
        np.float32([a[m.queryIdx].pt for m in pairs]), np.float32([b[m.trainIdx].pt for m in pairs]), cv2.RANSAC, 2.0
    )
    np.testing.assert_allclose(H[:2, 2], (12, 5), atol=0.5)
    pytest.importorskip("pandas")
    table = found.to_dataframe()
    assert list(table.columns[:5]) == ["reference_x", "reference_y", "query_x", "query_y", "score"]
    assert len(table) == len(found)


def test_a_source_of_frames_in_one_line(paths: list[Path]) -> None:
    frames = list(dm.open_source(paths[0].parent))
    assert len(frames) == 2


def test_phone_photos_are_matched_upright_in_the_pixels_that_are_stored(
    images: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    """The second photo was taken with the camera turned: its pixels lie on their side, and its EXIF data says so."""
    PilImage.fromarray(images[0]).save(tmp_path / "a.png")
    side = PilImage.fromarray(np.ascontiguousarray(np.rot90(images[1])))
    side.getexif()[274] = 6
    side.save(tmp_path / "b.png", exif=side.getexif())
    found = dm.match(tmp_path / "a.png", tmp_path / "b.png")
    assert found.query_size == (240, 320)
    assert found.query_image is not None
    np.testing.assert_array_equal(found.query_image, np.asarray(side))
    # rot90 puts (x, y) at (y, 319 - x)
    expected = np.column_stack([found.reference_xy[:, 1] + 5, 319 - (found.reference_xy[:, 0] + 12)])
    assert np.median(np.linalg.norm(found.query_xy - expected, axis=1)) < 0.3
    plain = dm.match(*images)
    np.testing.assert_allclose(len(found), len(plain))  # the matcher saw the same two pictures
    assert found.plot().shape == plain.plot().shape  # side by side, both upright
    again = dm.match(tmp_path / "a.png", PilImage.open(tmp_path / "b.png"))
    np.testing.assert_allclose(again.query_xy, found.query_xy)


def test_a_tracker_keeps_its_trajectory_for_files_and_pictures(tmp_path: Path) -> None:
    scene, camera = tabletop(), dm.Camera.from_matrix([[260.0, 0, 159.5], [0, 260, 119.5], [0, 0, 1]], 320, 240)
    tracker = dm.Tracker(dm.load_matcher("sift"))
    assert repr(tracker.trajectory) == "<0 poses of 0 frames>"
    with pytest.raises(ValueError, match="no frame has a pose"):
        tracker.trajectory.plot()
    with pytest.raises(ValueError, match=r"t\.tum is not written: no frame has a pose"):
        tracker.trajectory.to_tum(tmp_path / "t.tum")
    forward = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    for i in range(5):
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = forward, (0.0, 0.06 * i, 1.0)
        blank = np.zeros((240, 320, 3), np.uint8)
        image = blank if i == 3 else render(scene, camera, T).image
        tracked = tracker.process(dm.Frame(image, (i + 1) * 10**8, i, camera))
    assert repr(tracked).startswith("<frame 4 ")
    assert repr(tracker.trajectory) == "<4 poses of 5 frames>"
    assert tracker.trajectory.to_tum(tmp_path / "t.tum") == [tmp_path / "t.tum"]
    assert len((tmp_path / "t.tum").read_text().splitlines()) == 4
    assert tracker.trajectory.plot(tmp_path / "t.png").shape[2] == 3
    assert cv2.imread(str(tmp_path / "t.png")) is not None
    tracker.trajectory.plot(tmp_path / "t.svg")
    assert "<svg" in (tmp_path / "t.svg").read_text()
    with pytest.raises(ValueError, match=r"t\.gif does not end in"):
        tracker.trajectory.plot(tmp_path / "t.gif")
    tracker.reset()
    assert len(tracker.trajectory) == 0


def test_what_one_prints_is_one_short_line(images: tuple[np.ndarray, np.ndarray]) -> None:
    camera = dm.Camera.from_matrix([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]], 320, 240)
    matcher = dm.load_matcher("gcm")
    matches = matcher.match(matcher.encode(images[0], reference=True), matcher.encode(images[1]))
    things = [matches, matches.warp, camera, dm.estimate_relative_pose(matches, camera, camera)]
    things += [dm.Frame(images[0], 1, 0, camera), Trajectory(np.arange(3), np.stack([np.eye(4)] * 3))]
    for thing in things:
        assert len(repr(thing)) < 120
        assert "array" not in repr(thing)
