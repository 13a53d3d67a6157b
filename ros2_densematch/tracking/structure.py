"""The points of one keyframe: where they are in its image, their inverse depth and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry.camera import Camera
from ros2_densematch.tracking.metric import rho_from_depth
from ros2_densematch.tracking.refinement import Float, PointPriors, project

# A match this near (pixels) to a point of the keyframe is a new sight of that point; matchers that place their
# reference points anew for every pair still meet the old ones within a pixel.
_SAME_POINT_PX = 1.0
# A point's inverse depth is used as known structure when its standard deviation is below this share of the value, or
# of the keyframe's median: far points have a large relative uncertainty and still fix the rotation and the scale.
_KNOWN = 0.2
_WEAK = 1.5  # standard deviation of an unknown inverse depth, in medians of the known ones


@dataclass
class Structure:
    """Points of a keyframe; grows as matches arrive at new places.

    Attributes:
        camera: of the keyframe.
        xy: float64 (N, 2), pixels of the keyframe image.
        bearing: float64 (N, 3), normalised coordinates with third component 1.
        rho: float64 (N,), inverse depth along the optical axis, 1 / map unit; 0 where never estimated.
        info: float64 (N,), inverse variance of `rho`; 0 = unknown.
        prior_rho, prior_info: float64 (N,), what was known when the point was made (depth image, stereo, another
            keyframe); the joint refinement starts from these, so that no observation is counted twice.
        depth: float32 (H, W) metres of the keyframe image, or None: new points take their inverse depth from it.
        measured: a depth image or a stereo pair measured some of the points, so that the unit is the metre.
        limit: most points kept; further ones are ignored.
    """

    camera: Camera
    depth: NDArray[np.float32] | None = None
    limit: int = 6000
    xy: Float = field(default_factory=lambda: np.zeros((0, 2)))
    bearing: Float = field(default_factory=lambda: np.zeros((0, 3)))
    rho: Float = field(default_factory=lambda: np.zeros(0))
    info: Float = field(default_factory=lambda: np.zeros(0))
    prior_rho: Float = field(default_factory=lambda: np.zeros(0))
    prior_info: Float = field(default_factory=lambda: np.zeros(0))
    measured: bool = False
    _grid: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        self.measured = self.measured or self.depth is not None

    def __len__(self) -> int:
        return len(self.rho)

    def priors(self, index: NDArray[np.intp]) -> PointPriors:
        """Present knowledge of the points `index` (N,), for tracking a new frame."""
        return self._with_weak_prior(index, self.rho[index], self.info[index])

    def initial_priors(self, index: NDArray[np.intp]) -> PointPriors:
        """What was known of the points `index` (N,) before any frame was tracked."""
        return self._with_weak_prior(index, self.prior_rho[index], self.prior_info[index])

    def _with_weak_prior(self, index: NDArray[np.intp], rho: Float, info: Float) -> PointPriors:
        # A point of unknown depth is not at any depth: it lies about as far as the others. Without this a point seen
        # from nearly one place would have an arbitrary inverse depth and still pull the translation.
        typical = self.median_rho()
        if np.isfinite(typical):
            rho = np.where(info > 0, rho, typical)
            info = np.where(info > 0, info, (_WEAK * typical) ** -2)
        return PointPriors(self.bearing[index], rho, info)

    def known(self) -> NDArray[np.bool_]:
        """(N,) points whose depth is sure enough to carry scale."""
        if not np.any(self.info > 0):
            return np.zeros(len(self), np.bool_)
        sigma = 1.0 / np.sqrt(np.maximum(self.info, 1e-18))
        estimated = self.info > 0
        typical = float(np.median(self.rho[estimated]))
        return estimated & (sigma < _KNOWN * np.maximum(self.rho, typical))

    def median_rho(self) -> float:
        """Median inverse depth of the known points; NaN when there is none."""
        known = self.known()
        return float(np.median(self.rho[known])) if known.any() else float("nan")

    def set_prior(self, index: NDArray[np.intp], rho: Float, info: Float) -> None:
        """Fuses independent knowledge (inverse-variance weighting) into the priors of the points `index` (N,)."""
        total = self.prior_info[index] + info
        mean = (self.prior_info[index] * self.prior_rho[index] + info * rho) / np.maximum(total, 1e-18)
        self.prior_rho[index], self.prior_info[index] = mean, total
        total = self.info[index] + info
        self.rho[index] = np.where(
            total > 0, (self.info[index] * self.rho[index] + info * rho) / np.maximum(total, 1e-18), self.rho[index]
        )
        self.info[index] = total

    def set_camera(self, camera: Camera) -> None:
        """Takes another camera for the same image: the points stay where they are in it, their rays change."""
        self.camera = camera
        rays = camera.normalise(self.xy)
        seen = np.isfinite(rays).all(1)
        self.bearing[seen, :2] = rays[seen]

    def rescale(self, factor: float) -> None:
        """Multiplies all lengths by `factor`."""
        for rho, info in ((self.rho, self.info), (self.prior_rho, self.prior_info)):
            rho /= factor
            info *= factor**2

    def find(self, xy: NDArray[np.float32]) -> NDArray[np.intp]:
        """Index of the point at each pixel of `xy` (N, 2), -1 where there is none within a pixel."""
        grid = self._index()
        height, width = grid.shape
        cell = np.rint(xy).astype(np.intp) + 1  # the grid has a border of one pixel
        best = np.full(len(xy), -1, np.intp)
        nearest = np.full(len(xy), _SAME_POINT_PX**2)
        for dx in (-1, 0, 1):
            for dy in (-1, 0, 1):
                column = np.clip(cell[:, 0] + dx, 0, width - 1)
                row = np.clip(cell[:, 1] + dy, 0, height - 1)
                candidate = grid[row, column].astype(np.intp)
                if len(self) == 0:
                    continue
                distance = np.sum((self.xy[candidate] - xy) ** 2, -1)
                better = (candidate >= 0) & (distance < nearest)
                best[better], nearest[better] = candidate[better], distance[better]
        return best

    def find_or_add(self, xy: NDArray[np.float32]) -> NDArray[np.intp]:
        """As `find`, but makes new points where there are none; -1 only beyond `limit` and for repeated pixels.

        A new point takes its inverse depth from the depth image, or from its neighbours with their disagreement as its
        variance.
        """
        index = self.find(xy)
        missing = np.flatnonzero(index < 0)
        # of several matches at one pixel only the first makes the point
        _, first = np.unique(np.rint(xy[missing]).astype(np.int64), axis=0, return_index=True)
        missing = missing[np.sort(first)][: max(self.limit - len(self), 0)]
        if len(missing):
            index[missing] = self.add(xy[missing])
        return index

    def add(self, xy: NDArray[np.float32]) -> NDArray[np.intp]:
        """Makes a point at each pixel of `xy` (N, 2) and returns their indices."""
        rho, info = self._from_neighbours(xy)
        # Neighbours help to track; as a prior of the refinement they would count the same observations twice.
        prior_rho, prior_info = np.zeros(len(xy)), np.zeros(len(xy))
        if self.depth is not None:
            prior_rho, prior_info = rho_from_depth(self.depth, xy)
            rho, info = np.where(prior_info > 0, prior_rho, rho), np.where(prior_info > 0, prior_info, info)
        start = len(self)
        pixels = np.asarray(xy, np.float64)
        normalised = self.camera.normalise(pixels)
        self.xy = np.concatenate([self.xy, pixels])
        self.bearing = np.concatenate([self.bearing, np.column_stack([normalised, np.ones(len(xy))])])
        for name, values in (("rho", rho), ("info", info), ("prior_rho", prior_rho), ("prior_info", prior_info)):
            setattr(self, name, np.concatenate([getattr(self, name), values]))
        self._grid = None
        return np.arange(start, len(self))

    def _from_neighbours(self, xy: NDArray[np.float32]) -> tuple[Float, Float]:
        rho, info = np.zeros(len(xy)), np.zeros(len(xy))
        known = np.flatnonzero(self.known())
        if len(known) < 3:
            return rho, info
        distance, neighbour = cv2.batchDistance(
            np.asarray(xy, np.float32), self.xy[known].astype(np.float32), cv2.CV_32F, normType=cv2.NORM_L2, K=3
        )
        reach = 0.025 * max(self.camera.width, self.camera.height)
        values = self.rho[known][neighbour]
        spread = values.max(1) - values.min(1)
        mean = values.mean(1)
        variance = spread**2 + (1.0 / self.info[known][neighbour]).max(1) + (0.05 * mean) ** 2
        near = distance.max(1) < reach
        rho[near], info[near] = mean[near], 1.0 / variance[near]
        return rho, info

    def _index(self) -> NDArray[np.int32]:
        if self._grid is None:
            grid = np.full((self.camera.height + 2, self.camera.width + 2), -1, np.int32)
            cell = np.rint(self.xy).astype(np.intp) + 1
            inside = (cell >= 0).all(1) & (cell[:, 0] < grid.shape[1]) & (cell[:, 1] < grid.shape[0])
            # written in reverse, so that of several points in one pixel the oldest stays
            order = np.flatnonzero(inside)[::-1]
            grid[cell[order, 1], cell[order, 0]] = order
            self._grid = grid
        return self._grid


def transfer(
    source: Structure,
    index: NDArray[np.intp],
    T_target_from_source: Float,
    target: Structure,
    xy: NDArray[np.float32],
) -> int:
    """Carries known points of one keyframe into the next.

    Args:
        source: points of the old keyframe.
        index: (N,) the points that the new keyframe sees.
        T_target_from_source: (4, 4), in map units.
        target: receives them.
        xy: (N, 2) where the new keyframe sees them, pixels.

    Returns:
        The number of points carried over.
    """
    usable = source.known()[index]
    index, xy = index[usable], xy[usable]
    if len(index) == 0:
        return 0
    _, depth_factor, _ = project(T_target_from_source[None], source.bearing[index], source.rho[index])
    z = depth_factor[0]
    front = z > 1e-3
    index, xy, z = index[front], xy[front], z[front]
    rho = source.rho[index] / z
    slope = (source.bearing[index] @ T_target_from_source[2, :3]) / z**2  # d rho_target / d rho_source
    info = source.info[index] / np.maximum(slope**2, 1e-6)
    ids = target.find_or_add(xy)
    new = ids >= 0
    _, first = np.unique(ids[new], return_index=True)
    chosen = np.flatnonzero(new)[np.sort(first)]
    ids = ids[chosen]
    carried = len(ids)
    if target.depth is not None:
        # the target's own measurements are independent of the source: fused where there are any
        measured = rho_from_depth(target.depth, target.xy[ids])[1] > 0
        target.set_prior(ids[measured], rho[chosen][measured], info[chosen][measured])
        chosen, ids = chosen[~measured], ids[~measured]
    # what `find_or_add` took over from neighbours is replaced, not fused: it came from the same points
    target.rho[ids] = target.prior_rho[ids] = rho[chosen]
    target.info[ids] = target.prior_info[ids] = info[chosen]
    return carried
