"""The learned match filter: what it sees of a match, and what it may not depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ros2_densematch.matchers.gcm.candidates import Candidates
from ros2_densematch.matchers.gcm.match_filter import (
    EDGE_FEATURES,
    NEIGHBOURS,
    NODE_FEATURES,
    MatchFilter,
    match_graph,
)
from ros2_densematch.matchers.gcm.matcher import GcmMatcher


def candidates(count: int, *, wrong: float = 0.0, seed: int = 0) -> Candidates:
    """Candidates under one shift and small turn; a share of them is moved elsewhere."""
    rng = np.random.default_rng(seed)
    x0 = rng.uniform(0, [640, 480], (count, 2))
    linear = np.array([[0.99, -0.08], [0.08, 0.99]])
    x1 = x0 @ linear.T + (12.0, -7.0) + rng.normal(0, 0.2, x0.shape)
    moved = rng.random(count) < wrong
    x1[moved] = rng.uniform(0, [640, 480], (int(moved.sum()), 2))
    return Candidates(
        x0,
        x1,
        np.broadcast_to(linear, (count, 2, 2)).copy(),
        rng.uniform(0.7, 0.95, count),
        rng.uniform(0, 0.3, count),
        rng.uniform(0.8, 0.99, count),
        np.stack([rng.uniform(0.05, 0.2, count), np.zeros(count), rng.uniform(0.05, 0.2, count)], 1),
        rng.uniform(0, 1, count),
        rng.random(count) < 0.3,
    )


@pytest.fixture(scope="module")
def untrained() -> MatchFilter:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return MatchFilter().eval()


@pytest.mark.parametrize("count", [4, 5, 9, 300])
def test_a_graph_has_a_node_per_match_and_finite_features(count: int) -> None:
    graph = match_graph(candidates(count, wrong=0.3))
    assert graph.nodes.shape == (count, NODE_FEATURES)
    assert graph.neighbours.shape == (count, NEIGHBOURS)
    assert graph.edges.shape == (count, NEIGHBOURS, EDGE_FEATURES)
    assert torch.isfinite(graph.nodes).all()
    assert torch.isfinite(graph.edges).all()
    assert graph.neighbours.min() >= 0
    assert graph.neighbours.max() < count
    assert (graph.neighbours != torch.arange(count)[:, None]).all(), "no match is its own neighbour"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_matches_give_an_empty_graph(count: int, untrained: MatchFilter) -> None:
    graph = match_graph(candidates(count))
    assert len(graph.nodes) == len(graph.neighbours) == len(graph.edges) == 0
    assert untrained(graph).shape == (0,)


def test_too_few_matches_are_scored_0() -> None:
    matcher = GcmMatcher(device="cpu", weights="random")
    image = matcher.encode(np.zeros((64, 64, 3), np.uint8)).data
    assert matcher.score(image, image, candidates(3)).tolist() == [0, 0, 0]


@torch.inference_mode()
def test_the_order_of_the_matches_does_not_matter(untrained: MatchFilter) -> None:
    found = candidates(200, wrong=0.3)
    order = np.random.default_rng(1).permutation(200)
    first, second = untrained(match_graph(found)), untrained(match_graph(found.select(order)))
    torch.testing.assert_close(second, first[torch.from_numpy(order)], rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_the_place_in_the_image_does_not_matter(untrained: MatchFilter) -> None:
    found, shifted = candidates(200, wrong=0.3), candidates(200, wrong=0.3)
    shifted.reference_xy = shifted.reference_xy + np.array([1000.0, 300.0])
    shifted.query_xy = shifted.query_xy + np.array([50.0, 700.0])
    first, second = untrained(match_graph(found)), untrained(match_graph(shifted))
    torch.testing.assert_close(second, first, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("shipped_filter")
def test_the_shipped_filter_tells_matches_that_contradict_their_neighbours(gcm: GcmMatcher) -> None:
    found = candidates(400, wrong=0.3)
    expected = found.reference_xy @ np.array([[0.99, 0.08], [-0.08, 0.99]]) + (12.0, -7.0)
    far = np.linalg.norm(found.query_xy - expected, axis=1) > 20
    logit = gcm.first_logit(found)
    assert logit is not None
    score = 1 / (1 + np.exp(-logit))
    assert ((score >= 0) & (score <= 1)).all()
    assert np.median(score[far]) < 0.1
    assert np.median(score[~far]) > 0.5
