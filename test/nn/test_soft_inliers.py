"""The soft inlier count: which transformation a correlation speaks for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ros2_densematch.nn.soft_inliers import (
    OFFSET_FACTOR,
    composed_feature_grid,
    feature_grid,
    identity_mask,
    inlier_mask,
    soft_inlier_count,
    weak_alignment_loss,
)
from ros2_densematch.nn.transformations import identity

STILL = identity(6)[None]
LEVEL = identity(18)[None]


def shifted(cells: float) -> Tensor:
    """The affine map that looks so many cells to the right."""
    step = 2 / 14 / OFFSET_FACTOR
    return torch.tensor([[1.0, 0, cells * step, 0, 1, 0]])


def test_a_perfect_correlation_counts_every_cell() -> None:
    perfect = identity_mask(like=STILL)
    torch.testing.assert_close(
        soft_inlier_count(perfect, feature_grid(STILL), normalised=False), torch.tensor([225.0]), rtol=1e-3, atol=0
    )
    normalised = soft_inlier_count(perfect, feature_grid(STILL))
    assert 0.97 < float(normalised) < 1.0  # the 1e-5 of every one of 50,625 entries


@pytest.mark.parametrize("cells", [1.0, 2.0])
def test_the_count_is_largest_for_the_shift_that_the_correlation_shows(cells: float) -> None:
    shown = inlier_mask(feature_grid(shifted(cells)))
    counts = {d: float(soft_inlier_count(shown, feature_grid(shifted(d)), normalised=False)) for d in (0, 1, 2, 3)}
    assert max(counts, key=lambda d: counts[d]) == cells
    torch.testing.assert_close(counts[int(cells)], 15 * (15 - cells), rtol=2e-2, atol=0)


def test_neighbours_count_with_a_dilated_mask() -> None:
    sums = [identity_mask(dilation=d, like=STILL)[0, 7 + 15 * 7].sum() for d in (0, 1, 2)]
    assert [float(s) for s in sums] == [1, 5, 9]
    with pytest.raises(ValueError, match="dilation must be 0, 1"):
        identity_mask(dilation=3, like=STILL)


def test_an_identity_spline_changes_a_composition_only_at_the_rim() -> None:
    affine = shifted(0.5)
    composed, plain = composed_feature_grid(affine, LEVEL), feature_grid(affine)
    torch.testing.assert_close(composed[:, 2:-2, 2:-2], plain[:, 2:-2, 2:-2], rtol=0, atol=1e-4)


def test_the_loss_moves_the_parameters_towards_the_shown_shift() -> None:
    shown = inlier_mask(feature_grid(shifted(1.0)))
    affine, tps = shifted(0.6).requires_grad_(), (LEVEL.clone()).requires_grad_()
    correlation = shown.clone().requires_grad_()
    loss = weak_alignment_loss(correlation, affine, tps)
    loss.backward()
    assert affine.grad is not None
    assert float(affine.grad[0, 2]) < 0, "further to the right"
    assert tps.grad is not None
    assert torch.isfinite(tps.grad).all()
    assert correlation.grad is not None
    assert correlation.grad.abs().sum() > 0
