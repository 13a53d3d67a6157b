"""Images that look alike, by the pooled descriptors of their encodings."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ros2_densematch.matchers.encoding import Encoding
from ros2_densematch.matchers.retrieval import local_descriptors, nearest_pairs, pooled


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_places_are_told_apart_and_an_image_without_descriptors_is_like_none() -> None:
    random = np.random.default_rng(0)
    places = [unit(random.normal(size=(40, 16))) for _ in range(3)]
    sets = [
        unit(place[random.permutation(40)[:30]] + 0.05 * random.normal(size=(30, 16))).astype(np.float32)
        for place in places
        for _ in range(3)
    ]
    vectors = pooled([*sets, np.zeros((0, 16), np.float32)], words=24)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1] * 9 + [0], atol=1e-5)
    pairs = nearest_pairs(vectors, 2)
    assert pairs == [(i, j) for k in (0, 3, 6) for i, j in ((k, k + 1), (k, k + 2), (k + 1, k + 2))]
    np.testing.assert_array_equal(vectors, pooled([*sets, np.zeros((0, 16), np.float32)], words=24))


def test_more_neighbours_than_images_are_all_pairs() -> None:
    assert nearest_pairs(np.eye(3, dtype=np.float32), 9) == [(0, 1), (0, 2), (1, 2)]


def encoding(**data: object) -> Encoding:
    return Encoding("some", (64, 48), SimpleNamespace(**data))


def test_descriptors_are_found_as_lists_and_as_maps() -> None:
    assert local_descriptors(encoding(keypoint_descriptors=torch.ones(900, 8))).shape == (500, 8)
    assert local_descriptors(encoding(descriptors=np.ones((10, 8), np.float32))).shape == (10, 8)
    found = local_descriptors(encoding(features=torch.rand(1, 8, 5, 6)))
    assert found.shape == (30, 8)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    with pytest.raises(ValueError, match="encodings of some hold no descriptors"):
        local_descriptors(encoding(image=np.zeros(3)))
