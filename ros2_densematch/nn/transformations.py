"""Parametric transformations of the image plane: affine, homography, thin-plate spline; points, grids, sampling.

Normalised coordinates: x right, y down, the CENTRES of the first and the last pixel lie at -1 and +1. A transformation
maps points of the target (the image that is looked at) to points of the source (the image that is warped): a backward
warp. Rocco, "Neighbourhood consensus networks for visual correspondence" (thesis), sections 3.4.3 and 3.5.

Parameters theta, one row per transformation:

* affine, 6: x' = t0 x + t1 y + t2, y' = t3 x + t4 y + t5
* homography, 8: x then y of the images of the corners (-1, -1), (-1, 1), (1, -1), (1, 1); or 9: the matrix by rows
* thin-plate spline, 18: x then y of the images of nine control points on {-1, 0, 1}^2, x slow and y fast
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

# number of parameters -> name
KINDS = {6: "affine", 8: "homography", 9: "homography", 18: "tps"}
_CORNERS = ((-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0))
_DENOMINATOR_EPS = 1e-5


def kind_of(parameters: int) -> str:
    """ "affine", "homography" or "tps", by the number of parameters.

    Raises:
        ValueError: no transformation has so many.
    """
    if parameters not in KINDS:
        raise ValueError(
            f"no transformation has {parameters} parameters: 6 affine, 8 or 9 homography, 18 thin-plate spline"
        )
    return KINDS[parameters]


def identity(parameters: int) -> Tensor:
    """The parameters (parameters,) of the identity."""
    kind = kind_of(parameters)
    if kind == "affine":
        return torch.tensor([1.0, 0, 0, 0, 1, 0])
    if kind == "tps":
        return torch.cat(_control_points(torch.zeros(())).unbind(-1))
    if parameters == 9:
        return torch.eye(3).flatten()
    return torch.tensor(_CORNERS).T.flatten()


def homography_matrix(theta: Tensor) -> Tensor:
    """Matrices (B, 3, 3) of homographies with 8 (four corners) or 9 parameters."""
    if theta.shape[1] == 9:
        return theta.view(-1, 3, 3)
    corners = theta.new_tensor(_CORNERS)
    x, y = corners[:, 0], corners[:, 1]
    xp, yp = theta[:, :4], theta[:, 4:]
    one, zero = torch.ones_like(xp), torch.zeros_like(xp)
    x, y = x.expand_as(xp), y.expand_as(xp)
    system = torch.cat(
        [
            torch.stack([x, y, one, zero, zero, zero, -x * xp, -y * xp], -1),
            torch.stack([zero, zero, zero, x, y, one, -x * yp, -y * yp], -1),
        ],
        1,
    )
    solution = torch.linalg.solve(system, torch.cat([xp, yp], 1).unsqueeze(-1)).squeeze(-1)
    return torch.cat([solution, one[:, :1]], 1).view(-1, 3, 3)


def transform_points(theta: Tensor, points: Tensor, *, regularisation: float = 0.0, guarded: bool = True) -> Tensor:
    """Source positions of target points.

    Args:
        theta: (B, P), P as in the module's table.
        points: (B or 1, ..., 2), normalised.
        regularisation: of the thin-plate spline: added to the diagonal of its kernel matrix.
        guarded: keep a homography's denominator 1e-5 away from zero, as the published point transfer does; the
            published image grids do not.

    Returns:
        (B, ..., 2).
    """
    kind = kind_of(theta.shape[1])
    if kind == "tps":
        return _transform_tps(theta, points, regularisation)
    x, y = points.unbind(-1)
    shape = (-1,) + (1,) * (x.ndim - 1)
    if kind == "affine":
        t = [value.view(shape) for value in theta.unbind(1)]
        return torch.stack([t[0] * x + t[1] * y + t[2], t[3] * x + t[4] * y + t[5]], -1)
    h = [value.view(shape) for value in homography_matrix(theta).flatten(1).unbind(1)]
    denominator = h[6] * x + h[7] * y + h[8]
    if guarded:
        denominator = denominator + torch.sign(denominator) * _DENOMINATOR_EPS
    return torch.stack([h[0] * x + h[1] * y + h[2], h[3] * x + h[4] * y + h[5]], -1) / denominator.unsqueeze(-1)


def _control_points(like: Tensor) -> Tensor:
    axis = torch.tensor([-1.0, 0.0, 1.0], dtype=like.dtype, device=like.device)
    return torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(9, 2)


def _radial(difference: Tensor) -> Tensor:
    """r^2 log r^2 of differences (..., 2), 0 at r = 0."""
    squared = difference.square().sum(-1)
    return squared * torch.where(squared == 0, torch.ones_like(squared), squared).log()


def _transform_tps(theta: Tensor, points: Tensor, regularisation: float) -> Tensor:
    # Bookstein, "Principal warps", PAMI 1989
    control = _control_points(theta)
    basis = torch.cat([torch.ones_like(control[:, :1]), control], 1)
    kernel = _radial(control[:, None] - control[None])
    kernel = kernel + regularisation * torch.eye(9, dtype=theta.dtype, device=theta.device)
    system = torch.cat([torch.cat([kernel, basis], 1), torch.cat([basis.T, basis.new_zeros(3, 3)], 1)])
    targets = theta.view(-1, 2, 9).transpose(1, 2)
    coefficients: Tensor = torch.linalg.inv(system)[:, :9] @ targets
    flat = points.flatten(1, -2)
    radial = _radial(flat.unsqueeze(-2) - control)
    affine = torch.cat([torch.ones_like(flat[..., :1]), flat], -1)
    moved = radial @ coefficients[:, :9] + affine @ coefficients[:, 9:]
    return moved.view(-1, *points.shape[1:])


def regular_grid(height: int, width: int, *, like: Tensor) -> Tensor:
    """Normalised positions (1, height, width, 2) of all pixels of an image; one pixel alone lies at -1."""
    y = torch.linspace(-1, 1, height, dtype=like.dtype, device=like.device)
    x = torch.linspace(-1, 1, width, dtype=like.dtype, device=like.device)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).unsqueeze(0)


def chain_points(thetas: Sequence[Tensor], points: Tensor, *, regularisation: float = 0.0) -> Tensor:
    """Carries target points (B or 1, ..., 2) through the stages of a cascade, the LAST stage first.

    Stage i was estimated between the target and the source as stages 1 to i - 1 had warped it, so that a target point
    passes stage n, then n - 1, down to stage 1 (thesis, sections 3.4.4 and 3.4.5).
    """
    for theta in reversed(thetas):
        points = transform_points(theta, points, regularisation=regularisation, guarded=False)
    return points


def sample_image(image: Tensor, grid: Tensor) -> Tensor:
    """Bilinear values of an image (B, C, H, W) at normalised positions (B or 1, h, w, 2); zeros outside."""
    grid = grid.expand(len(image), -1, -1, -1)
    return functional.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resize that keeps the centres of the corner pixels in place, without antialiasing, as published."""
    return sample_image(image, regular_grid(height, width, like=image))


def grid_loss(theta: Tensor, truth: Tensor) -> Tensor:
    """Mean over a 20 x 20 grid and the batch of the squared distance between two transformations (thesis, eq. 3.13).

    Args:
        theta: (B, P) estimated.
        truth: (B, P).

    Returns:
        Scalar, in squared normalised units.
    """
    points = regular_grid(20, 20, like=theta)
    difference = transform_points(theta, points) - transform_points(truth, points)
    return difference.square().sum(-1).mean()
