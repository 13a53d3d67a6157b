"""How images are changed before they are matched, and that pixels, cameras and poses follow."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ros2_densematch.evaluation.predictions.images import MissingImageError, Seeing, read_seen
from ros2_densematch.evaluation.protocols import ImageRule


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_pixels_follow_resize_and_turn(tmp_path: Path, turns: int) -> None:
    """A bright block in the file is found where the map says."""
    image = np.zeros((60, 100, 3), np.uint8)
    image[8:12, 20:28] = 255  # centre at (23.5, 9.5)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    seen, seeing = read_seen(tmp_path / "a.png", ImageRule(50), turns)
    assert seen.shape[:2] == (seeing.size[1], seeing.size[0])
    assert (seeing.size == (50, 30)) == (turns % 2 == 0)
    weight = seen[..., 0].astype(float)
    y, x = np.mgrid[: seen.shape[0], : seen.shape[1]]
    centre = np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()
    np.testing.assert_allclose((seeing.pixels() @ [23.5, 9.5, 1])[:2], centre, atol=0.02)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_projection_through_the_seen_camera_is_the_moved_projection(turns: int) -> None:
    K = np.array([[100.0, 0, 52], [0, 110, 28], [0, 0, 1]])
    size = (50, 30) if turns % 2 == 0 else (30, 50)
    seeing = Seeing(size, (0.5, 0.5), turns, True)
    point = np.array([0.3, -0.2, 2.0])
    pixel = K @ point
    there = seeing.intrinsics(K) @ seeing.rotation() @ point
    np.testing.assert_allclose(there[:2] / there[2], (seeing.pixels() @ (pixel / pixel[2]))[:2], atol=1e-9)
    assert np.allclose(seeing.intrinsics(K)[1, 0], 0)
    assert seeing.intrinsics(K)[0, 0] > 0


def test_plain_scaling_of_K_leaves_out_the_half_pixel() -> None:
    K = np.array([[100.0, 0, 52], [0, 100, 28], [0, 0, 1]])
    assert Seeing((50, 30), (0.5, 0.5), 0, False).intrinsics(K)[0, 2] == 26.0
    assert Seeing((50, 30), (0.5, 0.5), 0, True).intrinsics(K)[0, 2] == 25.75


def test_rules_for_the_size(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((30, 40, 3), np.uint8))

    def size(rule: ImageRule) -> tuple[int, int]:
        return read_seen(tmp_path / "a.png", rule)[1].size

    assert size(ImageRule(20)) == (20, 15)
    assert size(ImageRule(80)) == (40, 30)
    assert size(ImageRule(80, enlarge=True)) == (80, 60)
    assert size(ImageRule(None)) == (40, 30)
    assert size(ImageRule(None, exact_size=(32, 32))) == (32, 32)


def test_a_damaged_image_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(MissingImageError, match="cannot be decoded"):
        read_seen(tmp_path / "a.png", ImageRule())
    with pytest.raises(MissingImageError, match="there is no image"):
        read_seen(tmp_path / "b.png", ImageRule())
