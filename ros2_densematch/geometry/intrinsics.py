"""How well a camera's calibration is known."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

_KEY = "intrinsic_uncertainty"  # in camera files


@dataclass(frozen=True)
class IntrinsicUncertainty:
    """Standard deviations of a calibration. None depends on the size of the image.

    Attributes:
        focal: relative, of the focal length.
        principal_point: of each coordinate, over the focal length (radians).
        distortion: of the first radial coefficient k1.
        rolling_shutter: angle in radians, about each axis, by which the camera may turn unknown within one readout;
            0 = a global shutter, or a turning that is known.

    Raises:
        ValueError: one of them is negative or not finite; the message names it.
    """

    focal: float = 0.002
    principal_point: float = 0.002
    distortion: float = 0.002
    rolling_shutter: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"intrinsic uncertainty: {field.name} must be 0 or more, got {value}")

    @staticmethod
    def from_mapping(content: dict[str, Any]) -> IntrinsicUncertainty | None:
        """What a camera file says under `intrinsic_uncertainty`, a mapping of these names to numbers; None without it.

        Raises:
            ValueError: another name, or no number.
        """
        entry = content.get(_KEY)
        if entry is None:
            return None
        names = [field.name for field in fields(IntrinsicUncertainty)]
        if not isinstance(entry, dict) or not set(entry) <= set(names):
            raise ValueError(f"{_KEY} must be a mapping with some of {', '.join(names)}, got {entry!r}")
        try:
            return IntrinsicUncertainty(**{name: float(value) for name, value in entry.items()})
        except TypeError:
            raise ValueError(f"{_KEY} must hold numbers, got {entry!r}") from None

    def to_mapping(self) -> dict[str, Any]:
        """The entry of a camera file that `from_mapping` reads."""
        return {_KEY: asdict(self)}


EXACT = IntrinsicUncertainty(0.0, 0.0, 0.0)
"""A calibration without error, as of a rendered image."""
