"""The search of descriptors around a prediction: one step down the pyramid."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ros2_densematch.matchers.gcm.growth import search_descriptors


def descriptors(seed: int, *shape: int) -> Tensor:
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def centre(column: int, row: int) -> list[float]:
    """Pixel at the centre of a cell of stride 4."""
    return [4 * column + 1.5, 4 * row + 1.5]


def test_the_cell_with_the_descriptor_is_found_within_the_window() -> None:
    query = descriptors(0, 20, 30, 32)
    reference = query[torch.tensor([5, 12, 9]), torch.tensor([7, 3, 28])]
    predicted = torch.tensor([centre(8, 4), centre(5, 14), centre(28, 9)])
    found, similarity = search_descriptors(reference, query, predicted, radius=2)
    assert found.tolist() == [centre(7, 5), centre(3, 12), centre(28, 9)]
    torch.testing.assert_close(similarity, torch.ones(3))


def test_what_lies_beyond_the_window_is_not_found() -> None:
    query = descriptors(0, 20, 30, 32)
    found, similarity = search_descriptors(query[5, 7][None], query, torch.tensor([centre(11, 5)]), radius=2)
    assert found.tolist() != [centre(7, 5)]
    assert similarity[0] < 0.9


def test_an_offset_within_the_cell_is_kept() -> None:
    query = descriptors(0, 20, 30, 32)
    found, _ = search_descriptors(query[5, 7][None], query, torch.tensor([[4 * 8 + 0.25, 4 * 5 + 2.75]]))
    assert found.tolist() == [[4 * 7 + 0.25, 4 * 5 + 2.75]]


def test_of_equal_places_the_prediction_is_kept() -> None:
    query = descriptors(1, 1, 1, 8).expand(10, 12, 8)
    predicted = torch.tensor([[20.3, 17.8], [0.0, 0.0], [47.0, 39.0]])
    found, _ = search_descriptors(query[0, 0].expand(3, 8), query, predicted)
    torch.testing.assert_close(found, predicted)


def test_a_place_further_away_must_be_clearly_better() -> None:
    near, far = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.1])
    query = torch.zeros(9, 9, 2)
    query[4, 4], query[4, 6] = functional.normalize(near, dim=0), functional.normalize(far, dim=0)
    reference = functional.normalize(far, dim=0)[None]
    at = torch.tensor([centre(4, 4)])
    assert search_descriptors(reference, query, at, pull=0.02)[0].tolist() == [centre(4, 4)]
    assert search_descriptors(reference, query, at, pull=0.0)[0].tolist() == [centre(6, 4)]


def test_nothing_to_search_gives_nothing() -> None:
    found, similarity = search_descriptors(torch.zeros(0, 8), descriptors(0, 5, 5, 8), torch.zeros(0, 2))
    assert found.shape == (0, 2)
    assert similarity.shape == (0,)
