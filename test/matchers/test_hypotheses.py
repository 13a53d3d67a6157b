"""Turned, zoomed and slanted views: they save such pairs and leave all others alone."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from ros2_densematch.arrays import Image
from ros2_densematch.matchers.gcm.hypotheses import common_frame, common_hypothesis, warped
from ros2_densematch.matchers.gcm.matcher import GcmMatcher, _carried

Photo = Callable[..., Image]
WIDTH, HEIGHT = 480, 360


def turned(image: Image, quarters: int, scale: float) -> tuple[Image, np.ndarray]:
    """The image turned by quarters and made smaller over areas, and the (2, 3) map of its pixels."""
    other = np.ascontiguousarray(np.rot90(image, quarters))
    height, width = other.shape[:2]
    size = round(width * scale), round(height * scale)
    other = np.asarray(cv2.resize(other, size, interpolation=cv2.INTER_AREA), np.uint8)
    h, w = image.shape[0] - 1, image.shape[1] - 1
    rotation = {
        0: [[1, 0, 0], [0, 1, 0]],
        1: [[0, 1, 0], [-1, 0, w]],
        2: [[-1, 0, w], [0, -1, h]],
        3: [[0, -1, h], [1, 0, 0]],
    }[quarters]
    sx, sy = size[0] / width, size[1] / height
    return other, np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5]]) @ np.array([*rotation, [0, 0, 1]])


def errors(gcm: GcmMatcher, image: Image, other: Image, affine: np.ndarray, swapped: bool) -> np.ndarray:
    """Distances in pixels of `other` between the matches and the (2, 3) map from `image`; `swapped`: other to image."""
    first, second = (other, image) if swapped else (image, other)
    matches = gcm.match(gcm.encode(first), gcm.encode(second))
    of_image, of_other = matches.reference_xy, matches.query_xy
    if swapped:
        of_image, of_other = of_other, of_image
    return np.linalg.norm(of_image @ affine[:, :2].T + affine[:, 2] - of_other, axis=1)


@pytest.mark.parametrize(("quarters", "scale"), [(1, 1.0), (2, 1.0), (1, 0.4), (2, 0.4), (3, 0.6)])
@pytest.mark.parametrize("swapped", [False, True], ids=["shrunk", "enlarged"])
def test_a_turned_and_scaled_image_is_matched(
    gcm: GcmMatcher, photo: Photo, quarters: int, scale: float, swapped: bool
) -> None:
    image = photo(0)
    other, affine = turned(image, quarters, scale)
    error = errors(gcm, image, other, affine, swapped)
    assert len(error) > 100
    assert (error < 2).mean() > 0.9
    assert np.median(error) < 0.25


def slanted(image: Image, tilt: float, axis_deg: float) -> tuple[Image, np.ndarray]:
    """The image squeezed by `tilt` along an axis, as from the side, and the (2, 3) map of its pixels."""
    c, s = np.cos(np.deg2rad(axis_deg)), np.sin(np.deg2rad(axis_deg))
    turn = np.array([[c, s], [-s, c]])
    affine = np.zeros((2, 3))
    affine[:, :2] = turn.T @ np.diag([1 / tilt, 1.0]) @ turn
    centre = (np.array(image.shape[1::-1]) - 1) / 2
    affine[:, 2] = centre - affine[:, :2] @ centre
    smooth = cv2.GaussianBlur(image, (0, 0), 0.5 * tilt)  # so that nothing aliases
    return np.asarray(cv2.warpAffine(smooth, affine, image.shape[1::-1], flags=cv2.INTER_LINEAR), np.uint8), affine


@pytest.mark.parametrize(("tilt", "axis"), [(2.0, 0.0), (2.5, 70.0), (3.5, 20.0)])
@pytest.mark.parametrize("swapped", [False, True], ids=["to the slant", "from the slant"])
def test_a_plane_seen_from_the_side_is_matched(
    gcm: GcmMatcher, photo: Photo, tilt: float, axis: float, swapped: bool
) -> None:
    """A tilt of 3.5 is a slant of 73 degrees."""
    image = photo(0)
    other, affine = slanted(image, tilt, axis)
    error = errors(gcm, image, other, affine, swapped)
    assert len(error) > 100
    assert (error < 2).mean() > 0.9
    assert np.median(error) < 0.3


@pytest.mark.parametrize("seed", range(6))
def test_in_the_common_frame_neither_image_is_enlarged_and_both_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    linear = rng.normal(size=(2, 2)) * rng.uniform(0.3, 3)
    if np.linalg.det(linear) < 0:
        linear = linear[::-1]
    reference, query = common_frame(linear)
    np.testing.assert_allclose(query @ linear, reference, atol=1e-12)
    assert np.linalg.norm(reference, 2) <= 1.2
    assert np.linalg.norm(query, 2) <= 1 + 1e-12
    assert np.linalg.det(reference) > 0
    assert np.linalg.det(query) > 0
    # in every direction one of the two keeps its full resolution
    kept = np.maximum(np.linalg.svd(reference, compute_uv=False), np.linalg.svd(query, compute_uv=False)[::-1])
    assert (kept > 1 - 1e-9).all()


def test_a_query_that_is_nowhere_larger_stays_as_it_is() -> None:
    for linear in (np.eye(2), 0.4 * np.eye(2), np.diag([0.3, 1.1])):
        reference, query = common_frame(linear)
        np.testing.assert_array_equal(reference, linear)
        np.testing.assert_array_equal(query, np.eye(2))


def test_what_matches_have_in_common_is_undone_only_where_it_is_notable() -> None:
    rng = np.random.default_rng(0)
    x0 = rng.uniform(0, 640, (400, 2))
    wrong = rng.random(400) < 0.5

    def seen(linear: np.ndarray) -> object:
        x1 = x0 @ linear.T + (30.0, -10.0) + rng.normal(size=(400, 2))
        x1[wrong] = rng.uniform(0, 640, (int(wrong.sum()), 2))
        return common_hypothesis(x0, x1, (640, 480))

    assert seen(np.eye(2)) is None
    assert seen(np.array([[1.2, 0.1], [-0.1, 1.2]])) is None
    for linear in (np.diag([0.5, 1.0]), np.array([[0.0, -1.0], [1.0, 0.0]]), 2.5 * np.eye(2)):
        found = seen(linear)
        assert found is not None
        np.testing.assert_allclose(found.linear, linear, atol=0.05)  # type: ignore[attr-defined]
        assert found.votes > 150  # type: ignore[attr-defined]
    assert seen(np.diag([1.0, -1.0])) is None, "a mirror is no view"
    assert common_hypothesis(x0[:5], x0[:5] * 0.4, (640, 480)) is None


def test_information_is_carried_into_the_frame_of_the_query() -> None:
    rng = np.random.default_rng(0)
    linear = np.array([[0.5, -0.3], [0.2, 0.9]])
    root = rng.normal(size=(5, 2, 2))
    matrix = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(2)
    error = rng.normal(size=(5, 2))
    carried = _carried(matrix.reshape(5, 4)[:, [0, 1, 3]], linear)
    mapped = error @ linear.T
    a, b, c = carried.T
    after = a * mapped[:, 0] ** 2 + 2 * b * mapped[:, 0] * mapped[:, 1] + c * mapped[:, 1] ** 2
    np.testing.assert_allclose(after, np.einsum("ni,nij,nj->n", error, matrix, error))


def test_an_ordinary_pair_is_left_as_it_is(photo: Photo, carried: Callable, gcm: GcmMatcher) -> None:
    image = photo(0)
    other, _ = carried(image, 1.15, (-20.2, -30.8))
    without = GcmMatcher(device="cpu", hypotheses=False)
    first, second = (m.match(m.encode(image), m.encode(other)) for m in (gcm, without))
    assert len(first) > 300
    for name in ("reference_xy", "query_xy", "score", "precision"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_array_equal(first.warp.certainty, second.warp.certainty)


def test_the_thumbnails_of_a_keyframe_are_made_once(
    gcm: GcmMatcher, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = gcm.encode(photo(0))
    gcm.match(reference, gcm.encode(turned(photo(0), 2, 1.0)[0]))
    made = dict(reference.data.thumbnails)
    assert made
    gcm.match(reference, gcm.encode(turned(photo(0), 1, 1.0)[0]))
    assert reference.data.thumbnails.keys() == made.keys()
    assert all(reference.data.thumbnails[key] is thumbnail for key, thumbnail in made.items())


def test_neighbours_of_a_video_are_matched_without_the_search_and_alike(gcm: GcmMatcher, photo: Photo) -> None:
    image = photo(0)
    other, _ = turned(image, 1, 1.0)
    first, second = gcm.encode(image), gcm.encode(other)
    assert len(gcm.match(first, second, wide=False)) < 30
    assert not second.data.thumbnails
    assert len(gcm.match(first, second)) > 300
    near = gcm.encode(np.roll(image, 5, 1))
    wide, narrow = (gcm.match(first, near, wide=w) for w in (True, False))
    np.testing.assert_array_equal(narrow.query_xy, wide.query_xy)


def test_a_preset_without_hypotheses_never_tries_them(photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    matcher = GcmMatcher(device="cpu", preset="fast")
    reference = matcher.encode(photo(0))
    matcher.match(reference, matcher.encode(turned(photo(0), 2, 1.0)[0]))
    assert reference.data.thumbnails == {}


@pytest.mark.parametrize(
    "linear",
    [np.eye(2), 0.5 * np.eye(2), np.array([[0.0, -1.0], [1.0, 0.0]]), np.array([[0.5, -0.3], [0.25, 0.6]])],
    ids=["same", "half", "quarter turn", "affine"],
)
def test_warping_an_image_says_where_its_pixels_come_from(waves, linear: np.ndarray) -> None:
    grey = waves.image(200, 150)
    image = np.repeat(np.clip(np.round(grey), 0, 255).astype(np.uint8)[..., None], 3, 2)
    other, mask, back = warped(image, None, linear)
    assert other.shape[:2] == mask.shape
    y, x = np.nonzero(mask)
    old = np.stack([x, y], 1) @ back[:, :2].T + back[:, 2]
    assert (old >= -0.5).all()
    assert (old <= (199.5, 149.5)).all()
    # all of the image is there: the mask covers its area but for a rim
    area = 200 * 150 * np.linalg.det(linear)
    assert 0.75 * area < mask.sum() < 1.05 * area
    difference = other[y, x, 0] - waves.at(old)
    assert abs(np.median(difference)) < 1
    # shrinking averages over areas: the waves lose contrast, but stay in place
    assert np.corrcoef(other[y, x, 0].astype(float), waves.at(old))[0, 1] > 0.98
    np.testing.assert_allclose(np.linalg.inv(back[:, :2]), linear, rtol=0.03, atol=0.02)


def test_warping_keeps_masked_pixels_masked(waves) -> None:
    image = np.repeat(waves.image(200, 150).clip(0, 255).astype(np.uint8)[..., None], 3, 2)
    allowed = np.ones((150, 200), np.bool_)
    allowed[:, :80] = False
    _, mask, back = warped(image, allowed, np.array([[0.4, -0.4], [0.4, 0.4]]))
    y, x = np.nonzero(mask)
    assert len(x) > 500
    assert (x * back[0, 0] + y * back[0, 1] + back[0, 2]).min() > 79.5


def test_a_canvas_of_few_sizes_shows_the_same_and_masks_what_it_adds(waves) -> None:
    """Every new image size costs the convolution library a compilation and the heap a hole."""
    image = np.repeat(waves.image(200, 150).clip(0, 255).astype(np.uint8)[..., None], 3, 2)
    linear = np.array([[0.8, -0.3], [0.3, 0.7]])
    plain, mask, back = warped(image, None, linear)
    padded, wide_mask, wide_back = warped(image, None, linear, 64)
    assert [v % 64 for v in padded.shape[:2]] == [0, 0]
    assert padded.shape != plain.shape
    height, width = mask.shape
    np.testing.assert_array_equal(padded[:height, :width], plain)
    np.testing.assert_array_equal(wide_back, back)
    assert not wide_mask[height:].any()
    assert not wide_mask[:, width:].any()
    # a rim that the erosion took at the edge of the smaller canvas may stay
    assert (wide_mask[:height, :width] >= mask).all()
    assert wide_mask.sum() < 1.05 * mask.sum()
