"""The pair filter: the evidence of the whole pair, and what the filter makes of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ros2_densematch.matchers.gcm.candidates import Candidates
from ros2_densematch.matchers.gcm.match_filter import NEIGHBOURS, Surroundings, match_evidence
from ros2_densematch.matchers.gcm.matcher import GcmMatcher
from ros2_densematch.matchers.gcm.pair_evidence import FEATURES, PairEvidence, pair_evidence
from ros2_densematch.matchers.gcm.pair_filter import PairFilter, PairTensors
from ros2_densematch.matchers.gcm.recurrence import Recurrence, recurrence

LINEAR = np.array([[0.98, -0.1], [0.1, 0.98]])


def pair(count: int, *, astray: int = 0, turn: float = 0.0) -> tuple[Candidates, np.ndarray, Recurrence]:
    """Matches under one map; the `astray` ones nearest to a corner lie 60 px beside their place, as a block."""
    rng = np.random.default_rng(5)
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    linear = spin @ LINEAR
    x0 = rng.uniform(0, [640, 480], (count, 2))
    x1 = x0 @ linear.T + (20.0, 9.0) + rng.normal(0, 0.2, x0.shape)
    order = np.argsort(np.linalg.norm(x0 - (640, 480), axis=1))
    x1[order[:astray]] += (60.0, 0.0) @ spin.T
    found = Candidates(
        x0,
        x1,
        np.broadcast_to(linear, (count, 2, 2)).copy(),
        np.full(count, 0.9),
        np.full(count, 0.1),
        np.full(count, 0.97),
        np.tile([0.1, 0.0, 0.1], (count, 1)),
        np.full(count, 0.3),
        np.zeros(count, np.bool_),
    )
    twins = Recurrence(np.full(count, 0.9), *(np.full(count, 0.5) for _ in range(4)))
    return found, np.full(count, 3.0), twins


def evidence_of(found: Candidates, logit: np.ndarray, twins: Recurrence) -> PairEvidence:
    surroundings = Surroundings.of(found)
    return pair_evidence(found, match_evidence(found, surroundings), logit, twins, surroundings)


@pytest.mark.parametrize("count", [NEIGHBOURS + 1, 30, 500])
def test_evidence_has_a_row_per_match_and_is_finite(count: int) -> None:
    evidence = evidence_of(*pair(count))
    assert evidence.nodes.shape == (count, FEATURES)
    assert evidence.neighbours.shape == (count, NEIGHBOURS)
    assert evidence.group.shape == (count,)
    assert np.isfinite(evidence.nodes).all()


@pytest.mark.parametrize("turn", [0.0, np.pi])
def test_a_block_that_went_astray_is_a_group_of_its_own(turn: float) -> None:
    """Also in front of a camera that lies on its head, where local maps are far from the identity."""
    found, logit, twins = pair(600, astray=40, turn=turn)
    group = evidence_of(found, logit, twins).group
    wrong = np.argsort(np.linalg.norm(found.reference_xy - (640, 480), axis=1))[:40]
    right = np.setdiff1d(np.arange(600), wrong)
    largest = np.bincount(group[right]).argmax()
    assert (group[right] == largest).mean() > 0.95
    assert (group[wrong] != largest).mean() > 0.9


def test_evidence_does_not_depend_on_the_place_in_the_image() -> None:
    found, logit, twins = pair(300, astray=30)
    first = evidence_of(found, logit, twins).nodes
    found.reference_xy = found.reference_xy + np.array([400.0, 100.0])
    found.query_xy = found.query_xy + np.array([-70.0, 900.0])
    second = evidence_of(found, logit, twins).nodes
    # the robust fits draw the same samples but round elsewhere
    assert np.median(np.abs(first - second)) < 1e-3
    assert np.mean(np.abs(first - second) > 0.1) < 0.02


@torch.inference_mode()
def test_the_order_of_the_matches_does_not_matter_to_the_network() -> None:
    tensors = PairTensors.of(evidence_of(*pair(200, astray=20)))
    model = PairFilter().eval()
    order = torch.from_numpy(np.random.default_rng(1).permutation(200))
    where = torch.empty_like(order)
    where[order] = torch.arange(200)
    mixed = PairTensors(tensors.nodes[order], where[tensors.neighbours[order]], tensors.group[order])
    torch.testing.assert_close(model(mixed), model(tensors)[order], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    rng = np.random.default_rng(2)
    return rng.integers(0, 256, (30, 40, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)


@torch.inference_mode()
def test_what_stands_twice_in_an_image_recurs(gcm: GcmMatcher, photo: np.ndarray) -> None:
    twice = np.concatenate([photo[:, :160], photo[:, :160]], 1)
    once, both = gcm.encode(photo).data, gcm.encode(twice).data
    alone, recurs = (
        recurrence(image, image, at, at)
        for image in (once, both)
        for at in [image.keypoints[:200].numpy().astype(float)]
    )
    np.testing.assert_allclose(alone.own, 1.0, atol=1e-5)
    assert np.median(recurs.reference) > np.quantile(alone.reference, 0.9)
    np.testing.assert_allclose(recurs.forward, recurs.reference, atol=1e-5)


def test_few_matches_are_few(gcm: GcmMatcher, photo: np.ndarray) -> None:
    """An image of noise shares nothing with the photo: no match is believed, and none is added to make up a number."""
    noise = np.random.default_rng(9).integers(0, 256, photo.shape).astype(np.uint8)
    matches = gcm.match(gcm.encode(photo), gcm.encode(noise))
    assert len(matches) < 20
    assert (matches.score >= gcm.config.min_score).all()
