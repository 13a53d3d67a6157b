"""ConDL: descriptors of any sampling rate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from ros2_densematch.matchers.base import Image
from ros2_densematch.matchers.condl.alignment import align, interpolate
from ros2_densematch.matchers.condl.matcher import CondlMatcher, grid_points
from ros2_densematch.matchers.r2d2 import PRESETS, R2d2Matcher
from ros2_densematch.nn.condl import CondlNetwork


def test_the_network_has_ten_layers_and_128_channels() -> None:
    network = CondlNetwork().eval()
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 10
    assert {c.out_channels for c in convolutions} == {128}
    with torch.inference_mode():
        drawn = network(torch.randn(1, 3, 32, 48))
    assert drawn.shape == (1, 128, 16, 24)
    assert torch.allclose(drawn.norm(dim=1), torch.ones(1, 16, 24), atol=1e-5)


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
    drawn = nn.functional.normalize(torch.randn(5, 7, 8), dim=2)
    x, y = torch.meshgrid(torch.arange(7), torch.arange(5), indexing="xy")
    xy = torch.stack([x.reshape(-1), y.reshape(-1)], 1) * 2 + 0.5
    assert torch.allclose(interpolate(drawn, xy), drawn.view(-1, 8), atol=1e-5)


def test_beyond_the_rim_the_outermost_descriptors_go_on() -> None:
    drawn = nn.functional.normalize(torch.randn(1, 3, 8), dim=2)
    found = interpolate(drawn, torch.tensor([[-3.0, 0.0], [99.0, 5.0]]))
    assert torch.allclose(found, drawn[0, [0, 2]], atol=1e-5)


def test_alignment_finds_the_place_of_a_descriptor_between_the_samples() -> None:
    torch.manual_seed(0)
    drawn = nn.functional.normalize(torch.randn(30, 40, 64), dim=2)
    truth = torch.rand(200, 2) * torch.tensor([70.0, 50.0]) + 4
    start = truth + (torch.rand(200, 2) - 0.5) * 4
    aligned = align(drawn, interpolate(drawn, truth), start, 2)
    error = (aligned.xy - truth).norm(dim=1)
    assert error.median() < 0.01
    assert (error < 0.2).float().mean() > 0.95
    assert (torch.linalg.eigvalsh(aligned.information) > 0).all()


def test_alignment_stays_where_nothing_differs() -> None:
    drawn = nn.functional.normalize(torch.ones(9, 9, 4), dim=2)
    start = torch.tensor([[7.0, 8.0], [3.3, 9.1]])
    aligned = align(drawn, drawn[0, 0].expand(2, 4), start, 4)
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
        ({"step": 0.1}, r"step must lie in 0\.5\.\.256 pixels, got 0\.1"),
        ({"detector": "orb"}, r"unknown detector 'orb' of condl: choose grid or sift"),
        ({"least_similarity": 1.0}, r"least_similarity must lie in \[-1, 1\), got 1\.0"),
    ],
)
def test_wrong_options_are_refused(options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CondlMatcher(device="cpu", weights="random", **options)


def test_there_are_no_weights_to_fetch_and_that_is_said() -> None:
    with pytest.raises(FileNotFoundError, match="no weights of condl ship and none are published"):
        CondlMatcher(device="cpu")


def test_r2d2_refuses_thresholds_that_are_no_shares() -> None:
    with pytest.raises(ValueError, match=r"least_reliability must lie in \[0, 1\], got 2"):
        R2d2Matcher(device="cpu", weights="random", least_reliability=2)
    assert {entry[1] for entry in PRESETS.values()} == {"faster2d2_WASF_N16", "r2d2_WASF_N16", "r2d2_WASF_N8_big"}
