"""Calibrations as other tools write them: recognised by content, read into the fields of a CameraInfo.

Read here: ROS camera files and `ros2 topic echo` dumps, OpenCV's FileStorage, Kalibr's camchain, EuRoC's sensor.yaml,
the settings of ORB-SLAM2/3 and VINS, COLMAP's cameras.txt, KITTI's calib.txt (odometry and raw), TUM's calib.txt
(`fx fy cx cy ...`) and the camera.txt of TUM's monocular data set. A lens model that this project lacks is named, and
so is what a file leaves open (which of several cameras, the image size); nothing is guessed.

Pixel convention of the answer: (0, 0) is the centre of the top-left pixel. COLMAP puts its origin half a pixel further
up and left, which is taken into account.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import camera_info
from ros2_densematch.geometry.camera_info import CameraInfo

Size = tuple[int, int]

_FORMS = (
    "ROS camera_info, ros2 topic echo, OpenCV FileStorage, Kalibr camchain, EuRoC sensor.yaml, ORB-SLAM or VINS "
    "settings, COLMAP cameras.txt, KITTI or TUM calib.txt"
)
_MODELS = "pinhole cameras with plumb_bob, rational_polynomial or equidistant distortion"
_NO_NUMBERS: Float64 = np.zeros(0)


def from_yaml_content(content: dict[str, Any], which: str = "", size: Size | None = None) -> CameraInfo:
    """The calibration in the keys and values of a YAML file.

    Args:
        content: the file's mapping.
        which: name of the camera where the file holds several, as cam1 or Camera2; "" = its only one.
        size: (width, height) of the images, for a file that does not say it.

    Raises:
        ValueError, TypeError, AttributeError: an unknown form, a lens model that is not supported, a missing key, or
            several cameras of which none was chosen; the message names it.
    """
    for knows, read in _YAML_FORMS:
        if knows(content):
            return read(content, which, size)
    keys = ", ".join(map(str, list(content)[:8]))
    raise ValueError(f"key image_width is missing, and the keys ({keys}) match no supported calibration: {_FORMS}")


def from_text(text: str, which: str = "", size: Size | None = None) -> CameraInfo | None:
    """The calibration in a file that is no YAML: COLMAP, KITTI, TUM; None where the text is none of them.

    Args, raises: as `from_yaml_content`.
    """
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if lines and all(re.match(r"\d+ [A-Z_]+ \d+ \d+ [-+.\de ]+$", line) for line in lines):
        return _colmap(lines, which)
    rows = {key: values for line in lines if (found := _kitti_row(line)) for key, values in [found]}
    if any(re.fullmatch(r"P(_rect_)?\d+", key) for key in rows):
        return _kitti(rows, which, size)
    return _tum(lines, size)


# ---- YAML forms


def _is_ros(content: Mapping[str, Any]) -> bool:
    return "camera_matrix" in content or ("image_width" in content and "distortion_model" in content)


def _ros(content: dict[str, Any], _which: str, size: Size | None) -> CameraInfo:
    if str(content.get("fisheye_model", 0)) in ("1", "True"):
        content = {**content, "distortion_model": "equidistant"}
    if size is not None:
        content = {"image_width": size[0], "image_height": size[1], **content}
    return camera_info.from_mapping(content)


def _is_echo(content: Mapping[str, Any]) -> bool:
    return "width" in content and ("k" in content or "K" in content)


def _echo(content: dict[str, Any], _which: str, _size: Size | None) -> CameraInfo:
    def numbers(key: str) -> Float64:
        return np.asarray(content.get(key, content.get(key.upper(), [])), np.float64).ravel()

    header, roi = content.get("header") or {}, content.get("roi") or {}
    x, y, width, height = (int(roi.get(key, 0)) for key in ("x_offset", "y_offset", "width", "height"))
    return CameraInfo(
        frame_id=str(header.get("frame_id", "")),
        size=(int(content["width"]), int(_need(content, "height"))),
        K=numbers("k"),
        D=numbers("d"),
        P=numbers("p"),
        distortion_model=str(content.get("distortion_model", "plumb_bob")),
        binning=(int(content.get("binning_x", 0)), int(content.get("binning_y", 0))),
        roi=(x, y, width, height),
    )


def _is_kalibr(content: Mapping[str, Any]) -> bool:
    return any(re.fullmatch(r"cam\d+", str(key)) and isinstance(value, dict) for key, value in content.items())


def _kalibr(content: dict[str, Any], which: str, size: Size | None) -> CameraInfo:
    cameras = {str(k): v for k, v in content.items() if re.fullmatch(r"cam\d+", str(k)) and isinstance(v, dict)}
    name = _chosen(cameras, which)
    return _intrinsics(cameras[name], str(cameras[name].get("rostopic", name)), "distortion_coeffs", size)


def _is_euroc(content: Mapping[str, Any]) -> bool:
    return "intrinsics" in content and "camera_model" in content


def _euroc(content: dict[str, Any], _which: str, size: Size | None) -> CameraInfo:
    key = "distortion_coefficients" if "distortion_coefficients" in content else "distortion_coeffs"
    return _intrinsics(content, "", key, size)


def _intrinsics(content: Mapping[str, Any], frame_id: str, coefficients: str, size: Size | None) -> CameraInfo:
    """A camera of Kalibr or EuRoC: camera_model, intrinsics [fx fy cx cy], distortion_model, resolution."""
    model, lens = str(_need(content, "camera_model")).lower(), str(content.get("distortion_model", "none")).lower()
    if model != "pinhole":
        names = {"omni": "omni (Mei)", "ds": "ds (double sphere)", "eucm": "eucm (extended unified)"}
        raise _unsupported(names.get(model, model))
    known = {
        "radtan": "plumb_bob", "radial-tangential": "plumb_bob", "plumb_bob": "plumb_bob", "equidistant": "equidistant",
        "equi": "equidistant", "none": "none",
    }  # fmt: skip
    if lens not in known:
        raise _unsupported(f"pinhole with distortion {lens}")
    fx, fy, cx, cy = _numbers(_need(content, "intrinsics"), 4, "intrinsics")
    D = _NO_NUMBERS if known[lens] == "none" else np.asarray(_need(content, coefficients), np.float64).ravel()
    width, height = content.get("resolution") or size or _no_size("resolution")
    return CameraInfo(frame_id, (int(width), int(height)), _K(fx, fy, cx, cy), D, _NO_NUMBERS, known[lens])


def _is_orbslam(content: Mapping[str, Any]) -> bool:
    return any(re.fullmatch(r"Camera\d?\.fx", str(key)) for key in content)


def _orbslam(content: dict[str, Any], which: str, size: Size | None) -> CameraInfo:
    names = {str(key).removesuffix(".fx"): None for key in content if re.fullmatch(r"Camera\d?\.fx", str(key))}
    name = _chosen(names, which)
    fx, fy, cx, cy = (float(_need(content, f"{name}.{key}")) for key in ("fx", "fy", "cx", "cy"))
    kind = str(content.get("Camera.type", "PinHole"))
    keys: tuple[str, ...]
    width = content.get("Camera.width", None if size is None else size[0])
    height = content.get("Camera.height", None if size is None else size[1])
    if width is None or height is None:
        width, height = _no_size("Camera.width and Camera.height")
    if kind.lower() in ("kannalabrandt8", "kannalabrandt"):
        model, keys = "equidistant", ("k1", "k2", "k3", "k4")
    elif kind.lower() in ("pinhole", "rectified"):
        model, keys = "plumb_bob", ("k1", "k2", "p1", "p2", "k3")
    else:
        raise _unsupported(f"Camera.type {kind}")
    D = np.array([float(content.get(f"{name}.{key}", 0.0)) for key in keys])
    return CameraInfo("", (int(width), int(height)), _K(fx, fy, cx, cy), D, _NO_NUMBERS, model)


def _is_vins(content: Mapping[str, Any]) -> bool:
    return "model_type" in content


def _vins(content: dict[str, Any], _which: str, size: Size | None) -> CameraInfo:
    kind = str(content["model_type"]).upper()
    frame_id = str(content.get("camera_name", ""))
    width = content.get("image_width", None if size is None else size[0])
    height = content.get("image_height", None if size is None else size[1])
    if width is None or height is None:
        width, height = _no_size("image_width and image_height")
    shape, projection = (int(width), int(height)), content.get("projection_parameters") or {}
    if kind == "PINHOLE":
        fx, fy, cx, cy = (float(_need(projection, key)) for key in ("fx", "fy", "cx", "cy"))
        lens = content.get("distortion_parameters") or {}
        D = np.array([float(lens.get(key, 0.0)) for key in ("k1", "k2", "p1", "p2")])
        return CameraInfo(frame_id, shape, _K(fx, fy, cx, cy), D, _NO_NUMBERS, "plumb_bob")
    if kind == "KANNALA_BRANDT":
        fx, fy, cx, cy = (float(_need(projection, key)) for key in ("mu", "mv", "u0", "v0"))
        D = np.array([float(_need(projection, key)) for key in ("k2", "k3", "k4", "k5")])
        return CameraInfo(frame_id, shape, _K(fx, fy, cx, cy), D, _NO_NUMBERS, "equidistant")
    raise _unsupported(f"model_type {kind}")


_Knows = Callable[[Mapping[str, Any]], bool]
_Read = Callable[[dict[str, Any], str, "Size | None"], CameraInfo]
_YAML_FORMS: tuple[tuple[_Knows, _Read], ...] = (
    (_is_vins, _vins),  # before ROS: it has image_width too
    (_is_ros, _ros),
    (_is_echo, _echo),
    (_is_kalibr, _kalibr),
    (_is_euroc, _euroc),
    (_is_orbslam, _orbslam),
)


# ---- text forms

# COLMAP's model -> (our model, which parameters are fx fy cx cy, which are the coefficients; -1 = 0)
_COLMAP: dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]] = {
    "SIMPLE_PINHOLE": ("none", (0, 0, 1, 2), ()),
    "PINHOLE": ("none", (0, 1, 2, 3), ()),
    "SIMPLE_RADIAL": ("plumb_bob", (0, 0, 1, 2), (3, -1, -1, -1)),
    "RADIAL": ("plumb_bob", (0, 0, 1, 2), (3, 4, -1, -1)),
    "OPENCV": ("plumb_bob", (0, 1, 2, 3), (4, 5, 6, 7)),
    "FULL_OPENCV": ("rational_polynomial", (0, 1, 2, 3), (4, 5, 6, 7, 8, 9, 10, 11)),
    "OPENCV_FISHEYE": ("equidistant", (0, 1, 2, 3), (4, 5, 6, 7)),
    "SIMPLE_RADIAL_FISHEYE": ("equidistant", (0, 0, 1, 2), (3, -1, -1, -1)),
    "RADIAL_FISHEYE": ("equidistant", (0, 0, 1, 2), (3, 4, -1, -1)),
}


def _colmap(lines: list[str], which: str) -> CameraInfo:
    cameras = {line.split()[0]: line.split()[1:] for line in lines}
    name = _chosen(cameras, which)
    kind, width, height, *words = cameras[name]
    if kind not in _COLMAP:
        raise _unsupported(f"COLMAP's {kind}")
    model, focal, lens = _COLMAP[kind]
    needed = max((*focal, *lens)) + 1
    values = _numbers(words, needed, f"the parameters of {kind}")
    fx, fy, cx, cy = (values[i] for i in focal)
    D = np.array([values[i] if i >= 0 else 0.0 for i in lens])
    return CameraInfo("", (int(width), int(height)), _K(fx, fy, cx - 0.5, cy - 0.5), D, _NO_NUMBERS, model)


def _kitti_row(line: str) -> tuple[str, list[float]] | None:
    key, colon, rest = line.partition(":")
    try:
        return (key.strip(), [float(word) for word in rest.split()]) if colon and rest.split() else None
    except ValueError:
        return None


def _kitti(rows: dict[str, list[float]], which: str, size: Size | None) -> CameraInfo:
    """Rectified projections: P0 to P3 of the odometry data, P_rect_00 to P_rect_03 of the raw data."""
    projections = {key: values for key, values in rows.items() if re.fullmatch(r"P(_rect_)?\d+", key)}
    name = _chosen(projections, which)
    P = np.array(_numbers(projections[name], 12, name))
    stated = rows.get(name.replace("P_rect_", "S_rect_")) if name.startswith("P_rect_") else None
    width, height = stated or size or _no_size("image size")
    return CameraInfo("", (int(width), int(height)), P.reshape(3, 4)[:, :3].ravel(), _NO_NUMBERS, P, "none")


def _tum(lines: list[str], size: Size | None) -> CameraInfo | None:
    """`fx fy cx cy [k1 k2 p1 p2 [k3]]`, or that of the monocular data set: `[NAME] fx fy cx cy omega` and a size."""
    try:
        head = lines[0].split()
        fov_name = head[0].isalpha()
        values = [float(word) for word in (head[1:] if fov_name else head)]
    except (IndexError, ValueError):
        return None
    if len(values) < 4:
        return None
    if fov_name or len(values) == 5:
        kind = head[0].lower() if fov_name else "fov"
        if kind == "fov" and values[4:5] != [0.0]:
            raise _unsupported("FOV (Devernay and Faugeras)")
        if kind not in ("fov", "pinhole"):
            raise _unsupported(head[0])
        stated = lines[1].split() if len(lines) > 1 else []
        shape = (int(stated[0]), int(stated[1])) if len(stated) == 2 else size or _no_size("image size")
        fx, fy, cx, cy = values[:4]
        if max(fx, fy, cx, cy) < 3.0:  # relative to the image size, whose outer edge is 0 there
            fx, cx, fy, cy = fx * shape[0], cx * shape[0] - 0.5, fy * shape[1], cy * shape[1] - 0.5
        return CameraInfo("", shape, _K(fx, fy, cx, cy), _NO_NUMBERS, _NO_NUMBERS, "none")
    if len(lines) > 1 or len(values) not in (4, 8, 9):
        return None
    shape = size or _no_size("image size")
    D = np.array(values[4:])
    return CameraInfo("", shape, _K(*values[:4]), D, _NO_NUMBERS, "plumb_bob" if D.size else "none")


# ---- common


def _K(fx: float, fy: float, cx: float, cy: float) -> Float64:
    return np.array([fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0])


def _need(content: Mapping[str, Any], key: str) -> Any:
    if key not in content:
        raise ValueError(f"key {key} is missing")
    return content[key]


def _numbers(values: Any, count: int, name: str) -> list[float]:
    found = [float(value) for value in values]
    if len(found) != count:
        raise ValueError(f"{name} must be {count} numbers, got {len(found)}")
    return found


def _chosen(cameras: Mapping[str, Any], which: str) -> str:
    """The camera that was asked for, or the only one."""
    if which:
        if which in cameras:
            return which
        raise ValueError(f"there is no camera {which!r}, only {', '.join(cameras)}")
    if len(cameras) > 1:
        last = list(cameras)[-1]
        raise ValueError(
            f"the file contains {', '.join(cameras)}: choose one after the file name, for example FILE#{last}"
        )
    return next(iter(cameras))


def _unsupported(model: str) -> ValueError:
    return ValueError(f"the lens model {model} is not supported: calibrate again, or convert it to {_MODELS}")


def _no_size(what: str) -> Size:
    raise ValueError(
        f"{what} is missing, so the image size is unknown: add it after the file name, for example FILE@1241x376"
    )
