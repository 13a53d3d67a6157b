"""Camera trajectories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Camera poses over time.

    Attributes:
        stamps_ns: int64 (N,), nanoseconds, increasing.
        T_world_from_camera: float64 (N, 4, 4).

    Raises:
        ValueError: the shapes do not fit together.
    """

    stamps_ns: NDArray[np.int64]
    T_world_from_camera: NDArray[np.float64]

    def __post_init__(self) -> None:
        n = len(self.stamps_ns)
        if self.stamps_ns.shape != (n,) or self.T_world_from_camera.shape != (n, 4, 4):
            raise ValueError(
                f"a trajectory needs stamps (N,) and poses (N, 4, 4) of one N, got {self.stamps_ns.shape} and "
                f"{self.T_world_from_camera.shape}"
            )

    def __len__(self) -> int:
        return len(self.stamps_ns)
