"""Fixed transforms between named frames, and the way from one frame to another (REP 105; /tf_static)."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import ArrayLike

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses


class TransformTree:
    """Frames joined by fixed transforms. Names are compared without a leading slash."""

    def __init__(self) -> None:
        self._edges: dict[str, dict[str, Float64]] = {}
        self._parents: dict[str, str] = {}

    def add(self, parent: str, child: str, T_parent_from_child: ArrayLike) -> None:
        """Sets the pose (4, 4) of `child` in `parent`; an older one of the same two is replaced."""
        T = np.asarray(T_parent_from_child, np.float64)
        parent, child = parent.lstrip("/"), child.lstrip("/")
        self._parents[child] = parent
        self._edges.setdefault(parent, {})[child] = T
        self._edges.setdefault(child, {})[parent] = poses.inverse(T)

    def find(self, target: str, source: str) -> Float64 | None:
        """T_target_from_source (4, 4), or None where nothing joins the two frames."""
        target, source = target.lstrip("/"), source.lstrip("/")
        reached: dict[str, Float64] = {target: np.eye(4)}
        queue = deque([target])
        while queue:
            frame = queue.popleft()
            if frame == source:
                return reached[frame]
            for other, T_frame_from_other in self._edges.get(frame, {}).items():
                if other not in reached:
                    reached[other] = poses.compose(reached[frame], T_frame_from_other)
                    queue.append(other)
        return None

    def topmost(self, frame: str) -> str:
        """The frame above all others of this frame's tree: itself, where it has no parent."""
        frame = frame.lstrip("/")
        passed = {frame}
        while frame in self._parents and self._parents[frame] not in passed:
            frame = self._parents[frame]
            passed.add(frame)
        return frame

    def frames(self) -> list[str]:
        """Names of all frames, sorted."""
        return sorted(self._edges)
