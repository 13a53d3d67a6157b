"""Guided matches of `gcm`: as exact as full ones, without a pass of the network, and only where something is seen."""

from __future__ import annotations

from unittest.mock import patch

import cv2
import numpy as np
import pytest

from ros2_densematch.matchers.gcm import encoding as gcm_encoding
from ros2_densematch.matchers.gcm.matcher import GcmMatcher
from ros2_densematch.matchers.prior import Prior
from ros2_densematch.simulation.passes import PassFrame, errors, fly_pass
from ros2_densematch.simulation.worlds import tabletop

FRAMES = 6


@pytest.fixture(scope="module")
def matcher() -> GcmMatcher:
    return GcmMatcher(device="cpu")


@pytest.fixture(scope="module")
def frames() -> list[PassFrame]:
    return fly_pass(tabletop(3), "plain", seed=1, frames=FRAMES, width=480)


def test_a_pass_is_followed_without_the_network_and_exactly(matcher: GcmMatcher, frames: list[PassFrame]) -> None:
    with patch.object(gcm_encoding, "_described", side_effect=AssertionError("the network ran")):
        reference = previous = matcher.encode(frames[0].image)
        prior = Prior.at_rest(matcher.guide_points(reference), reference)
        for i in range(1, FRAMES):
            query = matcher.encode(frames[i].image)
            matches = matcher.match(reference, query, prior=prior)
            prior, previous = Prior.from_previous(matches, query), query
    assert previous is not reference
    error, hidden = errors(frames[0], frames[-1], matches.reference_xy.astype(float), matches.query_xy.astype(float))
    known = np.isfinite(error)
    assert known.sum() > 250
    assert np.median(error[known]) < 0.2
    assert (error[known] > 3).mean() + hidden.mean() < 0.02
    assert matches.overlap > 0.5


def test_points_keep_their_places_in_the_reference(matcher: GcmMatcher, frames: list[PassFrame]) -> None:
    reference, first, second = (matcher.encode(frames[i].image) for i in range(3))
    points = matcher.guide_points(reference)
    one = matcher.match(reference, first, prior=Prior.at_rest(points, reference))
    two = matcher.match(reference, second, prior=Prior.from_previous(one, first))
    known = {tuple(xy) for xy in points.tolist()}
    assert {tuple(xy) for xy in one.reference_xy.tolist()} <= known
    assert {tuple(xy) for xy in two.reference_xy.tolist()} <= known


def test_two_runs_are_identical(matcher: GcmMatcher, frames: list[PassFrame]) -> None:
    results = []
    for _ in range(2):
        reference, query = (matcher.encode(f.image) for f in frames[:2])
        results.append(matcher.match(reference, query, prior=Prior.at_rest(matcher.guide_points(reference), reference)))
    np.testing.assert_array_equal(results[0].query_xy, results[1].query_xy)
    np.testing.assert_array_equal(results[0].score, results[1].score)


def test_masked_pixels_are_touched_by_no_patch(matcher: GcmMatcher, frames: list[PassFrame]) -> None:
    mask = np.ones(frames[0].image.shape[:2], np.bool_)
    mask[100:220, 200:330] = False
    reference, query = (matcher.encode(f.image, mask=mask) for f in frames[:2])
    matches = matcher.match(reference, query, prior=Prior.at_rest(matcher.guide_points(reference), reference))
    assert len(matches) > 100
    for xy in (matches.reference_xy, matches.query_xy):
        x, y = np.rint(xy).astype(int).T
        for dx in (-6, 0, 6):
            for dy in (-6, 0, 6):
                assert mask[y + dy, x + dx].all()


def test_a_frame_that_shows_something_else_gets_hardly_a_match(matcher: GcmMatcher, frames: list[PassFrame]) -> None:
    reference = matcher.encode(frames[0].image)
    other = matcher.encode(np.ascontiguousarray(frames[0].image[::-1, ::-1]))
    matches = matcher.match(reference, other, prior=Prior.at_rest(matcher.guide_points(reference), reference))
    assert matches.score.sum() < 10
    assert matches.overlap < 0.1


def test_a_homography_guides_without_a_frame_before(matcher: GcmMatcher, frames: list[PassFrame]) -> None:
    image = frames[0].image
    turned = np.ascontiguousarray(np.rot90(image, 2))
    height, width = image.shape[:2]
    H = np.array([[-1.0, 0, width - 1 + 2.5], [0, -1, height - 1 - 2.0], [0, 0, 1]])  # some pixels beside the truth
    reference, query = matcher.encode(image), matcher.encode(turned)
    matches = matcher.match(
        reference, query, prior=Prior.from_homography(matcher.guide_points(reference), H, sigma=6.0)
    )
    assert len(matches) > 200
    exact = np.array([width - 1, height - 1]) - matches.reference_xy
    assert np.median(np.linalg.norm(matches.query_xy - exact, axis=1)) < 0.05


def test_a_low_score_before_bounds_the_score_now(matcher: GcmMatcher, frames: list[PassFrame]) -> None:
    reference, query = (matcher.encode(f.image) for f in frames[:2])
    points = matcher.guide_points(reference)
    rest = Prior.at_rest(points, reference)
    doubted = Prior(
        rest.reference_xy,
        rest.query_xy,
        rest.sigma,
        rest.linear,
        np.full(len(rest), 0.5),
        rest.previous,
        rest.previous_xy,
        rest.previous_linear,
    )
    free = matcher.match(reference, query, prior=rest)
    bounded = matcher.match(reference, query, prior=doubted)
    bound = 1 / (1 + np.exp(-1.0))  # the logit of the score before, and one frame's evidence
    assert np.median(free.score) > 0.9
    of_points = np.isin(
        bounded.reference_xy[:, 0] * 1e4 + bounded.reference_xy[:, 1], points[:, 0] * 1e4 + points[:, 1]
    )
    assert np.quantile(bounded.score[of_points], 0.5) <= bound + 1e-6


def test_the_network_runs_once_when_it_is_first_asked(matcher: GcmMatcher, frames: list[PassFrame]) -> None:
    encoding = matcher.encode(frames[0].image)
    assert not encoding.data.described
    first = encoding.data.keypoints
    assert encoding.data.described
    assert encoding.data.keypoints is first


def test_a_leap_of_the_camera_is_followed_where_the_prior_says_that_it_may_be_one(
    matcher: GcmMatcher, frames: list[PassFrame]
) -> None:
    image = frames[0].image
    height, width = image.shape[:2]
    turned = cv2.getRotationMatrix2D((width / 2, height / 2), 25.0, 1.0)
    turned[:, 2] += 60.0, -30.0
    moved = cv2.warpAffine(image, turned, (width, height))
    reference, query = matcher.encode(image), matcher.encode(moved)
    points = matcher.guide_points(reference)
    found = {
        sigma: matcher.match(reference, query, prior=Prior.at_rest(points, reference, sigma=sigma))
        for sigma in (12.0, 100.0)
    }
    leaped = found[100.0]
    true = leaped.reference_xy @ turned[:, :2].T + turned[:, 2]
    assert np.median(np.linalg.norm(leaped.query_xy - true, axis=1)) < 0.1
    assert len(leaped) > 250
    assert len(leaped) > 2 * len(found[12.0])
