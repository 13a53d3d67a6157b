"""The points of one keyframe: where they are in its image, their inverse depth and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.tracking.metric import rho_from_depth
from ros2_densematch.tracking.refinement import PointPriors, project

# A match this near (pixels) to a point of the keyframe is a new sight of that point; matchers that place their
# reference points anew for every pair still meet the old ones within a pixel.
_SAME_POINT_PX = 1.0
# A point's inverse depth is used as known structure when its standard deviation is below this share of the value, or
# of the keyframe's median: far points have a large relative uncertainty and still fix the rotation and the scale.
_KNOWN = 0.2
_WEAK = 1.5  # standard deviation of an unknown inverse depth, in medians of the known ones


def _none() -> Float64:
    return np.zeros(0)


@dataclass(frozen=True, eq=False)
class Structure:
    """Points of a keyframe. It never changes: whatever adds to it or corrects it returns another structure, in which
    every point keeps its index.

    Attributes:
        camera: of the keyframe.
        depth: float32 (H, W) metres of the keyframe image, or None: new points take their inverse depth from it.
        limit: most points kept; further ones are ignored.
        xy: float64 (N, 2), pixels of the keyframe image.
        bearing: float64 (N, 3), normalised coordinates with third component 1.
        rho: float64 (N,), inverse depth along the optical axis, 1 / map unit; 0 where never estimated.
        info: float64 (N,), inverse variance of `rho`; 0 = unknown.
        prior_rho, prior_info: float64 (N,), what was known when the point was made (depth image, stereo, another
            keyframe); the joint refinement starts from these, so that no observation is counted twice.
        measured: a depth image or a stereo pair measured some of the points, so that the unit is the metre.
    """

    camera: Camera
    depth: NDArray[np.float32] | None = None
    limit: int = 6000
    xy: Float64 = field(default_factory=lambda: np.zeros((0, 2)))
    bearing: Float64 = field(default_factory=lambda: np.zeros((0, 3)))
    rho: Float64 = field(default_factory=_none)
    info: Float64 = field(default_factory=_none)
    prior_rho: Float64 = field(default_factory=_none)
    prior_info: Float64 = field(default_factory=_none)
    measured: bool = False

    def __len__(self) -> int:
        return len(self.rho)

    def priors(self, index: NDArray[np.intp]) -> PointPriors:
        """Present knowledge of the points `index` (N,), for tracking a new frame."""
        return self._with_weak_prior(index, self.rho[index], self.info[index])

    def initial_priors(self, index: NDArray[np.intp]) -> PointPriors:
        """What was known of the points `index` (N,) before any frame was tracked."""
        return self._with_weak_prior(index, self.prior_rho[index], self.prior_info[index])

    def _with_weak_prior(self, index: NDArray[np.intp], rho: Float64, info: Float64) -> PointPriors:
        # A point of unknown depth is not at any depth: it lies about as far as the others. Without this a point seen
        # from nearly one place would have an arbitrary inverse depth and still pull the translation.
        typical = self.median_rho
        if np.isfinite(typical):
            rho = np.where(info > 0, rho, typical)
            info = np.where(info > 0, info, (_WEAK * typical) ** -2)
        return PointPriors(self.bearing[index], rho, info)

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """(N,) points whose depth is sure enough to carry scale."""
        estimated = self.info > 0
        if not estimated.any():
            return np.zeros(len(self), np.bool_)
        sigma = 1.0 / np.sqrt(np.maximum(self.info, 1e-18))
        typical = float(np.median(self.rho[estimated]))
        return np.asarray(estimated & (sigma < _KNOWN * np.maximum(self.rho, typical)))

    @cached_property
    def median_rho(self) -> float:
        """Median inverse depth of the known points; NaN when there is none."""
        return float(np.median(self.rho[self.known])) if self.known.any() else float("nan")

    @property
    def median_depth(self) -> float:
        """One over `median_rho`, in map units; NaN when no point is known."""
        return 1.0 / max(self.median_rho, 1e-9)

    def with_prior(self, index: NDArray[np.intp], rho: Float64, info: Float64) -> Structure:
        """Fuses independent knowledge (inverse-variance weighting) into the priors of the points `index` (N,)."""
        prior_rho, prior_info = self.prior_rho.copy(), self.prior_info.copy()
        total = prior_info[index] + info
        prior_rho[index] = (prior_info[index] * prior_rho[index] + info * rho) / np.maximum(total, 1e-18)
        prior_info[index] = total
        new_rho, new_info = self.rho.copy(), self.info.copy()
        total = new_info[index] + info
        mean = (new_info[index] * new_rho[index] + info * rho) / np.maximum(total, 1e-18)
        new_rho[index] = np.where(total > 0, mean, new_rho[index])
        new_info[index] = total
        return replace(self, rho=new_rho, info=new_info, prior_rho=prior_rho, prior_info=prior_info)

    def with_camera(self, camera: Camera) -> Structure:
        """With another camera for the same image: the points stay where they are in it, their rays change."""
        rays = camera.normalise(self.xy)
        seen = np.isfinite(rays).all(1)
        bearing = self.bearing.copy()
        bearing[seen, :2] = rays[seen]
        return replace(self, camera=camera, bearing=bearing)

    def rescaled(self, factor: float) -> Structure:
        """With all lengths multiplied by `factor`."""
        return replace(
            self,
            rho=self.rho / factor,
            info=self.info * factor**2,
            prior_rho=self.prior_rho / factor,
            prior_info=self.prior_info * factor**2,
        )

    def find(self, xy: NDArray[np.float32]) -> NDArray[np.intp]:
        """Index of the point at each pixel of `xy` (N, 2), -1 where there is none within a pixel."""
        grid = self._grid
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

    def with_points(self, xy: NDArray[np.float32]) -> tuple[Structure, NDArray[np.intp]]:
        """A structure with a point at each pixel of `xy` (N, 2), and their indices as `find` gives them; -1 only beyond
        `limit` and for repeated pixels.

        A new point takes its inverse depth from the depth image, or from its neighbours with their disagreement as its
        variance.
        """
        index = self.find(xy)
        missing = np.flatnonzero(index < 0)
        # of several matches at one pixel only the first makes the point
        _, first = np.unique(np.rint(xy[missing]).astype(np.int64), axis=0, return_index=True)
        missing = missing[np.sort(first)][: max(self.limit - len(self), 0)]
        if not len(missing):
            return self, index
        index[missing] = np.arange(len(self), len(self) + len(missing))
        return self._extended(xy[missing]), index

    def _extended(self, xy: NDArray[np.float32]) -> Structure:
        rho, info = self._from_neighbours(xy)
        # Neighbours help to track; as a prior of the refinement they would count the same observations twice.
        prior_rho, prior_info = np.zeros(len(xy)), np.zeros(len(xy))
        if self.depth is not None:
            prior_rho, prior_info = rho_from_depth(self.depth, xy)
            rho, info = np.where(prior_info > 0, prior_rho, rho), np.where(prior_info > 0, prior_info, info)
        pixels = np.asarray(xy, np.float64)
        bearing = np.column_stack([self.camera.normalise(pixels), np.ones(len(xy))])
        return replace(
            self,
            xy=np.concatenate([self.xy, pixels]),
            bearing=np.concatenate([self.bearing, bearing]),
            rho=np.concatenate([self.rho, rho]),
            info=np.concatenate([self.info, info]),
            prior_rho=np.concatenate([self.prior_rho, prior_rho]),
            prior_info=np.concatenate([self.prior_info, prior_info]),
        )

    def _from_neighbours(self, xy: NDArray[np.float32]) -> tuple[Float64, Float64]:
        rho, info = np.zeros(len(xy)), np.zeros(len(xy))
        known = np.flatnonzero(self.known)
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

    @cached_property
    def _grid(self) -> NDArray[np.int32]:
        """Index of the point in each pixel, -1 = none, with a border of one pixel."""
        grid = np.full((self.camera.height + 2, self.camera.width + 2), -1, np.int32)
        cell = np.rint(self.xy).astype(np.intp) + 1
        inside = (cell >= 0).all(1) & (cell[:, 0] < grid.shape[1]) & (cell[:, 1] < grid.shape[0])
        # written in reverse, so that of several points in one pixel the oldest stays
        order = np.flatnonzero(inside)[::-1]
        grid[cell[order, 1], cell[order, 0]] = order
        return grid


def transfer(
    source: Structure,
    index: NDArray[np.intp],
    T_target_from_source: Float64,
    target: Structure,
    xy: NDArray[np.float32],
) -> Structure:
    """Carries known points of one keyframe into the next.

    Args:
        source: points of the old keyframe.
        index: (N,) the points that the new keyframe sees.
        T_target_from_source: (4, 4), in map units.
        target: points of the new keyframe so far.
        xy: (N, 2) where the new keyframe sees them, pixels.

    Returns:
        `target` with the points that were carried over.
    """
    usable = source.known[index]
    index, xy = index[usable], xy[usable]
    if len(index) == 0:
        return target
    _, depth_factor, _ = project(T_target_from_source[None], source.bearing[index], source.rho[index])
    z = depth_factor[0]
    front = z > 1e-3
    index, xy, z = index[front], xy[front], z[front]
    rho = source.rho[index] / z
    slope = (source.bearing[index] @ T_target_from_source[2, :3]) / z**2  # d rho_target / d rho_source
    info = source.info[index] / np.maximum(slope**2, 1e-6)
    target, ids = target.with_points(xy)
    new = ids >= 0
    _, first = np.unique(ids[new], return_index=True)
    chosen = np.flatnonzero(new)[np.sort(first)]
    ids = ids[chosen]
    if target.depth is not None:
        # the target's own measurements are independent of the source: fused where there are any
        measured = rho_from_depth(target.depth, target.xy[ids])[1] > 0
        target = target.with_prior(ids[measured], rho[chosen][measured], info[chosen][measured])
        chosen, ids = chosen[~measured], ids[~measured]
    # what `with_points` took over from neighbours is replaced, not fused: it came from the same points
    return replace(
        target,
        rho=_changed(target.rho, ids, rho[chosen]),
        info=_changed(target.info, ids, info[chosen]),
        prior_rho=_changed(target.prior_rho, ids, rho[chosen]),
        prior_info=_changed(target.prior_info, ids, info[chosen]),
    )


def _changed(values: Float64, index: NDArray[np.intp], new: Float64) -> Float64:
    changed: Float64 = values.copy()
    changed[index] = new
    return changed
