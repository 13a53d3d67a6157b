"""Which cameras the two images of `densematch match` have: from files, from --K or --fov, from the list of pairs, or,
as a guess, from what the images say of their focal length."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ros2_densematch.cli.errors import InputError
from ros2_densematch.cli.pairs import Pair

if TYPE_CHECKING:
    from ros2_densematch.geometry.camera import Camera

Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class KnownCameras:
    """The cameras of a pair.

    Attributes:
        reference, query: of the stored images.
        source: where they come from, in words.
        guess: whether they are only a guess: fundamental matrix and homography then stand beside the pose.
    """

    reference: Camera
    query: Camera
    source: str
    guess: bool = False

    @property
    def pair(self) -> tuple[Camera, Camera]:
        """Both."""
        return self.reference, self.query


def _guessed(pair: Pair) -> KnownCameras | None:
    """Cameras by the focal lengths that both images tell, or None."""
    from ros2_densematch.files.exif import read_exif
    from ros2_densematch.geometry.camera import Camera

    first, second = read_exif(pair.reference), read_exif(pair.query)
    if first.focal_px is None or second.focal_px is None:
        return None
    told = f"{first.focal_source}, {first.focal_px:.0f} px"
    if second.focal_px != first.focal_px:
        told += f", and {second.focal_source}, {second.focal_px:.0f} px"
    source = f"focal length guessed from EXIF ({told})"
    return KnownCameras(Camera.from_exif(pair.reference), Camera.from_exif(pair.query), source, guess=True)


@dataclass(frozen=True)
class PairCameras:
    """The cameras that the options name.

    Attributes:
        files: cameras of reference and query from calibration files, or None.
        names: the options that named the two files, as the user wrote them.
        intrinsics: (fx, fy, cx, cy) in pixels of both images, or None.
        fov_deg: horizontal field of view of both images in degrees, or None.
    """

    files: tuple[Camera, Camera] | None = None
    names: tuple[str, str] = ("", "")
    intrinsics: tuple[float, float, float, float] | None = None
    fov_deg: float | None = None

    def given(self, pair: Pair) -> bool:
        """Whether the cameras of a pair are known without a guess."""
        return pair.reference_K is not None or any((self.files, self.intrinsics, self.fov_deg))

    def of(self, pair: Pair, reference_size: Size, query_size: Size) -> KnownCameras | None:
        """The cameras of a pair whose stored images have these sizes (width, height); None where nothing is known.

        Raises:
            ValueError: a calibration does not fit its image.
        """
        from ros2_densematch.geometry.camera import Camera

        if pair.reference_K is not None and pair.query_K is not None:
            first = Camera.from_matrix(pair.reference_K, *reference_size)
            second = Camera.from_matrix(pair.query_K, *query_size)
            return KnownCameras(first, second, "list of pairs")
        if self.files is not None:
            first = _fitted(self.files[0], reference_size, self.names[0])
            second = _fitted(self.files[1], query_size, self.names[1])
            return KnownCameras(first, second, "calibration file")
        if self.intrinsics is None and self.fov_deg is None:
            return _guessed(pair)
        source = "--fov" if self.intrinsics is None else "--K"
        return KnownCameras(self._simple(*reference_size), self._simple(*query_size), source)

    def origin(self, pair: Pair) -> str:
        """Where the cameras of a pair come from, as the user wrote it."""
        if pair.reference_K is not None:
            return f"line {pair.line}"
        if self.intrinsics is not None:
            return f"--K {','.join(f'{value:g}' for value in self.intrinsics)}"
        return f"--fov {self.fov_deg:g}" if self.fov_deg is not None else " and ".join(dict.fromkeys(self.names))

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
        raise InputError("--reference-camera, --K and --fov exclude each other: give one of them")
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
    names = f"--reference-camera {reference}", f"--query-camera {query}"
    if query is None:
        return PairCameras((first, first), (names[0], names[0]))
    return PairCameras((first, Camera.from_yaml(query)), names)


def _fitted(camera: Camera, size: Size, name: str) -> Camera:
    try:
        return camera.for_image(*size)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from None


def _four_numbers(text: str) -> tuple[float, float, float, float]:
    try:
        fx, fy, cx, cy = (float(word) for word in text.split(","))
    except ValueError:
        raise InputError(f"--K {text}: write four numbers fx,fy,cx,cy in pixels") from None
    if not (0 < fx < math.inf and 0 < fy < math.inf and math.isfinite(cx) and math.isfinite(cy)):
        raise InputError(f"--K {text}: fx and fy must be positive numbers of pixels, cx and cy numbers of pixels")
    return fx, fy, cx, cy
