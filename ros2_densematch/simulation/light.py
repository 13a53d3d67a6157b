"""What shines on a scene. How light falls off with distance, and what is in the shade, is each renderer's own."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ros2_densematch.arrays import Floating


def _white() -> Floating:
    return np.ones(3, np.float32)


@dataclass(frozen=True, eq=False)
class Light:
    """A lamp without size, or the sun.

    Attributes:
        position: (3,) world frame, metres; of the sun a direction towards it.
        colour: (3,) RGB factor.
        sun: whether `position` is a direction.
        shadow: whether what stands before the light is dark behind; the ray caster alone can tell.
    """

    position: Floating
    colour: Floating = field(default_factory=_white)
    sun: bool = False
    shadow: bool = False
