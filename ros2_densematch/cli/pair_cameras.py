"""Which cameras the two images of `densematch match` have: from files, from --K or --fov, or from the list of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ros2_densematch.cli.errors import InputError
from ros2_densematch.cli.pairs import Pair

if TYPE_CHECKING:
    from ros2_densematch.geometry.camera import Camera

Size = tuple[int, int]


@dataclass(frozen=True)
class PairCameras:
    """The cameras that the options name.

    Attributes:
        files: cameras of reference and query from calibration files, or None.
        intrinsics: (fx, fy, cx, cy) in pixels of both images, or None.
        fov_deg: horizontal field of view of both images in degrees, or None.
    """

    files: tuple[Camera, Camera] | None = None
    intrinsics: tuple[float, float, float, float] | None = None
    fov_deg: float | None = None

    def of(self, pair: Pair, reference_size: Size, query_size: Size) -> tuple[Camera, Camera] | None:
        """The cameras of a pair whose images have these sizes (width, height); None where none is known.

        Raises:
            ValueError: a calibration does not fit its image.
        """
        from ros2_densematch.geometry.camera import Camera

        if pair.reference_K is not None and pair.query_K is not None:
            return Camera.from_matrix(pair.reference_K, *reference_size), Camera.from_matrix(pair.query_K, *query_size)
        if self.files is not None:
            return self.files[0].for_image(*reference_size), self.files[1].for_image(*query_size)
        if self.intrinsics is None and self.fov_deg is None:
            return None
        return self._simple(*reference_size), self._simple(*query_size)

    def _simple(self, width: int, height: int) -> Camera:
        import numpy as np

        from ros2_densematch.geometry.camera import Camera

        if self.intrinsics is not None:
            fx, fy, cx, cy = self.intrinsics
        else:
            assert self.fov_deg is not None
            fx = fy = 0.5 * width / float(np.tan(np.radians(0.5 * self.fov_deg)))
            cx, cy = 0.5 * (width - 1), 0.5 * (height - 1)
        return Camera.from_matrix([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]], width, height)


def cameras_of_options(
    reference: Path | None, query: Path | None, intrinsics: str | None, fov_deg: float | None
) -> PairCameras:
    """The cameras of --reference-camera, --query-camera, --K and --fov.

    Raises:
        InputError: the options contradict each other, or a value is out of range.
        FileNotFoundError, ValueError: a calibration file cannot be read.
    """
    if sum(given is not None for given in (reference or query, intrinsics, fov_deg)) > 1:
        raise InputError("--reference-camera, --K and --fov say the same thing: give one of them")
    if intrinsics is not None:
        return PairCameras(intrinsics=_four_numbers(intrinsics))
    if fov_deg is not None:
        if not 1.0 <= fov_deg <= 170.0:
            raise InputError(f"--fov {fov_deg:g} must lie between 1 and 170 degrees")
        return PairCameras(fov_deg=fov_deg)
    if reference is None:
        if query is not None:
            raise InputError(f"--query-camera {query} was given without --reference-camera: give both")
        return PairCameras()
    from ros2_densematch.geometry.camera import Camera

    first = Camera.from_yaml(reference)
    return PairCameras((first, first if query is None else Camera.from_yaml(query)))


def _four_numbers(text: str) -> tuple[float, float, float, float]:
    try:
        fx, fy, cx, cy = (float(word) for word in text.split(","))
    except ValueError:
        raise InputError(f"--K {text}: write four numbers fx,fy,cx,cy in pixels") from None
    if not (fx > 0 and fy > 0):
        raise InputError(f"--K {text}: the focal lengths fx and fy must be positive")
    return fx, fy, cx, cy
