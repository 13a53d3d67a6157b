"""Affine maps, homographies and thin-plate splines: what they do to points, grids and images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ros2_densematch.nn.transformations import (
    chain_points,
    grid_loss,
    homography_matrix,
    identity,
    kind_of,
    regular_grid,
    resize,
    sample_image,
    transform_points,
)

ALL = [6, 8, 9, 18]
SHIFT = torch.tensor([[1.0, 0, 0.25, 0, 1, -0.5]])


def shaken(parameters: int, *, by: float = 0.1) -> Tensor:
    noise = torch.randn(2, parameters, generator=torch.Generator().manual_seed(parameters))
    return identity(parameters) + by * noise


@pytest.mark.parametrize("parameters", ALL)
def test_the_identity_moves_nothing(parameters: int) -> None:
    theta = identity(parameters)[None]
    grid = regular_grid(5, 7, like=theta)
    torch.testing.assert_close(transform_points(theta, grid, guarded=False), grid, rtol=0, atol=1e-5)
    image = torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        sample_image(image, transform_points(theta, regular_grid(9, 11, like=theta))), image, rtol=0, atol=1e-4
    )


def test_four_corners_fix_a_homography() -> None:
    theta = shaken(8)
    corners = torch.tensor([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
    moved = transform_points(theta, corners[None], guarded=False)
    torch.testing.assert_close(moved, torch.stack([theta[:, :4], theta[:, 4:]], -1), rtol=0, atol=1e-5)
    same = homography_matrix(theta).flatten(1)
    torch.testing.assert_close(transform_points(same, corners[None], guarded=False), moved, rtol=0, atol=1e-5)


def test_a_spline_passes_through_its_control_points_unless_regularised() -> None:
    theta = shaken(18)
    control = torch.cartesian_prod(torch.tensor([-1.0, 0, 1]), torch.tensor([-1.0, 0, 1]))[None]
    want = torch.stack([theta[:, :9], theta[:, 9:]], -1)
    torch.testing.assert_close(transform_points(theta, control), want, rtol=0, atol=1e-5)
    smooth = transform_points(theta, control, regularisation=0.2)
    assert 1e-3 < (smooth - want).abs().max() < 0.5


@pytest.mark.parametrize("parameters", ALL)
def test_gradients_reach_the_parameters(parameters: int) -> None:
    theta = shaken(parameters).double().requires_grad_()
    truth = identity(parameters).double()[None]
    loss = grid_loss(theta, truth)
    loss.backward()
    assert theta.grad is not None
    direction, step = torch.randn_like(theta), 1e-6
    with torch.no_grad():
        ends = [grid_loss(theta + sign * step * direction, truth) for sign in (1, -1)]
    torch.testing.assert_close((theta.grad * direction).sum(), (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-8)


def test_the_grid_loss_is_a_mean_squared_distance() -> None:
    truth = identity(6)[None]
    assert float(grid_loss(truth, truth)) == 0.0
    torch.testing.assert_close(grid_loss(SHIFT, truth), torch.tensor(0.25**2 + 0.5**2))


def test_a_point_passes_the_last_stage_first() -> None:
    double = torch.tensor([[2.0, 0, 0, 0, 2, 0]])
    point = torch.tensor([[[0.1, 0.1]]])
    torch.testing.assert_close(chain_points([SHIFT, double], point), torch.tensor([[[0.45, -0.3]]]))
    torch.testing.assert_close(chain_points([double, SHIFT], point), torch.tensor([[[0.7, -0.8]]]))


def test_resizing_keeps_the_centres_of_the_corners_in_place() -> None:
    ramp = torch.arange(5.0).expand(1, 1, 4, 5)
    torch.testing.assert_close(resize(ramp, 3, 9)[0, 0, 0], torch.linspace(0, 4, 9), rtol=0, atol=1e-5)


def test_other_numbers_of_parameters_are_refused() -> None:
    assert [kind_of(n) for n in ALL] == ["affine", "homography", "homography", "tps"]
    with pytest.raises(ValueError, match="no transformation has 7 parameters"):
        kind_of(7)
