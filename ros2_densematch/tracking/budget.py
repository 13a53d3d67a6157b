"""How long a frame may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """Time for one frame, and what frames took lately. With a budget, results depend on the computer's speed.

    Attributes:
        limit_ms: time that a frame may take on average, milliseconds; 0 = as long as it needs.
        usual_ms: running mean of what frames took.
    """

    limit_ms: float = 0.0
    usual_ms: float = 0.0

    @property
    def is_set(self) -> bool:
        """Whether there is one."""
        return self.limit_ms > 0.0

    @property
    def exceeded(self) -> bool:
        """Whether frames take longer than that."""
        return self.is_set and self.usual_ms > self.limit_ms
