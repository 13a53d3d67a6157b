"""Names of array types, for annotations: one name per element type, the same in every module.

A type names what the elements are, not the shape: shapes, units and ranges stand in the docstrings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BoolArray", "Depth", "Float32", "Float64", "Floating", "Image", "Mask"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Floating = NDArray[np.floating[Any]]
"""Either precision."""

BoolArray = NDArray[np.bool_]

Image = NDArray[np.uint8]
"""Pixels 0..255: (H, W) grey or (H, W, 3) RGB."""

Mask = NDArray[np.bool_]
"""(H, W), true where the image is used."""

Depth = NDArray[np.float32]
"""(H, W), metres along the optical axis; 0 or NaN where it is unknown."""
