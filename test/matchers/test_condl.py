"""ConDL: descriptors of any sampling rate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from ros2_densematch.arrays import Image
from ros2_densematch.matchers.condl.alignment import align, interpolate
from ros2_densematch.matchers.condl.matcher import CondlMatcher, grid_points
from ros2_densematch.matchers.r2d2.config import CHECKPOINTS
from ros2_densematch.matchers.r2d2.matcher import R2d2Matcher
from ros2_densematch.nn.condl import CondlNetwork


def test_the_network_has_ten_layers_and_128_channels() -> None:
    network = CondlNetwork().eval()
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 10
    assert {c.out_channels for c in convolutions} == {128}
    with torch.inference_mode():
        feature_map = network(torch.randn(1, 3, 32, 48))
    assert feature_map.shape == (1, 128, 16, 24)
    assert torch.allclose(feature_map.norm(dim=1), torch.ones(1, 16, 24), atol=1e-5)


def test_a_descriptor_sees_126_pixels() -> None:
    torch.manual_seed(0)
    network = CondlNetwork(channels=8).eval()
    image = torch.randn(1, 3, 160, 160, requires_grad=True)
    network(image)[0, :, 40, 40].abs().sum().backward()
    assert image.grad is not None
    seen = image.grad[0].abs().sum(0).nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [126, 126]


@pytest.mark.parametrize("step", [0.5, 1.0, 3.3, 8.0, 200.0])
def test_a_grid_of_any_step_fills_the_image_evenly(step: float) -> None:
    points = grid_points(97, 64, step).numpy()
    assert len(points) == max(1, int(97 / step)) * max(1, int(64 / step))
    assert np.allclose(points.min(0) + points.max(0), [96, 63]), "both rims are equally far"
    assert (points >= -0.5).all()
    assert (points <= [96.5, 63.5]).all()


def test_sampling_at_cell_centres_gives_the_cells_themselves() -> None:
    feature_map = nn.functional.normalize(torch.randn(5, 7, 8), dim=2)
    x, y = torch.meshgrid(torch.arange(7), torch.arange(5), indexing="xy")
    xy = torch.stack([x.reshape(-1), y.reshape(-1)], 1) * 2 + 0.5
    assert torch.allclose(interpolate(feature_map, xy), feature_map.view(-1, 8), atol=1e-5)


def test_beyond_the_rim_the_outermost_descriptors_go_on() -> None:
    feature_map = nn.functional.normalize(torch.randn(1, 3, 8), dim=2)
    found = interpolate(feature_map, torch.tensor([[-3.0, 0.0], [99.0, 5.0]]))
    assert torch.allclose(found, feature_map[0, [0, 2]], atol=1e-5)


def test_alignment_finds_the_place_of_a_descriptor_between_the_samples() -> None:
    torch.manual_seed(0)
    feature_map = nn.functional.normalize(torch.randn(30, 40, 64), dim=2)
    truth = torch.rand(200, 2) * torch.tensor([70.0, 50.0]) + 4
    start = truth + (torch.rand(200, 2) - 0.5) * 4
    aligned = align(feature_map, interpolate(feature_map, truth), start, 2)
    error = (aligned.xy - truth).norm(dim=1)
    assert error.median() < 0.01
    assert (error < 0.2).float().mean() > 0.95
    assert (torch.linalg.eigvalsh(aligned.information) > 0).all()


def test_alignment_stays_where_nothing_differs() -> None:
    feature_map = nn.functional.normalize(torch.ones(9, 9, 4), dim=2)
    start = torch.tensor([[7.0, 8.0], [3.3, 9.1]])
    aligned = align(feature_map, feature_map[0, 0].expand(2, 4), start, 4)
    assert torch.equal(aligned.xy, start)
    assert aligned.information.isfinite().all()


@pytest.mark.parametrize(("step", "detector"), [(6.0, "grid"), (2.5, "grid"), (None, "sift")])
def test_a_shifted_copy_is_found_at_any_rate(photo: Callable[..., Image], step: float | None, detector: str) -> None:
    image = photo(0, 240, 180)
    matcher = CondlMatcher(device="cpu", preset="turbo", weights="random", step=step, detector=detector)
    reference, query = image[:150, :200].copy(), image[30:, 40:].copy()
    matches = matcher.match(matcher.encode(reference), matcher.encode(query))
    error = np.abs(matches.query_xy - matches.reference_xy + [40, 30]).max(1)
    assert (error < (step or 1.0)).sum() > 60
    assert np.median(error) < (step or 1.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"step": 0.1}, r"condl\.step = 0\.1: input should be greater than or equal to 0\.5"),
        ({"detector": "orb"}, r"condl\.detector = 'orb': input should be 'grid' or 'sift'"),
        ({"min_similarity": 1.0}, r"condl\.min_similarity = 1\.0: input should be less than 1"),
    ],
)
def test_wrong_options_are_refused(options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CondlMatcher(device="cpu", weights="random", **options)


@pytest.fixture(scope="module")
def shipped() -> CondlMatcher:
    return CondlMatcher(device="cpu")


def test_the_shipped_weights_match_an_enlarged_and_shifted_copy(
    photo: Callable[..., Image], carried: Callable, shipped: CondlMatcher
) -> None:
    image = photo(0)
    other, affine = carried(image, 1.25, (-40.3, -33.7))
    matches = shipped.match(shipped.encode(image, reference=True), shipped.encode(other), max_matches=1000)
    truth = matches.reference_xy.astype(np.float64) @ affine[:, :2].T + affine[:, 2]
    error = np.linalg.norm(truth - matches.query_xy, axis=1)
    assert len(matches) > 300
    assert np.median(error) < 0.25
    assert (error < 2).mean() > 0.9
    # two degrees of freedom: the median of a calibrated estimate is 1.39; within a factor of three in sigma is honest
    xx, xy, yy = matches.precision.T.astype(np.float64)
    off = matches.query_xy - truth
    squared = xx * off[:, 0] ** 2 + 2 * xy * off[:, 0] * off[:, 1] + yy * off[:, 1] ** 2
    assert 1.39 / 9 < np.median(squared) < 1.39 * 9


def test_the_shipped_weights_match_a_copy_shifted_between_pixels(
    photo: Callable[..., Image], carried: Callable, shipped: CondlMatcher
) -> None:
    image = photo(1)
    other, affine = carried(image, 1.0, (7.4, -5.7))
    matches = shipped.match(shipped.encode(image, reference=True), shipped.encode(other), max_matches=1000)
    error = np.linalg.norm(matches.reference_xy + affine[:, 2] - matches.query_xy, axis=1)
    assert np.median(error) < 0.25


@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_the_shipped_weights_are_silent_where_there_is_nothing_to_match(
    photo: Callable[..., Image], shipped: CondlMatcher, noise: float
) -> None:
    grey = 128 + noise * np.random.default_rng(0).standard_normal((360, 480, 1))
    blank = np.repeat(np.round(grey), 3, axis=2).astype(np.uint8)
    for pair in ((blank, photo(0)), (photo(0), blank), (blank, blank[::-1].copy())):
        matches = shipped.match(*(shipped.encode(image) for image in pair))
        assert len(matches) == 0 or matches.overlap < 0.05


def test_r2d2_refuses_thresholds_that_are_no_shares() -> None:
    with pytest.raises(ValueError, match=r"r2d2\.min_reliability = 2: input should be less than or equal to 1"):
        R2d2Matcher(device="cpu", weights="random", min_reliability=2)
    assert {config.variant for config in R2d2Matcher.PRESETS.values()} == set(CHECKPOINTS)
