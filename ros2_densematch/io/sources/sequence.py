"""Frames out of a folder with frames.csv and camera.json: images, some depth maps, true poses."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.trajectory import Trajectory
from ros2_densematch.io.sources.base import Companions, Picture, Source
from ros2_densematch.io.sources.files import load_camera, read_image
from ros2_densematch.io.sources.log import SourceLog
from ros2_densematch.io.sources.options import SourceOptions, refuse_topics
from ros2_densematch.io.sources.stamps import MAX_STAMP_NS
from ros2_densematch.io.sources.thinning import usual_period_s
from ros2_densematch.messages.compressed import decode_file
from ros2_densematch.messages.image import ImageDecodeError

_POSE_COLUMNS = ("tx", "ty", "tz", "qx", "qy", "qz", "qw")


@dataclass(frozen=True)
class _Row:
    stamp_ns: int
    image: str
    depth: str
    T_world_from_camera: NDArray[np.float64] | None


class SequenceSource(Source):
    """A folder with `frames.csv` (index,timestamp_ns,image,depth,tx,ty,tz,qx,qy,qz,qw; pose camera to world, depth and
    pose columns optional) and `camera.json` (width, height, K, distortion_model, D, depth_scale); see `FrameSource`.

    Raises:
        ValueError: one of the two files is damaged; the message names the line or the key.
    """

    def __init__(self, path: Path, options: SourceOptions):
        super().__init__(path.resolve().name, options)
        self._folder = path
        refuse_topics(options, path)
        self._rows = _read_rows(path / "frames.csv", self._log)
        if not self._rows:
            raise ValueError(f"{path / 'frames.csv'} lists no readable frame: {'; '.join(self._log.warnings)}")
        self._count = len(self._rows)
        self._period_s = usual_period_s([row.stamp_ns for row in self._rows])
        camera, self._depth_scale = self._read_camera(options)
        self._calibrate(camera, origin=options.camera_yaml or path / "camera.json")
        self.ground_truth = _trajectory(self._rows)

    def _pictures(self) -> Iterator[Picture]:
        for row in self._rows:
            decode, companions = partial(self._read_image, row), partial(self._read_companions, row)
            yield Picture(row.stamp_ns, row.image, decode, companions)

    def _read_image(self, row: _Row) -> NDArray[np.uint8]:
        return read_image(self._inside(row.image))

    def _read_companions(self, row: _Row, stamp_ns: int) -> Companions:
        return Companions(depth=self._read_depth(row))

    def _read_depth(self, row: _Row) -> NDArray[np.float32] | None:
        if not row.depth:
            return None
        try:
            values = decode_file(self._inside(row.depth).read_bytes(), row.depth)
            if values.ndim != 2 or values.dtype != np.uint16:
                raise ImageDecodeError(row.depth, f"{values.dtype} {values.shape}", "depth files are 16-bit grey png")
        except (OSError, ImageDecodeError) as error:
            self._log.count("depth images could not be decoded and are not used", f"{row.depth}, {error}")
            return None
        depth = values.astype(np.float32) / np.float32(self._depth_scale)
        depth[values == 0] = np.nan
        return np.asarray(depth, np.float32)

    def _inside(self, name: str) -> Path:
        """A file of the folder.

        Raises:
            ImageDecodeError: the name points outside the folder.
        """
        file = (self._folder / name).resolve()
        if not file.is_relative_to(self._folder.resolve()):
            raise ImageDecodeError(name, "the name points outside the folder", "keep images next to frames.csv")
        return file

    def _read_camera(self, options: SourceOptions) -> tuple[Camera | None, float]:
        file = self._folder / "camera.json"
        content: dict[str, object] = {}
        if file.is_file():
            try:
                content = json.loads(file.read_text("utf-8"))
            except ValueError as error:
                raise ValueError(f"{file} is not a JSON file ({error}): see the layout in docs/formats.md") from None
            if not isinstance(content, dict):
                raise ValueError(f"{file} must contain an object with width, height and K: see docs/formats.md")
        scale = content.get("depth_scale", 1000.0)
        if not isinstance(scale, (int, float)) or not scale > 0:
            raise ValueError(f"{file}: depth_scale must be a number above 0 (units per metre), got {scale!r}")
        given = load_camera(options.camera_yaml, options)
        if given is not None:
            return given, float(scale)
        if "K" not in content:
            self._log.warn(f"{self.name} has no calibration (camera.json with K): correspondences only, no poses")
            return None, float(scale)
        try:
            model = str(content.get("distortion_model", "none"))
            camera = Camera(
                int(content["width"]),  # type: ignore[call-overload]  # what is no number raises below
                int(content["height"]),  # type: ignore[call-overload]
                np.asarray(content["K"], np.float64).reshape(3, 3),
                model,  # type: ignore[arg-type]  # checked by Camera
                np.zeros(0) if model == "none" else np.asarray(content.get("D", []), np.float64),
                str(content.get("frame_id", "")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file} cannot be used ({type(error).__name__}: {error}): see docs/formats.md") from None
        return camera, float(scale)


def _read_rows(file: Path, log: SourceLog) -> list[_Row]:
    rows = []
    with file.open(newline="", encoding="utf-8-sig", errors="replace") as stream:  # spreadsheets begin with a mark
        reader = csv.DictReader(stream)
        missing = [name for name in ("timestamp_ns", "image") if name not in (reader.fieldnames or [])]
        if missing:
            raise ValueError(
                f"{file} has no column {' or '.join(missing)}: its first line must name the columns, with commas "
                "between them"
            )
        try:
            for number, row in enumerate(reader, 2):
                try:
                    rows.append(_row(row))
                except ValueError as error:
                    log.count(f"lines of {file.name} cannot be read and are skipped", f"line {number}, {error}")
        except csv.Error as error:
            log.warn(f"{file.name} is damaged ({error}): reading ended after {len(rows)} frames")
    return rows


def _row(row: dict[str, str]) -> _Row:
    if not row["image"]:
        raise ValueError("the column image is empty")
    try:
        stamp_ns = int(row["timestamp_ns"] or "")
    except ValueError:
        raise ValueError(f"timestamp_ns {row['timestamp_ns']!r} is not a whole number of nanoseconds") from None
    if not 0 <= stamp_ns < MAX_STAMP_NS:
        raise ValueError(f"timestamp_ns must lie in 0..{MAX_STAMP_NS - 1}, got {stamp_ns}")
    pose = [row.get(name) or "" for name in _POSE_COLUMNS]
    T = None
    if all(pose):
        values = [float(value) for value in pose]
        if not np.all(np.isfinite(values)):
            raise ValueError(f"the pose {values} is not finite")
        T = poses.pose_from_quaternion(values[:3], values[3:])
    return _Row(stamp_ns, row["image"], row.get("depth") or "", T)


def _trajectory(rows: list[_Row]) -> Trajectory | None:
    known = [(row.stamp_ns, row.T_world_from_camera) for row in rows if row.T_world_from_camera is not None]
    if not known:
        return None
    stamps, index = np.unique(np.array([stamp for stamp, _ in known], np.int64), return_index=True)
    return Trajectory(stamps, np.stack([known[i][1] for i in index]))
