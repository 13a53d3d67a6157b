"""What a camera wrote into its image files: how the picture is to be turned, and a focal length that is only a guess.

Tags of Exif 2.32 (CIPA DC-008-2019): Orientation 274, FocalLengthIn35mmFilm 41989, FocalLength 37386,
FocalPlaneXResolution 41486 with its unit 41488, PixelXDimension 40962 and PixelYDimension 40963.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_DIAGONAL_35MM = math.hypot(36.0, 24.0)  # by which the 35 mm equivalent is defined
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
_PLAUSIBLE = (0.2, 30.0)  # focal length over the longer side: a fisheye to a telescope
_SAME_ASPECT = 0.02


@dataclass(frozen=True)
class Exif:
    """What is known of an image file.

    Attributes:
        orientation: 1 to 8, how the stored picture is to be turned for the eye; 1 where nothing is said.
        size: (width, height) of the stored picture in pixels, or None where the file is no image.
        focal_px: guess of the focal length in stored pixels, or None.
        focal_source: what the guess is made from, in words; "" without one.
    """

    orientation: int = 1
    size: tuple[int, int] | None = None
    focal_px: float | None = None
    focal_source: str = ""


def read_exif(file: str | Path | BinaryIO) -> Exif:
    """What an image file says, by its path or opened; damaged or missing data says nothing, and never fails."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                return exif_of(image)
    except Exception:  # noqa: BLE001  (whether the file is an image at all is said by the decoder, in its own words)
        return Exif()


def exif_of(image: Any) -> Exif:
    """The same of an opened PIL image; one that has been turned already says orientation 1."""
    size = int(image.width), int(image.height)
    try:
        tags = image.getexif()
        details = tags.get_ifd(34665)
    except Exception:  # noqa: BLE001  (damaged data may fail in any way inside the parser)
        return Exif(size=size)
    given = _number(tags, 274)
    orientation = int(given) if given is not None and given in range(1, 9) else 1
    if image.format == "TIFF" and orientation >= 5:
        size = size[::-1]  # Pillow announces a TIFF as it will turn it
    focal, source = _focal(details, size)
    return Exif(orientation, size, focal, source)


def _focal(tags: Mapping[int, Any], size: tuple[int, int]) -> tuple[float | None, str]:
    longer, shorter = max(size), min(size)
    taken = _number(tags, 40962), _number(tags, 40963)
    if taken[0] and taken[1]:
        aspect = max(taken[0], taken[1]) / min(taken[0], taken[1])
        if abs(aspect / (longer / shorter) - 1.0) > _SAME_ASPECT:
            return None, ""  # the picture was cut: its pixels are no longer those of the lens
    equivalent, focal_mm = _number(tags, 41989), _number(tags, 37386)
    resolution, unit = _number(tags, 41486), _UNIT_MM.get(int(_number(tags, 41488) or 2))
    if equivalent:
        focal = equivalent * math.hypot(*size) / _DIAGONAL_35MM
        source = f"{equivalent:g} mm on 35 mm film"
    elif focal_mm and resolution and unit:
        focal = focal_mm * resolution / unit * (longer / max(taken[0], taken[1]) if taken[0] and taken[1] else 1.0)
        source = f"{focal_mm:g} mm at {resolution / unit:.4g} pixels a mm"
    else:
        return None, ""
    return (focal, source) if _PLAUSIBLE[0] <= focal / longer <= _PLAUSIBLE[1] else (None, "")


def _number(tags: Mapping[int, Any], tag: int) -> float | None:
    """A tag as a finite number above 0, or None."""
    try:
        value = float(tags[tag])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) and value > 0 else None
