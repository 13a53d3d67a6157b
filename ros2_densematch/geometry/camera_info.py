"""What a calibration says, as in a sensor_msgs/CameraInfo message or a camera YAML file of ROS: the numbers as given.

`Camera` makes a camera of them; files are read and written in `files.camera_yaml`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ros2_densematch.arrays import Float64


@dataclass(frozen=True, eq=False)
class CameraInfo:
    """The fields of CameraInfo that decide the camera of an image, none of them checked.

    Attributes:
        frame_id: name of the optical frame, or "".
        size: (width, height) of the full image in pixels.
        K, D, P: float64, flat, in pixels; D and P are empty where they are not given.
        distortion_model: its name in ROS.
        binning: (x, y); 0 and 1 both mean none.
        roi: (x, y, width, height) in unbinned pixels; all 0 = the whole image.
    """

    frame_id: str
    size: tuple[int, int]
    K: Float64
    D: Float64
    P: Float64
    distortion_model: str
    binning: tuple[int, int] = (0, 0)
    roi: tuple[int, int, int, int] = (0, 0, 0, 0)


def from_message(msg: Any) -> CameraInfo:
    """The fields of a CameraInfo message of ROS 1 (K, D, P), ROS 2 (k, d, p) or the rosbags library.

    Raises:
        ValueError: a field is missing.
    """
    roi = getattr(msg, "roi", None)
    return CameraInfo(
        frame_id=str(msg.header.frame_id) if hasattr(msg, "header") else "",
        size=(int(msg.width), int(msg.height)),
        K=_field(msg, "k"),
        D=_field(msg, "d"),
        P=_field(msg, "p"),
        distortion_model=str(msg.distortion_model),
        binning=(int(getattr(msg, "binning_x", 0)), int(getattr(msg, "binning_y", 0))),
        roi=(0, 0, 0, 0) if roi is None else (int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height)),
    )


def from_mapping(content: dict[str, Any]) -> CameraInfo:
    """The fields of a camera YAML file as ROS' camera calibrator writes it.

    Keys: image_width, image_height, camera_matrix, distortion_model, distortion_coefficients and optionally
    camera_name, projection_matrix, binning_x, binning_y, roi (x_offset, y_offset, width, height).

    Raises:
        ValueError, TypeError, AttributeError: a key is missing or holds something else; the message names it.
    """
    roi = content.get("roi") or {}
    x, y, width, height = (int(roi.get(key, 0)) for key in ("x_offset", "y_offset", "width", "height"))
    return CameraInfo(
        frame_id=str(content.get("camera_name", "")),
        size=(_integer(content, "image_width"), _integer(content, "image_height")),
        K=_matrix(content, "camera_matrix"),
        D=_matrix(content, "distortion_coefficients", required=False),
        P=_matrix(content, "projection_matrix", required=False),
        distortion_model=str(content.get("distortion_model", "plumb_bob")),
        binning=(int(content.get("binning_x", 0)), int(content.get("binning_y", 0))),
        roi=(x, y, width, height),
    )


def to_mapping(info: CameraInfo) -> dict[str, Any]:
    """The content of a camera YAML file; `binning` and `roi` are left out, as `Camera` has taken them into account."""
    return {
        "image_width": info.size[0],
        "image_height": info.size[1],
        "camera_name": info.frame_id,
        "camera_matrix": _yaml_matrix(info.K.reshape(3, 3)),
        "distortion_model": info.distortion_model,
        "distortion_coefficients": _yaml_matrix(info.D.reshape(1, -1)),
        "rectification_matrix": _yaml_matrix(np.eye(3)),
        "projection_matrix": _yaml_matrix(info.P.reshape(3, 4)),
    }


def is_rectified_topic(topic: str) -> bool:
    """Whether an image topic's name says that its images are rectified, as `/camera/image_rect_color` does."""
    parts = [part for name in topic.lower().split("/") for part in name.split("_")]
    return any(part in ("rect", "rectified") for part in parts)


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
