"""Cameras from sensor_msgs/CameraInfo messages and from camera YAML files in ROS' camera_info format, and back."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray

from ros2_densematch.geometry.camera import Camera, Rectified, UncalibratedCameraError

Float64 = NDArray[np.float64]


def read_message(msg: Any, rectified: Rectified = "auto", image_topic: str = "") -> Camera:
    """A camera from a CameraInfo message of ROS 1 (K, D, P), ROS 2 (k, d, p) or the rosbags library.

    Args:
        msg: the message; binning and region of interest are applied, so that the camera is that of the image as sent.
        rectified: True: the image is rectified, use P and no distortion. False: it is raw, use K and D. "auto":
            rectified where the image topic's name says so (image_rect, image_rect_color), raw otherwise.
        image_topic: name of the image topic, for "auto".

    Raises:
        UncalibratedCameraError: K[0] is 0 (or P[0] where the image is rectified).
        ValueError: a field is missing, out of range or of another size.
    """
    roi = getattr(msg, "roi", None)
    return _build(
        name=str(msg.header.frame_id) if hasattr(msg, "header") else "",
        size=(int(msg.width), int(msg.height)),
        K=_field(msg, "k"),
        D=_field(msg, "d"),
        P=_field(msg, "p"),
        model=str(msg.distortion_model),
        binning=(int(getattr(msg, "binning_x", 0)), int(getattr(msg, "binning_y", 0))),
        roi=(0, 0, 0, 0) if roi is None else (int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height)),
        rectified=is_rectified_topic(image_topic) if rectified == "auto" else bool(rectified),
    )


def is_rectified_topic(topic: str) -> bool:
    """Whether an image topic's name says that its images are rectified, as `/camera/image_rect_color` does."""
    parts = [part for name in topic.lower().split("/") for part in name.split("_")]
    return any(part in ("rect", "rectified") for part in parts)


def read_yaml(path: str | Path, rectified: Rectified = "auto") -> Camera:
    """A camera from a YAML file as ROS' camera calibrator writes it.

    Keys: image_width, image_height, camera_matrix, distortion_model, distortion_coefficients and optionally
    camera_name, projection_matrix, binning_x, binning_y, roi (x_offset, y_offset, width, height). OpenCV's
    `%YAML:1.0` header and `!!opencv-matrix` tags are read as well.

    Args:
        path: the file.
        rectified: as in `read_message`; "auto" means raw, because a file names no topic.

    Raises:
        FileNotFoundError: there is no such file.
        UncalibratedCameraError: K[0] is 0.
        ValueError: the file is not such a YAML file; the message names the file and the key.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no camera file {path}")
    try:
        text = path.read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if not line.startswith("%YAML")]
        content = yaml.load("\n".join(lines), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a YAML file: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a camera file: expected keys such as image_width and camera_matrix")
    try:
        roi = content.get("roi") or {}
        return _build(
            name=str(content.get("camera_name", "")),
            size=(_integer(content, "image_width"), _integer(content, "image_height")),
            K=_matrix(content, "camera_matrix"),
            D=_matrix(content, "distortion_coefficients", required=False),
            P=_matrix(content, "projection_matrix", required=False),
            model=str(content.get("distortion_model", "plumb_bob")),
            binning=(int(content.get("binning_x", 0)), int(content.get("binning_y", 0))),
            roi=tuple(int(roi.get(key, 0)) for key in ("x_offset", "y_offset", "width", "height")),
            rectified=rectified is True,
        )
    except UncalibratedCameraError as error:
        raise UncalibratedCameraError(f"{path}: {error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from None


def write_yaml(camera: Camera, path: str | Path) -> None:
    """Writes a camera as a YAML file in ROS' camera_info format; a partly written file is never left behind."""
    P = camera.P if camera.P is not None else np.concatenate([camera.K, np.zeros((3, 1))], 1)
    # ROS has no model named "none": zero coefficients of plumb_bob say the same to every reader.
    plain = camera.distortion_model == "none"
    content: dict[str, Any] = {
        "image_width": camera.width,
        "image_height": camera.height,
        "camera_name": camera.frame_id,
        "camera_matrix": _yaml_matrix(camera.K),
        "distortion_model": "plumb_bob" if plain else camera.distortion_model,
        "distortion_coefficients": _yaml_matrix(np.zeros((1, 5)) if plain else camera.D[None]),
        "rectification_matrix": _yaml_matrix(np.eye(3)),
        "projection_matrix": _yaml_matrix(P),
    }
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            yaml.safe_dump(content, file, sort_keys=False, default_flow_style=None)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _build(
    *,
    name: str,
    size: tuple[int, int],
    K: Float64,
    D: Float64,
    P: Float64,
    model: str,
    binning: tuple[int, int],
    roi: tuple[int, ...],
    rectified: bool,
) -> Camera:
    if K.size != 9:
        raise ValueError(f"K must have 9 entries, got {K.size}")
    projection = P.reshape(3, 4) if P.size == 12 and P.reshape(3, 4)[0, 0] != 0 else None
    if rectified:
        if projection is None and K[0] != 0:
            raise UncalibratedCameraError(
                f"camera {name!r}: the image is said to be rectified, but P is missing or P[0] = 0: "
                "give the calibration with P, or say rectified=false"
            )
        matrix = K.reshape(3, 3) if projection is None else projection[:, :3]
        camera = Camera(*size, matrix, frame_id=name, P=projection)
    else:
        camera = Camera(*size, K.reshape(3, 3), model, D, frame_id=name, P=projection)  # type: ignore[arg-type]  # checked by Camera
    return _window(camera, binning, roi)


