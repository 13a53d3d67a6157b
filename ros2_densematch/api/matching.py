"""Matching of two images in one line, `match("a.jpg", "b.jpg")`, and the use of the result."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Image
from ros2_densematch.files.exif import exif_of, read_exif
from ros2_densematch.files.shipped import sample_file
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.orientation import back, turned_matches, turned_picture
from ros2_densematch.geometry.relative_pose import RelativePose
from ros2_densematch.geometry.uncalibrated import UncalibratedPair
from ros2_densematch.matchers.base import Matcher


@dataclass(frozen=True, repr=False)
class MatchedImages(Correspondences):
    """Correspondences together with the two images, as `match` returns them.

    Attributes:
        reference_image, query_image: uint8 RGB (H, W, 3) or grey (H, W), as stored.
        reference_orientation, query_orientation: EXIF orientation, 1 to 8, by which `plot` rotates the images.
    """

    reference_image: Image | None = None
    query_image: Image | None = None
    reference_orientation: int = 1
    query_orientation: int = 1

    @cached_property
    def uncalibrated(self) -> UncalibratedPair:
        """Fundamental matrix, homography, and the decision between them."""
        from ros2_densematch.geometry.uncalibrated import estimate_uncalibrated

        return estimate_uncalibrated(self)

    def relative_pose(self, reference_camera: Camera, query_camera: Camera | None = None) -> RelativePose:
        """The relative pose T_query_from_reference; without `query_camera`, both images come from one camera."""
        from ros2_densematch.geometry.two_view import estimate_relative_pose

        cameras = [
            camera.for_image(*size)
            for camera, size in (
                (reference_camera, self.reference_size),
                (query_camera or reference_camera, self.query_size),
            )
        ]
        return estimate_relative_pose(self, cameras[0], cameras[1])

    def plot(self, path: str | Path | None = None, *, max_lines: int = 120) -> Image:
        """Draws both images with lines between matching points and a legend of the colours, rotated as their EXIF data
        asks.

        Args:
            path: file to write (.png or .jpg), or None.
            max_lines: approximate maximum number of lines, the best of each part of the image.

        Returns:
            uint8 (H, W, 3) RGB.

        Raises:
            ValueError: the file name does not have the extension of an image.
        """
        import cv2

        from ros2_densematch.evaluation.pictures import match_picture, with_legend
        from ros2_densematch.files.atomic import write_bytes

        assert self.reference_image is not None
        assert self.query_image is not None
        agree = self.uncalibrated.inliers
        turns = self.reference_orientation, self.query_orientation
        picture = match_picture(
            turned_picture(self.reference_image, turns[0]),
            turned_picture(self.query_image, turns[1]),
            turned_matches(self, *turns),
            agree,
            max_lines=max_lines,
        )
        picture = with_legend(picture, outliers=agree is not None)
        if path is not None:
            suffix = Path(path).suffix.lower()
            if suffix not in (".png", ".jpg", ".jpeg"):
                raise ValueError(f"{path} does not end in .png or .jpg")
            _, data = cv2.imencode(suffix, picture[..., ::-1])
            write_bytes(path, data.tobytes())
        return picture

    def to_opencv(self) -> tuple[list[Any], list[Any], list[Any]]:
        """Key points of both images (cv2.KeyPoint, response = score) and cv2.DMatch with distance 1 - score."""
        import cv2

        points = [
            [cv2.KeyPoint(float(x), float(y), 1.0, -1.0, float(s)) for (x, y), s in zip(xy, self.score, strict=True)]
            for xy in (self.reference_xy, self.query_xy)
        ]
        pairs = [cv2.DMatch(i, i, float(1.0 - s)) for i, s in enumerate(self.score)]
        return points[0], points[1], pairs

    def to_dataframe(self) -> Any:
        """A pandas table with reference_x, reference_y, query_x, query_y, score, and precision_* if known.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        try:
            frame = import_module("pandas").DataFrame
        except ModuleNotFoundError:
            raise ModuleNotFoundError("to_dataframe needs pandas: pip install pandas", name="pandas") from None
        columns = {
            "reference_x": self.reference_xy[:, 0],
            "reference_y": self.reference_xy[:, 1],
            "query_x": self.query_xy[:, 0],
            "query_y": self.query_xy[:, 1],
            "score": self.score,
        }
        if self.precision is not None:
            columns |= {f"precision_{axes}": self.precision[:, i] for i, axes in enumerate(("xx", "xy", "yy"))}
        return frame(columns)


