"""The keyframes in memory, within a bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.tracking.keyframe import Keyframe


@dataclass(frozen=True)
class Keyframes:
    """Keyframes in order of their making. It never changes: adding and dropping return another one.

    Attributes:
        limit: most of them; the most redundant one goes when there are more.
    """

    limit: int
    _items: tuple[Keyframe, ...] = ()

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Keyframe]:
        return iter(self._items)

    def __getitem__(self, number: int) -> Keyframe:
        """The keyframe with this number (`Keyframe.id`)."""
        return next(k for k in self._items if k.id == number)

    def added(self, keyframe: Keyframe) -> Keyframes:
        """With a new keyframe, which is never the one that is dropped."""
        store = replace(self, _items=(*self._items, keyframe))
        while len(store) > store.limit:
            redundant = store._most_redundant(keyframe)
            store = replace(store, _items=tuple(k for k in store if k is not redundant))
        return store

    def updated(self, keyframe: Keyframe) -> Keyframes:
        """With another version of one of them, found by its number."""
        return self.changed(lambda k: keyframe if k.id == keyframe.id else k)

    def changed(self, change: Callable[[Keyframe], Keyframe]) -> Keyframes:
        """With `change` applied to each."""
        return replace(self, _items=tuple(change(k) for k in self._items))

    def without_segment(self, segment: int) -> Keyframes:
        """Without the keyframes of a segment."""
        return replace(self, _items=tuple(k for k in self._items if k.segment != segment))

    def of_segment(self, segment: int) -> list[Keyframe]:
        """Those of one segment."""
        return [k for k in self._items if k.segment == segment]

    def nearest(self, T_world_from_camera: Float64, segment: int, within: float | None = None) -> list[Keyframe]:
        """Keyframes, those of `segment` that look most alike from this pose (4, 4) first.

        Args:
            within: only those of `segment` that differ by less: radians of turn plus distance over median depth.
        """
        unit = self._unit()
        if within is not None:
            same = self.of_segment(segment)
            near = [k for k in same if _difference(k.T_world_from_camera, T_world_from_camera, unit) < within]
            return sorted(near, key=lambda k: (_difference(k.T_world_from_camera, T_world_from_camera, unit), k.id))
        return sorted(
            self._items,
            key=lambda k: (k.segment != segment, _difference(k.T_world_from_camera, T_world_from_camera, unit), -k.id),
        )

    def _unit(self) -> float:
        """A length that changes a view about as much as one radian: the median depth of all known points."""
        rho = [k.structure.median_rho for k in self._items if k.structure is not None]
        known = [r for r in rho if np.isfinite(r) and r > 0]
        return 1.0 / float(np.median(known)) if known else 1.0

    def _most_redundant(self, newest: Keyframe) -> Keyframe:
        unit = self._unit()
        others = [k for k in self._items if k is not newest]

        def loneliness(k: Keyframe) -> tuple[float, int]:
            same = [o for o in self._items if o is not k and o.segment == k.segment]
            nearest = [_difference(k.T_world_from_camera, o.T_world_from_camera, unit) for o in same]
            return (min(nearest) if nearest else np.inf, k.id)

        return min(others, key=loneliness)


def _difference(A: Float64, B: Float64, unit: float) -> float:
    turn = np.radians(poses.rotation_angle_deg(A, B))
    return float(turn + np.linalg.norm(A[:3, 3] - B[:3, 3]) / unit)
