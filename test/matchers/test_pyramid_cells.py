"""DFM's and GCM's steps down the pyramid, on maps whose matches are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ros2_densematch.matchers.common.pyramid.cells import ACCEPT_ALL, PyramidMatches, match_cells, refine_cells
from ros2_densematch.matchers.common.pyramid.homography import carried_back, initial_homography, inside, warped
from ros2_densematch.matchers.dfm.matcher import DfmMatcher
from ros2_densematch.nn.vgg_maps import VggMaps


def codes(rows: int, columns: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(32, rows, columns, generator=generator)


def cells(*xy: tuple[int, int]) -> Tensor:
    return torch.tensor(xy).view(-1, 2)


def test_equal_maps_match_cell_by_cell_without_the_border() -> None:
    found = match_cells(codes(6, 8), codes(6, 8), 0.9)
    assert torch.equal(found.reference, found.query)
    assert sorted(map(tuple, found.reference.tolist())) == sorted((x, y) for x in range(1, 7) for y in range(1, 5))
    assert found.ratio.abs().max() < 1e-4


def test_a_cell_that_occurs_twice_fails_the_ratio_test() -> None:
    query = codes(6, 8)
    noise = codes(1, 2, seed=1)[:, 0] / 10
    query[:, 2, 3] = query[:, 4, 5] + noise[:, 0] * noise[:, 1].norm() / noise[:, 0].norm()
    query[:, 4, 5] += noise[:, 1]
    kept = {tuple(xy) for xy in match_cells(codes(6, 8), query, 0.9).reference.tolist()}
    assert (5, 4) not in kept
    everything = {tuple(xy) for xy in match_cells(codes(6, 8), query, 1.0).reference.tolist()}
    assert (5, 4) in everything


def test_children_follow_their_parents_and_at_most_two_stay() -> None:
    fine = codes(8, 8)
    parents = PyramidMatches(cells((1, 1), (2, 2), (1, 2)), cells((1, 1), (2, 2), (1, 2)), torch.ones(3))
    found = refine_cells(parents, fine, fine, 0.9)
    assert torch.equal(found.reference, found.query)
    assert len(found.ratio) == 6
    assert {tuple(xy) for xy in (found.reference // 2).tolist()} == {(1, 1), (2, 2), (1, 2)}


def test_with_fewer_than_four_children_the_parents_stand() -> None:
    parents = PyramidMatches(cells((1, 1)), cells((2, 1)), torch.tensor([0.25]))
    found = refine_cells(parents, codes(8, 8), codes(8, 8), 0.9)
    assert found.reference.tolist() == [[2, 2]]
    assert found.query.tolist() == [[4, 2]]
    assert found.ratio.tolist() == [0.25]


def test_the_accept_all_threshold_keeps_the_two_nearest_of_every_parent() -> None:
    parents = PyramidMatches(cells((1, 1), (2, 2)), cells((2, 2), (1, 1)), torch.ones(2))
    assert len(refine_cells(parents, codes(8, 8), codes(8, 8, seed=1), ACCEPT_ALL).ratio) == 4


def test_no_matches_stay_no_matches() -> None:
    none = match_cells(codes(2, 2), codes(2, 2), 1.0)
    assert len(none.ratio) == 0
    assert len(refine_cells(none, codes(4, 4), codes(4, 4), 0.9).ratio) == 0
    assert np.array_equal(initial_homography(none), np.eye(3))


def test_the_first_homography_maps_query_pixels_onto_reference_pixels() -> None:
    reference = torch.stack(torch.meshgrid(torch.arange(1, 12), torch.arange(1, 9), indexing="xy"), -1).view(-1, 2)
    query = reference + torch.tensor([3, -1])
    found = initial_homography(PyramidMatches(reference, query, torch.ones(len(reference))))
    np.testing.assert_allclose(found / found[2, 2], [[1, 0, -48], [0, 1, 16], [0, 0, 1]], atol=1e-6)
    image = np.zeros((96, 128, 3), np.uint8)
    image[40, 90] = 255
    assert warped(image, found, (128, 96))[56, 42].tolist() == [255, 255, 255]
    np.testing.assert_allclose(carried_back(np.array([[42, 56]]), found), [[90, 40]], atol=1e-6)


def test_bounds_are_checked_with_the_margin_and_as_released() -> None:
    reference = np.array([[20.0, 20], [15, 20], [20, 20], [84, 20]])
    query = np.array([[20.0, 20], [20, 20], [20, 55], [20, 20]])
    sizes = (100, 80), (90, 60)
    assert inside(reference, query, *sizes, margin=16).tolist() == [True, False, False, False]
    assert inside(reference, query, *sizes).all()
    # the released code compares the query's y with the width
    assert inside(reference, query, *sizes, margin=16, as_released=True).tolist() == [True, False, True, False]
    assert not inside(np.array([[1.0, 1]]), np.array([[-0.5, 3]]), *sizes).any()


def test_maps_before_a_relu_keep_their_negative_values() -> None:
    network = VggMaps({2: 7, 0: 8}).eval()
    with torch.inference_mode():
        maps = network(torch.randn(1, 3, 32, 32))
    assert (maps[2] < 0).any()
    assert torch.equal(functional.relu(maps[2]), maps[0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backbone": "vgg16"}, r"dfm\.backbone = 'vgg16': input should be 'vgg19' or 'vgg19_bn'"),
        ({"ratio": 1.5}, r"dfm\.ratio = 1\.5: input should be less than or equal to 1"),
        ({"preset": "huge"}, r"unknown preset 'huge' of dfm"),
    ],
)
def test_wrong_options_are_refused(options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DfmMatcher(device="cpu", weights="random", **options)


def test_the_batch_norm_variant_has_maps_of_the_same_strides() -> None:
    matcher = DfmMatcher(device="cpu", weights="random", backbone="vgg19_bn")
    encoding = matcher.encode_working(np.zeros((40, 50, 3), np.uint8))
    assert {s: tuple(m.shape[1:]) for s, m in encoding.maps.items()} == {
        0: (3, 4),
        16: (3, 4),
        8: (6, 8),
        4: (12, 16),
        2: (24, 32),
        1: (48, 64),
    }
