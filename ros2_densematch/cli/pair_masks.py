"""Masks of `densematch match`: image files that say which pixels may be matched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ros2_densematch.cli.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class PairMasks:
    """The masks that --mask and --reference-mask name.

    Args:
        both: mask of all images.
        reference: mask of reference images, in the place of `both`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no image, or black everywhere.
    """

    def __init__(self, both: Path | None, reference: Path | None) -> None:
        self._both = _loaded(both, "--mask")
        self._reference = _loaded(reference, "--reference-mask") or self._both

    @property
    def files(self) -> list[tuple[str, int, int]]:
        """Name, size and time of the files in use: results depend on them."""
        found = [mask.file for mask in (self._both, self._reference) if mask is not None]
        return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in found]

    def of(self, image: Path, size: tuple[int, int], orientation: int, *, reference: bool) -> NDArray[np.bool_] | None:
        """The mask of an image, turned as the matcher sees the image; None without one.

        Args:
            image: its file.
            size: (width, height) of its stored pixels.
            orientation: by which the image is turned, as in EXIF.
            reference: it is the pair's reference.

        Raises:
            InputError: the mask has another size.
        """
        from ros2_densematch.geometry.orientation import turned_picture

        mask = self._reference if reference else self._both
        if mask is None:
            return None
        height, width = mask.allowed.shape
        if (width, height) != size:
            way_out = "make a mask of its size" + (
                "" if mask.option != "--mask" else ", or give that of REF as --reference-mask"
            )
            raise InputError(
                f"{mask.option} {mask.file} is {width} x {height}, {image} is {size[0]} x {size[1]}: {way_out}"
            )
        return turned_picture(mask.allowed, orientation)


@dataclass(frozen=True, eq=False)
class _Mask:
    file: Path
    option: str
    allowed: NDArray[np.bool_]


def _loaded(file: Path | None, option: str) -> _Mask | None:
    from ros2_densematch.io.sources.files import load_mask

    if file is None:
        return None
    if not file.is_file():
        raise FileNotFoundError(f"there is no mask {file}: check {option}")
    return _Mask(file, option, load_mask(file))