def match(
    reference: Any,
    query: Any,
    *,
    matcher: str | Matcher = "gcm",
    preset: str = "base",
    device: str = "auto",
    mask: Any = None,
    reference_mask: Any = None,
    max_matches: int | None = 5000,
    seed: int = 0,
) -> MatchedImages:
    """Matches two images.

    Args:
        reference, query: path, NumPy array (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA of uint8, uint16 or
            floats in [0, 1], PIL image, or torch tensor (H, W), (C, H, W) or (1, C, H, W). Coordinates are those of the
            stored pixels, as COLMAP and hloc expect. If EXIF data asks for a rotated picture, the matcher receives the
            rotated one, and its matches are transformed back.
        matcher: name, or a matcher from `load_matcher`; a named one is kept for the next call.
        preset, device: as in `load_matcher`, for a named matcher.
        mask: mask of both images, or of the query only if `reference_mask` is given: path of an image, or array (H, W)
            of the stored pixels. Black or zero pixels are not matched (robot body, text in the picture).
        reference_mask: mask of the reference.
        max_matches, seed: as in `Matcher.match`.

    Raises:
        FileNotFoundError: there is no such image file.
        ValueError: a file is not an image, an array has the wrong type or shape, a mask differs in size from its image,
            or the matcher's name is unknown.
        TypeError: an image has an unsupported type.
    """
    chosen = _loaded(matcher, preset, device) if isinstance(matcher, str) else matcher
    images = image_of(reference), image_of(query)
    turns = _orientation_of(reference), _orientation_of(query)
    shown = [turned_picture(image, turn) for image, turn in zip(images, turns, strict=True)]
    given = mask if reference_mask is None else reference_mask, mask
    masks = [
        None if value is None else turned_picture(_mask_of(value, image, name), turn)
        for value, image, name, turn in zip(given, images, ("reference", "query"), turns, strict=True)
    ]
    encodings = chosen.encode(shown[0], reference=True, mask=masks[0]), chosen.encode(shown[1], mask=masks[1])
    found = turned_matches(chosen.match(*encodings, max_matches=max_matches, seed=seed), *map(back, turns))
    values = {field.name: getattr(found, field.name) for field in fields(Correspondences)}
    return MatchedImages(
        **values,
        reference_image=images[0],
        query_image=images[1],
        reference_orientation=turns[0],
        query_orientation=turns[1],
    )


@lru_cache(maxsize=2)
def _loaded(name: str, preset: str, device: str) -> Matcher:
    from ros2_densematch.matchers.registry import load_matcher

    return load_matcher(name, preset=preset, device=device)


def image_of(value: Any) -> Image:
    """uint8 RGB (H, W, 3) or grey (H, W) of whatever people hold an image in; see `match`.

    Raises:
        FileNotFoundError, ValueError, TypeError: as in `match`.
    """
    if isinstance(value, (str, os.PathLike)):
        from ros2_densematch.io.sources.files import read_image

        path = sample_file(Path(value))
        if not path.is_file():
            raise FileNotFoundError(f"there is no image {path}")
        return read_image(path)
    if type(value).__module__.startswith("PIL."):
        value = value.convert("L" if value.mode in ("L", "1") else "RGB") if value.mode[:1] not in "IF" else value
        return _array_image(np.asarray(value))
    if type(value).__module__.partition(".")[0] == "torch":
        return _array_image(_channels_last(value.detach().cpu().numpy()))
    if isinstance(value, np.ndarray):
        return _array_image(value)
    raise TypeError(
        f"an image must be a path, NumPy array, PIL image or torch tensor, got {type(value).__name__}: "
        "convert it with numpy.asarray"
    )


def _mask_of(value: Any, image: Image, name: str) -> NDArray[np.bool_]:
    """Where an image may be matched, bool (H, W)."""
    if isinstance(value, (str, os.PathLike)):
        from ros2_densematch.io.sources.files import load_mask

        if not Path(value).is_file():
            raise FileNotFoundError(f"there is no mask {value}")
        allowed = load_mask(Path(value))
    else:
        allowed = np.asarray(value) > 0
    if allowed.shape != image.shape[:2]:
        size, wanted = (" x ".join(map(str, shape[::-1])) for shape in (allowed.shape, image.shape[:2]))
        raise ValueError(f"the mask of the {name} is {size}, the image {wanted}: use a mask of its size")
    return allowed


def _orientation_of(value: Any) -> int:
    if isinstance(value, (str, os.PathLike)):
        return read_exif(sample_file(Path(value))).orientation
    return exif_of(value).orientation if type(value).__module__.startswith("PIL.") else 1


def _channels_last(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    return np.moveaxis(array, 0, -1) if array.ndim == 3 and array.shape[0] in (1, 3, 4) else array


def _as_a_file_would_be(array: NDArray[np.uint16]) -> Image:
    """16 bits to 8, by the one rule that image files and messages have."""
    import cv2

    from ros2_densematch.messages.image import decode_image_bytes

    _, data = cv2.imencode(".png", array if array.ndim == 2 else array[..., ::-1])
    return decode_image_bytes(data.tobytes(), "a 16-bit image")


def _array_image(array: NDArray[Any]) -> Image:
    if array.ndim == 3 and array.shape[2] in (1, 4):
        array = array[..., 0] if array.shape[2] == 1 else array[..., :3]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise ValueError(f"an image must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got shape {array.shape}")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype == np.bool_:
        return np.ascontiguousarray(array.astype(np.uint8) * 255)
    if array.dtype == np.uint16:
        return _as_a_file_would_be(array)
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ValueError(
                f"an image of floats must lie in [0, 1], got {np.nanmin(array):g} to {np.nanmax(array):g}: "
                "divide by 255"
            )
        return np.ascontiguousarray(np.round(array * 255).astype(np.uint8))
    raise ValueError(f"an image must be uint8, uint16 or floats in [0, 1], got {array.dtype}: convert it")
