"""A COLMAP database with key points, matches and two-view geometries, written by pycolmap.

COLMAP's origin is the outer corner of the top-left pixel, so half a pixel is added to key points and principal points.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.files.atomic import replacing
from ros2_densematch.files.results_folder import refuse_foreign
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.io.exports.keypoints import IndexedPair, Keypoints

_APPLICATION_ID = int.from_bytes(b"dmtc", "big")  # by which a later export knows its own database
_UNKNOWN_FOCAL = 1.2  # of the longer side: COLMAP's own first guess, refined by its bundle adjustment
_CONFIGURATIONS = ("CALIBRATED", "PLANAR", "PANORAMIC", "PLANAR_OR_PANORAMIC", "DEGENERATE", "WATERMARK")


def write_colmap(
    path: Path, keypoints: dict[str, Keypoints], pairs: Sequence[IndexedPair], camera: Camera | None = None
) -> None:
    """Writes the database, atomically.

    Args:
        path: the .db file.
        keypoints, pairs: of `merge_keypoints`.
        camera: of all images; None = those that the pairs were matched with, else a guess without a prior.

    Raises:
        ModuleNotFoundError: pycolmap is not installed.
        ValueError: the camera does not fit an image.
        ForeignFileError: the file exists and is no earlier export.
    """
    pycolmap = import_module("pycolmap")
    refuse_foreign(path, ours=_is_export(path))
    known = {} if camera is not None else _known_intrinsics(pairs)
    with replacing(path) as file:
        database = pycolmap.Database.open(file)
        ids: dict[str, int] = {}
        cameras: dict[tuple[Any, ...], int] = {}
        for name, points in keypoints.items():
            K = known.get(name)
            model = _camera(pycolmap, points.size, camera, K)
            # images of one size without a known camera may still be of different cameras
            key = (model.model_name, *points.size, *model.params, name if camera is None and K is None else "")
            if key not in cameras:
                cameras[key] = database.write_camera(model)
            ids[name] = database.write_image(pycolmap.Image(name=name, camera_id=cameras[key]))
            database.write_keypoints(ids[name], (points.xy + np.float32(0.5)).astype(np.float32))
        for pair in pairs:
            a, b = ids[pair.pair.reference], ids[pair.pair.query]
            database.write_matches(a, b, pair.index.astype(np.uint32))
            database.write_two_view_geometry(a, b, _geometry(pycolmap, pair))
        database.close()
        with closing(sqlite3.connect(file)) as connection:
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.commit()


def _is_export(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return bool(connection.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION_ID)
    except sqlite3.Error:
        return False


def _known_intrinsics(pairs: Sequence[IndexedPair]) -> dict[str, NDArray[np.float64]]:
    found: dict[str, NDArray[np.float64]] = {}
    for item in pairs:
        for name, K in ((item.pair.reference, item.pair.reference_K), (item.pair.query, item.pair.query_K)):
            if K is not None:
                found.setdefault(name, K)
    return found


def _camera(pycolmap: Any, size: tuple[int, int], camera: Camera | None, K: NDArray[np.float64] | None) -> Any:
    width, height = size
    if camera is not None:
        given = camera.for_image(width, height)
    elif K is not None:
        given = Camera.from_matrix(K, width, height)
    else:
        focal = _UNKNOWN_FOCAL * max(size)
        params = [focal, width / 2.0, height / 2.0, 0.0]
        return pycolmap.Camera(model="SIMPLE_RADIAL", width=width, height=height, params=params)
    intrinsics = [given.K[0, 0], given.K[1, 1], given.K[0, 2] + 0.5, given.K[1, 2] + 0.5]
    model, distortion = _distortion(given)
    made = pycolmap.Camera(model=model, width=width, height=height, params=[*intrinsics, *distortion])
    made.has_prior_focal_length = True
    return made


def _distortion(camera: Camera) -> tuple[str, list[float]]:
    D = [float(v) for v in camera.D]
    if camera.distortion_model == "none":
        return "PINHOLE", []
    if camera.distortion_model == "equidistant":
        return "OPENCV_FISHEYE", D
    if camera.distortion_model == "plumb_bob" and not any(D[4:]):
        return "OPENCV", D[:4]
    if any(D[8:]):
        raise ValueError("COLMAP has no camera model with thin-prism or tilt terms: calibrate without them")
    return "FULL_OPENCV", [*D, 0.0, 0.0, 0.0, 0.0][:8]


def _geometry(pycolmap: Any, item: IndexedPair) -> Any:
    pair = item.pair
    geometry = pycolmap.TwoViewGeometry()
    kinds = pycolmap.TwoViewGeometryConfiguration.__members__
    geometry.inlier_matches = item.index[item.inlier].astype(np.uint32)
    if pair.T_query_from_reference is not None and pair.geometry in _CONFIGURATIONS and pair.geometry in kinds:
        geometry.config = kinds[pair.geometry]
        T = pair.T_query_from_reference
        geometry.E = poses.skew(T[:3, 3]) @ T[:3, :3]
        geometry.cam2_from_cam1 = pycolmap.Rigid3d(T[:3])
    elif pair.fundamental is not None:
        geometry.config = kinds["UNCALIBRATED"]
        # x' F x = 0 with both origins moved by half a pixel
        shift = np.array([[1.0, 0.0, -0.5], [0.0, 1.0, -0.5], [0.0, 0.0, 1.0]])
        geometry.F = shift.T @ pair.fundamental @ shift
    else:
        geometry.config = kinds["DEGENERATE"]
    return geometry
