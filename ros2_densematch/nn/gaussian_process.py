"""Gaussian process regression from features to an embedding of coordinates.

Edstedt et al., "DKM: dense kernelized feature matching for geometry estimation", CVPR 2023, section 3.2 (global
matcher), and "RoMa: robust dense feature matching", CVPR 2024, section 3.2. The support image conditions the process
once (`condition`); predictions for any number of query images reuse that (`forward`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ros2_densematch.nn.grid import cell_centres

_EPS = 1e-6
_TEMPERATURE = 0.2
_NOISE = 0.1


@dataclass(frozen=True)
class Conditioned:
    """A Gaussian process that has seen its support image.

    Attributes:
        features: (B, N, C) float32, the support features.
        norm: (B, N), their lengths.
        cholesky: (B, N, N), lower factor of the kernel matrix with the noise on its diagonal.
        solved: (B, N, D), the kernel system solved for the coordinate embedding.
    """

    features: Tensor
    norm: Tensor
    cholesky: Tensor
    solved: Tensor


class GaussianProcess(nn.Module):
    """Posterior mean under the kernel exp((cos(x, y) - 1) / 0.2) and noise variance 0.1, always in float32."""

    def __init__(self, dimension: int) -> None:
        """
        Args:
            dimension: channels of the coordinate embedding cos(8 pi (W c + b)).
        """
        super().__init__()
        self.pos_conv = nn.Conv2d(2, dimension, 1)

    def condition(self, support: Tensor) -> Conditioned:
        """The work that depends on the support image alone.

        Args:
            support: (B, C, H, W) features.
        """
        with _exactly(support):
            batch, _, height, width = support.shape
            features = support.float().flatten(2).transpose(1, 2)
            norm = features.norm(dim=2)
            kernel = _kernel(features, norm, features, norm)
            kernel = kernel + _NOISE * torch.eye(kernel.shape[1], device=kernel.device)
            # the factor is symmetric positive definite; batched LU (`inv`, `solve`) hangs on some CPU builds of PyTorch
            cholesky = torch.linalg.cholesky(kernel)
            centres = cell_centres(height, width, device=support.device)[None]
            embedding = torch.cos(8 * math.pi * self.pos_conv(centres)).flatten(2).transpose(1, 2)
            solved = torch.cholesky_solve(embedding.expand(batch, -1, -1), cholesky)
            return Conditioned(features, norm, cholesky, solved)

    def forward(self, query: Tensor, conditioned: Conditioned) -> Tensor:
        """Posterior mean of the embedding at every query cell.

        Args:
            query: (B, C, h, w) features.
            conditioned: from `condition`, of the same batch size.

        Returns:
            float32 (B, D, h, w).
        """
        with _exactly(query):
            batch, _, height, width = query.shape
            features = query.float().flatten(2).transpose(1, 2)
            kernel = _kernel(features, features.norm(dim=2), conditioned.features, conditioned.norm)
            return (kernel @ conditioned.solved).transpose(1, 2).reshape(batch, -1, height, width)


def _exactly(tensor: Tensor) -> torch.autocast:
    """Mixed precision of training stops here: in half precision the kernel matrix is no longer positive definite."""
    return torch.autocast(tensor.device.type, enabled=False)


def _kernel(x: Tensor, x_norm: Tensor, y: Tensor, y_norm: Tensor) -> Tensor:
    """(B, N, C), (B, N) and (B, M, C), (B, M) -> (B, N, M)."""
    cosine = (x @ y.transpose(1, 2)) / (x_norm[:, :, None] * y_norm[:, None, :] + _EPS)
    return torch.exp((cosine - 1.0) / _TEMPERATURE)
