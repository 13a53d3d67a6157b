"""Overlap is the share of the reference's usable area that the query shows, whatever the roll or zoom between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PilImage

from ros2_densematch.arrays import Image
from ros2_densematch.geometry.correspondences import DenseWarp
from ros2_densematch.matchers.base import Matcher
from ros2_densematch.matchers.encoding import Encoding
from ros2_densematch.matchers.overlap import overlap_of_maps, overlap_of_matches, overlap_of_warp
from ros2_densematch.matchers.registry import load_matcher

Photo = Callable[..., Image]
SIZE = (640, 480)


def about_the_centre(turn_deg: float = 0.0, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> NDArray:
    """(2, 3) map of pixels of one image of `SIZE` to another of the same size."""
    centre = (np.array(SIZE) - 1) / 2
    affine = cv2.getRotationMatrix2D((float(centre[0]), float(centre[1])), -turn_deg, scale)
    affine[:, 2] += shift
    return affine


def encoding(mask: NDArray[np.bool_] | None = None, size: tuple[int, int] = SIZE) -> Encoding:
    return Encoding("any", size, None, mask)


def matched(affine: NDArray, count: int, *, wrong: float = 0.0, noise: float = 0.5, seed: int = 0) -> tuple:
    """So many matches all over what both images show, a share of them at random."""
    rng = np.random.default_rng(seed)
    x0 = rng.uniform(0, 1, (40 * count, 2)) * (np.array(SIZE) - 1)
    x1 = x0 @ affine[:, :2].T + affine[:, 2]
    inside = ((x1 >= 0) & (x1 <= np.array(SIZE) - 1)).all(1)
    x0, x1 = x0[inside][:count], x1[inside][:count]
    x1 = (x1 + rng.normal(0, noise, x1.shape)).clip(0, np.array(SIZE) - 1)
    astray = rng.random(len(x1)) < wrong
    x1[astray] = rng.uniform(0, 1, (int(astray.sum()), 2)) * (np.array(SIZE) - 1)
    return x0, x1


def true_share(affine: NDArray) -> float:
    xy = np.stack(np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1])), -1).reshape(-1, 2)
    at = xy @ affine[:, :2].T + affine[:, 2]
    return float(((at >= -0.5) & (at <= np.array(SIZE) - 0.5)).all(1).mean())


VIEWS = {
    "identical": about_the_centre(),
    "shifted": about_the_centre(shift=(250.0, 0.0)),
    "shifted both ways": about_the_centre(shift=(-200.0, 150.0)),
    "upside down": about_the_centre(180.0),
    "turned by 90": about_the_centre(90.0),
    "zoomed in": about_the_centre(scale=2.0),
    "zoomed in far": about_the_centre(30.0, 4.0),
    "zoomed out": about_the_centre(scale=0.5),
    "zoomed out far": about_the_centre(200.0, 0.2),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("count", "wrong"), [(60, 0.0), (300, 0.4), (3000, 0.2)])
def test_matches_tell_the_share_that_is_seen(view: str, count: int, wrong: float) -> None:
    affine = VIEWS[view]
    found = overlap_of_matches(*matched(affine, count, wrong=wrong), encoding(), encoding())
    assert found == pytest.approx(true_share(affine), abs=0.1)


@pytest.mark.parametrize("view", [name for name in VIEWS if "far" not in name])
@pytest.mark.parametrize("count", [12, 20, 40, 150])
def test_few_matches_tell_the_same_as_many(view: str, count: int) -> None:
    """The share follows from the motion: how densely it is matched plays no part."""
    found = [
        overlap_of_matches(*matched(VIEWS[view], count, wrong=0.25, seed=seed), encoding(), encoding())
        for seed in range(5)
    ]
    assert float(np.median(found)) == pytest.approx(true_share(VIEWS[view]), abs=0.1)


@pytest.mark.parametrize("view", [name for name in VIEWS if "far" not in name])
@pytest.mark.parametrize("count", [20, 300])
def test_matches_with_local_maps_tell_the_same(view: str, count: int) -> None:
    affine = VIEWS[view]
    x0, x1 = matched(affine, count, wrong=0.0)
    linear = np.broadcast_to(affine[:, :2], (len(x0), 2, 2))
    found = overlap_of_maps(x0, x1, linear, encoding(), encoding())
    assert found == pytest.approx(true_share(affine), abs=0.1)


@pytest.mark.parametrize("every", [1, 5, 25])
def test_thinning_out_the_matches_of_a_scene_with_depth_changes_little(every: int) -> None:
    rng = np.random.default_rng(3)
    x0 = rng.uniform(0, 1, (1500, 2)) * (np.array(SIZE) - 1)
    x1 = x0 + np.stack([30 + 40 * (x0[:, 1] > 300), 5 * np.sin(x0[:, 0] / 60)], -1)
    inside = ((x1 >= 0) & (x1 <= np.array(SIZE) - 1)).all(1)
    x0, x1 = x0[inside][::every], x1[inside][::every]
    assert overlap_of_matches(x0, x1, encoding(), encoding()) == pytest.approx(0.92, abs=0.06)


def test_what_few_matches_say_ends_where_others_would_lie() -> None:
    """A hundred matches in one corner and none elsewhere: more of the image would have been matched if it was seen."""
    rng = np.random.default_rng(2)
    corner = rng.uniform(0, 1, (100, 2)) * (160, 120)
    assert overlap_of_matches(corner, corner, encoding(), encoding()) < 0.3


@pytest.mark.parametrize("count", [40, 200])
def test_a_display_that_is_all_two_images_share_is_no_overlap(count: int) -> None:
    """A static overlay matches itself at the same place, whatever lies behind it."""
    rng = np.random.default_rng(count)
    panel = (100, 340) + rng.uniform(0, 1, (count, 2)) * (180, 90)
    x0, x1 = (rng.uniform(0, 1, (3 * count, 2)) * (np.array(SIZE) - 1) for _ in range(2))
    found = overlap_of_matches(np.vstack([panel, x0]), np.vstack([panel, x1]), encoding(), encoding())
    assert found < 0.6


def test_depth_does_not_hide_an_overlap() -> None:
    rng = np.random.default_rng(1)
    x0 = rng.uniform(0, 1, (500, 2)) * (np.array(SIZE) - 1)
    # a slope and a step in depth: parallax of 20 to 80 pixels
    parallax = 20 + 40 * x0[:, :1] / SIZE[0] + 20 * (x0[:, 1:] > 240)
    x1 = x0 + np.hstack([parallax, np.zeros_like(parallax)])
    inside = (x1 <= np.array(SIZE) - 1).all(1)
    found = overlap_of_matches(x0[inside], x1[inside], encoding(), encoding())
    assert found == pytest.approx(0.88, abs=0.06)


@pytest.mark.parametrize("count", [0, 5, 7, 12, 25, 50, 500, 5000])
def test_random_matches_show_nothing(count: int) -> None:
    rng = np.random.default_rng(count)
    x0, x1 = (rng.uniform(0, 1, (count, 2)) * (np.array(SIZE) - 1) for _ in range(2))
    assert overlap_of_matches(x0, x1, encoding(), encoding()) < 0.05


@pytest.mark.parametrize("copies", [2, 4, 10])
def test_matches_of_one_place_are_no_witnesses_of_each_other(copies: int) -> None:
    """A key point with several orientations matches several times: four places at random agree with some map."""
    rng = np.random.default_rng(copies)
    x0, x1 = (np.repeat(rng.uniform(0, 1, (6, 2)) * (np.array(SIZE) - 1), copies, 0) for _ in range(2))
    assert overlap_of_matches(x0, x1, encoding(), encoding()) == 0.0


@pytest.mark.parametrize("place", [(100.0, 100.0), (639.0, 0.0)])
def test_matches_in_one_point_show_next_to_nothing(place: tuple[float, float]) -> None:
    x0 = np.tile(np.array(place), (50, 1))
    assert overlap_of_matches(x0, x0, encoding(), encoding()) < 0.2


def test_masked_places_of_the_reference_are_not_counted() -> None:
    affine = about_the_centre(shift=(320.0, 0.0))  # the left half of the reference is seen
    matches = matched(affine, 400)
    left = np.zeros((480, 640), np.bool_)
    left[:, :320] = True
    assert overlap_of_matches(*matches, encoding(), encoding()) == pytest.approx(0.5, abs=0.06)
    assert overlap_of_matches(*matches, encoding(left), encoding()) == pytest.approx(1.0, abs=0.06)
    assert overlap_of_matches(*matches, encoding(np.zeros_like(left)), encoding()) == 0.0


def test_places_that_lead_to_masked_pixels_are_not_seen() -> None:
    x0, x1 = matched(about_the_centre(), 400)
    top = np.ones((480, 640), np.bool_)
    top[240:] = False
    assert overlap_of_matches(x0, x1, encoding(), encoding(top)) == pytest.approx(0.5, abs=0.06)


def test_images_of_other_sizes_are_measured_alike() -> None:
    x0, x1 = matched(about_the_centre(shift=(250.0, 0.0)), 300)
    large, small = encoding(size=(2560, 1920)), encoding(size=(160, 120))
    plain = overlap_of_matches(x0, x1, encoding(), encoding())
    assert overlap_of_matches(4 * x0 + 1.5, x1, large, encoding()) == pytest.approx(plain, abs=0.03)
    assert overlap_of_matches(x0, (x1 + 0.5) / 4 - 0.5, encoding(), small) == pytest.approx(plain, abs=0.03)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("shape", [(480, 640), (60, 80)])
def test_a_warp_tells_the_share_that_is_seen(view: str, shape: tuple[int, int]) -> None:
    affine = VIEWS[view]
    at = DenseWarp(np.zeros((*shape, 2), np.float32), np.ones(shape, np.float32), SIZE, SIZE)
    xy = (at.positions() @ affine[:, :2].T + affine[:, 2]).astype(np.float32)
    warp = DenseWarp(xy, np.ones(shape, np.float32), SIZE, SIZE)
    assert overlap_of_warp(warp, encoding(), encoding()) == pytest.approx(true_share(affine), abs=0.02)
    doubtful = DenseWarp(xy, np.full(shape, 0.1, np.float32), SIZE, SIZE)
    assert overlap_of_warp(doubtful, encoding(), encoding()) == pytest.approx(0.1 * true_share(affine), abs=0.01)


def test_a_warp_is_measured_where_the_masks_allow() -> None:
    xy = np.stack(np.meshgrid(np.arange(640), np.arange(480)), -1).astype(np.float32)
    warp = DenseWarp(xy, np.ones((480, 640), np.float32), SIZE, SIZE)
    left, top = np.ones((480, 640), np.bool_), np.ones((480, 640), np.bool_)
    left[:, 320:] = False
    top[120:] = False
    assert overlap_of_warp(warp, encoding(left), encoding(top)) == pytest.approx(0.25, abs=0.01)
    assert overlap_of_warp(warp, encoding(np.zeros_like(left)), encoding()) == 0.0


@pytest.fixture(scope="module", params=["condl", "gcm", "sift"])
def shipped(request: pytest.FixtureRequest) -> Matcher:
    preset = "base" if request.param == "sift" else "turbo"
    return load_matcher(request.param, device="cpu", preset=preset)


def seen_by(image: Image, affine: NDArray) -> Image:
    return np.asarray(cv2.warpAffine(image, affine, SIZE, flags=cv2.INTER_AREA), np.uint8)


def test_every_shipped_matcher_measures_the_same(shipped: Matcher, photo: Photo) -> None:
    """A query without content of its own beside what it shows of the reference: black is no place."""
    image, other = photo(0, *SIZE), photo(1, *SIZE)
    # the descriptors of condl bear small turns only
    turn = 15.0 if shipped.name == "condl" else 20.0
    views = {
        "identical": about_the_centre(),
        "shifted": about_the_centre(shift=(250.0, 40.0)),
        "rolled": about_the_centre(turn),
        "zoomed": about_the_centre(scale=1.6),
    }
    reference = shipped.encode(image, reference=True)
    for view, affine in views.items():
        found = shipped.match(reference, shipped.encode(seen_by(image, affine))).overlap
        assert found == pytest.approx(true_share(affine), abs=0.12), view
    assert shipped.match(reference, shipped.encode(other)).overlap < 0.05


@pytest.mark.parametrize("keypoints", [40, 120, 4096])
def test_a_matcher_with_few_key_points_measures_the_same(photo: Photo, keypoints: int) -> None:
    image = photo(0, *SIZE)
    matcher = load_matcher("sift", keypoints=keypoints)
    reference = matcher.encode(image, reference=True)
    for affine in (about_the_centre(20.0), about_the_centre(shift=(150.0, 40.0)), about_the_centre(scale=1.5)):
        found = matcher.match(reference, matcher.encode(seen_by(image, affine)))
        assert found.overlap == pytest.approx(true_share(affine), abs=0.15), len(found)


@pytest.mark.parametrize("name", ["gcm", "sift"])
def test_a_roll_does_not_change_the_overlap_of_a_pair(name: str, shared_data: Path) -> None:
    folder = shared_data.parent / "cases" / "overlap_of_rolled_pair"
    a, b, rolled = (np.array(PilImage.open(folder / f"{n}.jpg").convert("RGB")) for n in ("a", "b", "b180"))
    matcher = load_matcher(name, device="cpu")
    reference = matcher.encode(a, reference=True)
    upright, turned = (matcher.match(reference, matcher.encode(image)).overlap for image in (b, rolled))
    assert upright > 0.7
    assert turned == pytest.approx(upright, abs=0.05)
