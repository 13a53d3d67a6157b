"""Whole image pairs that can judge any match: what the match filter is trained on.

Views with depth judge by depth and pose, as is done here. Sources that judge in another way do so in their own files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64, Image
from ros2_densematch.training.data.posed_views import ViewPair
from ros2_densematch.training.scenes.views import agrees, transfer

# 1 = right, 0 = wrong, -1 = cannot be told
MatchLabels = NDArray[np.int8]
Judge = Callable[[Float64, Float64], MatchLabels]

RIGHT_PX = 1.5


@dataclass(frozen=True)
class JudgedPair:
    """Two images and a judge of matches (N, 2), (N, 2) between them, in pixels of these images."""

    image0: Image
    image1: Image
    judge: Judge


class JudgedSource(Protocol):
    """Draws judged pairs; what it draws depends on `rng` alone."""

    def draw(self, rng: np.random.Generator) -> JudgedPair: ...


class ViewSource(Protocol):
    """Draws whole views with depth and relative pose."""

    def draw_views(self, rng: np.random.Generator) -> ViewPair: ...


class JudgedViews:
    """Two whole views with depth: rendered, or of MegaDepth, ScanNet or a recording."""

    def __init__(self, source: ViewSource) -> None:
        self._source = source

    def draw(self, rng: np.random.Generator) -> JudgedPair:
        pair = self._source.draw_views(rng)

        def judge(xy0: Float64, xy1: Float64) -> MatchLabels:
            column, row = np.round(xy0).astype(int).T
            depth = pair.depth0[row, column].astype(np.float64)
            expected, z = transfer(xy0, depth, pair.K0, pair.K1, pair.T_1_from_0)
            known = np.isfinite(depth) & np.isfinite(z)
            error = np.where(known, np.linalg.norm(expected - xy1, axis=1), np.inf)
            visible = agrees(np.nan_to_num(expected, nan=-1.0), np.nan_to_num(z), pair.depth1, 0.02)
            labels = ((error < RIGHT_PX) & visible).astype(np.int8)
            # at a depth edge the nearest pixel may belong to the other surface
            near = np.isfinite(error) & (error < 3 * RIGHT_PX) & ~visible
            labels[~np.isfinite(depth) | near] = -1
            return labels

        return JudgedPair(pair.image0, pair.image1, judge)