def _window(camera: Camera, binning: tuple[int, int], roi: tuple[int, ...]) -> Camera:
    """Region of interest (in unbinned pixels), then binning, in the order that CameraInfo defines."""
    x, y, width, height = roi
    if any(value < 0 for value in (*roi, *binning)):
        raise ValueError(f"camera {camera.frame_id!r}: negative region of interest {roi} or binning {binning}")
    # A region of zero size means the whole image.
    width, height = width or camera.width - x, height or camera.height - y
    if x + width > camera.width or y + height > camera.height or width < 1 or height < 1:
        raise ValueError(
            f"camera {camera.frame_id!r}: the region of interest {width} x {height} at ({x}, {y}) leaves the image of "
            f"{camera.width} x {camera.height}"
        )
    if (x, y, width, height) != (0, 0, *camera.size):
        camera = camera.cropped(x, y, width, height)
    bin_x, bin_y = max(binning[0], 1), max(binning[1], 1)
    if (bin_x, bin_y) == (1, 1):
        return camera
    if width < bin_x or height < bin_y:
        raise ValueError(f"camera {camera.frame_id!r}: binning {bin_x} x {bin_y} leaves nothing of {width} x {height}")
    # Rows and columns that do not fill a whole bin are dropped by the sensor.
    camera = camera.cropped(0, 0, width // bin_x * bin_x, height // bin_y * bin_y)
    return camera.resized(width // bin_x, height // bin_y)


def _field(msg: Any, name: str) -> Float64:
    value: ArrayLike | None = getattr(msg, name, None)
    if value is None:
        value = getattr(msg, name.upper(), None)
    if value is None:
        raise ValueError(f"the message {type(msg).__name__} has no field {name}: expected a sensor_msgs/CameraInfo")
    return np.asarray(value, np.float64).ravel()


def _integer(content: dict[str, Any], key: str) -> int:
    if key not in content:
        raise ValueError(f"key {key} is missing")
    return int(content[key])


def _matrix(content: dict[str, Any], key: str, *, required: bool = True) -> Float64:
    entry = content.get(key)
    if entry is None:
        if required:
            raise ValueError(f"key {key} is missing")
        return np.zeros(0, np.float64)
    data = entry.get("data") if isinstance(entry, dict) else entry
    if data is None:
        raise ValueError(f"key {key} has no data")
    return np.asarray(data, np.float64).ravel()


def _yaml_matrix(matrix: Float64) -> dict[str, Any]:
    return {"rows": int(matrix.shape[0]), "cols": int(matrix.shape[1]), "data": [float(v) for v in matrix.ravel()]}


class _Loader(yaml.SafeLoader):
    """A safe loader that also takes the matrices that OpenCV's FileStorage writes."""


def _opencv_matrix(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:opencv-matrix", _opencv_matrix)
