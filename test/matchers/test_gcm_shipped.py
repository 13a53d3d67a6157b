"""`gcm` with the shipped weights: exact to the pixel fraction, silent where there is nothing to match."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from ros2_densematch.arrays import Image
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.gcm.matcher import GcmMatcher
from ros2_densematch.simulation.sensor import Sensor

Photo = Callable[..., Image]


@pytest.fixture(scope="module")
def enlarged(gcm: GcmMatcher, photo: Photo, carried: Callable) -> tuple[Correspondences, np.ndarray]:
    """Matches of a picture with its shifted, 1.25 times enlarged copy, and the true map."""
    image = photo(0)
    other, affine = carried(image, 1.25, (-40.3, -33.7))
    return gcm.match(gcm.encode(image), gcm.encode(other)), affine


def carry(affine: np.ndarray, xy: np.ndarray) -> np.ndarray:
    return xy.astype(np.float64) @ affine[:, :2].T + affine[:, 2]


def test_an_enlarged_and_shifted_copy_is_matched_below_the_pixel(enlarged: tuple) -> None:
    matches, affine = enlarged
    error = np.linalg.norm(carry(affine, matches.reference_xy) - matches.query_xy, axis=1)
    assert len(matches) > 300
    assert np.median(error) < 0.25
    assert (error < 2).mean() > 0.9


def test_the_precision_is_positive_definite_and_says_that_errors_are_small(enlarged: tuple) -> None:
    matches, affine = enlarged
    xx, xy, yy = matches.precision.T.astype(np.float64)
    assert (xx > 0).all()
    assert (xx * yy - xy * xy > 0).all()
    error = matches.query_xy - carry(affine, matches.reference_xy)
    squared = xx * error[:, 0] ** 2 + 2 * xy * error[:, 0] * error[:, 1] + yy * error[:, 1] ** 2
    # two degrees of freedom: the median of a calibrated estimate is 1.39; within a factor of three in sigma is honest
    assert 1.39 / 9 < np.median(squared) < 1.39 * 9


def test_the_dense_warp_has_the_size_of_the_reference_and_agrees_with_the_matches(enlarged: tuple) -> None:
    matches, affine = enlarged
    warp = matches.warp
    assert warp.xy.shape == (360, 480, 2)
    assert warp.certainty.shape == (360, 480)
    assert ((warp.certainty >= 0) & (warp.certainty <= 1)).all()
    x, y = np.floor(matches.reference_xy + 0.5).astype(int).T
    sure = warp.certainty[y, x] > 0.5
    assert sure.sum() > 200
    # the warp is read at the pixel beside the match: the true map carries it over
    beside = matches.reference_xy - np.stack([x, y], 1)
    difference = warp.xy[y, x] + beside @ affine[:, :2].T - matches.query_xy
    assert np.median(np.linalg.norm(difference, axis=1)[sure]) < 0.5


def test_certain_pixels_of_the_warp_are_right(enlarged: tuple) -> None:
    matches, affine = enlarged
    grid = np.stack(np.meshgrid(np.arange(480), np.arange(360)), -1)
    error = np.linalg.norm(carry(affine, grid) - matches.warp.xy, axis=2)
    sure = matches.warp.certainty > 0.5
    truly_visible = (carry(affine, grid) >= 0).all(2) & (carry(affine, grid) <= (479, 359)).all(2)
    assert (error[sure] < 3).mean() > 0.9
    assert sure[truly_visible].mean() > 0.6
    assert sure[~truly_visible].mean() < 0.1


def test_pixel_centres_stay_centres_when_an_image_is_halved(gcm: GcmMatcher, photo: Photo) -> None:
    image = photo(0)
    half = np.asarray(cv2.resize(image, (240, 180), interpolation=cv2.INTER_AREA), np.uint8)
    matches = gcm.match(gcm.encode(half), gcm.encode(image))
    difference = matches.query_xy - ((matches.reference_xy + 0.5) * 2 - 0.5)
    assert len(matches) > 200
    assert np.abs(np.median(difference, axis=0)).max() < 0.1


def test_pixel_centres_stay_centres_when_an_image_is_made_smaller_inside(photo: Photo) -> None:
    image = photo(0)
    turbo = GcmMatcher(device="cpu", preset="turbo")  # works on 80 000 pixels at most
    half = np.asarray(cv2.resize(image, (240, 180), interpolation=cv2.INTER_AREA), np.uint8)
    matches = turbo.match(turbo.encode(half), turbo.encode(image))
    difference = matches.query_xy - ((matches.reference_xy + 0.5) * 2 - 0.5)
    assert len(matches) > 100
    assert np.abs(np.median(difference, axis=0)).max() < 0.1
    assert matches.warp.xy.shape == (180, 240, 2)


def test_a_mask_holds_below_the_pixel_and_in_the_warp(gcm: GcmMatcher, photo: Photo, carried: Callable) -> None:
    image = photo(0)
    other, _ = carried(image, 1.1, (-13.3, -9.8))
    rng = np.random.default_rng(0)
    masks = [np.asarray(cv2.resize(rng.random((24, 32)), (480, 360)) > 0.4, np.bool_) for _ in range(2)]
    matches = gcm.match(gcm.encode(image, mask=masks[0]), gcm.encode(other, mask=masks[1]), max_matches=None)
    assert len(matches) > 100
    for xy, mask in ((matches.reference_xy, masks[0]), (matches.query_xy, masks[1])):
        x, y = np.floor(xy + 0.5).astype(int).T
        assert mask[y, x].all()
    assert (matches.warp.certainty[~masks[0]] == 0).all()
    x, y = np.floor(matches.warp.xy[matches.warp.certainty > 0] + 0.5).astype(int).T
    assert masks[1][y, x].all()


def test_overlap_is_measured_where_the_mask_allows(gcm: GcmMatcher, photo: Photo) -> None:
    image, mask = photo(0), np.zeros((360, 480), np.bool_)
    mask[:, 240:] = True
    whole, half = gcm.encode(image), gcm.encode(image, mask=mask)
    assert gcm.match(half, half).overlap == pytest.approx(gcm.match(whole, whole).overlap, abs=0.15)


@pytest.mark.parametrize("value", [0, 255])
def test_blank_images_match_nothing(gcm: GcmMatcher, photo: Photo, value: int) -> None:
    image = photo(0)
    blank = Sensor().expose(np.full_like(image, value), 0)
    for first, second in ((image, blank), (blank, image), (blank, blank)):
        matches = gcm.match(gcm.encode(first), gcm.encode(second))
        assert matches.overlap < 0.05
        assert len(matches) < 40


def test_noise_matches_nothing(gcm: GcmMatcher) -> None:
    noise = [np.random.default_rng(s).integers(0, 256, (240, 320, 3)).astype(np.uint8) for s in (0, 1)]
    assert gcm.match(gcm.encode(noise[0]), gcm.encode(noise[1])).overlap < 0.05


@pytest.mark.usefixtures("shipped_filter")
def test_unrelated_pictures_have_no_overlap(gcm: GcmMatcher, photo: Photo) -> None:
    assert gcm.match(gcm.encode(photo(0)), gcm.encode(photo(1))).overlap < 0.05


def test_exposure_changes_little(gcm: GcmMatcher, photo: Photo) -> None:
    image = photo(0)
    darker = (0.5 * image + 10).astype(np.uint8)
    matches = gcm.match(gcm.encode(image), gcm.encode(darker))
    assert len(matches) > 300
    assert np.median(np.linalg.norm(matches.query_xy - matches.reference_xy, axis=1)) < 0.1


@pytest.mark.parametrize("stage", ["refinement", "growth", "filter", "hypotheses"])
def test_every_stage_can_be_switched_off(photo: Photo, carried: Callable, stage: str) -> None:
    image = photo(0, 240, 180)
    other, affine = carried(image, 1.1, (-13.3, -9.8))
    matcher = GcmMatcher(device="cpu", **{stage: False})
    matches = matcher.match(matcher.encode(image), matcher.encode(other))
    error = np.linalg.norm(carry(affine, matches.reference_xy) - matches.query_xy, axis=1)
    assert len(matches) > 30
    assert np.median(error) < 1.5


def test_an_unknown_option_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ValueError, match=r"unknown option 'min_scor' of gcm: did you mean 'min_score'\?"):
        GcmMatcher(device="cpu", weights="random", min_scor=0.2)
