"""Mutual nearest neighbours in blocks are exactly those of the whole similarity matrix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ros2_densematch.matchers.common.nearest_neighbours import mutual_with_margin


def descriptors(count: int, seed: int, size: int = 16) -> Tensor:
    return functional.normalize(torch.randn(count, size, generator=torch.Generator().manual_seed(seed)), dim=1)


def from_the_whole_matrix(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    similarity = a @ b.T
    forward, backward = similarity.argmax(1), similarity.argmax(0)
    first = torch.nonzero(backward[forward] == torch.arange(len(a)))[:, 0]
    second = forward[first]
    rows, columns = similarity.topk(2, 1)[0], similarity.topk(2, 0)[0]
    margin = torch.minimum((rows[:, 0] - rows[:, 1])[first], (columns[0] - columns[1])[second])
    return first, second, similarity[first, second], margin


@pytest.mark.parametrize(("first", "second"), [(2, 2), (7, 300), (1024, 500), (1025, 900), (2600, 3100)])
def test_blocks_change_nothing(first: int, second: int) -> None:
    a, b = descriptors(first, 1), descriptors(second, 2)
    found = mutual_with_margin(a, b)
    expected = from_the_whole_matrix(a, b)
    assert len(found.first) > 0
    assert torch.equal(found.first, expected[0])
    assert torch.equal(found.second, expected[1])
    # a product of another shape may differ in the last bit
    torch.testing.assert_close(found.similarity, expected[2], rtol=0, atol=1e-6)
    torch.testing.assert_close(found.margin, expected[3], rtol=0, atol=1e-6)


def test_no_descriptor_is_matched_twice() -> None:
    found = mutual_with_margin(descriptors(1500, 3, size=3), descriptors(1400, 4, size=3))
    assert len(found.first.unique()) == len(found.first)
    assert len(found.second.unique()) == len(found.second)
    assert (found.margin >= 0).all()


def test_a_permutation_is_found_whole() -> None:
    a = descriptors(3000, 5, size=64)
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(6))
    found = mutual_with_margin(a, a[order])
    assert torch.equal(order[found.second], found.first)
    assert len(found.first) == 3000


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 5), (5, 0), (1, 5), (5, 1), (1, 1)])
def test_too_few_to_compare_give_nothing(first: int, second: int) -> None:
    found = mutual_with_margin(descriptors(first, 1), descriptors(second, 2))
    assert [len(part) for part in found] == [0, 0, 0, 0]


def test_the_inputs_stay_as_they_are() -> None:
    a, b = descriptors(50, 1), descriptors(60, 2)
    before = a.clone(), b.clone()
    mutual_with_margin(a, b)
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])
