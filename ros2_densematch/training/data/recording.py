"""A recording as training material: its frames without lens distortion, reduced, and compressed in memory."""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ros2_densematch.arrays import Float32, Float64, Image
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.io.sources.base import FrameSource
from ros2_densematch.io.sources.opening import open_source
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.io.sources.storage import is_bag, open_records
from ros2_densematch.io.sources.topics import IMAGE_TYPES
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.training.data.posed_views import undistorted
from ros2_densematch.training.images import TrainingDataError

_MAX_POSE_GAP_NS = 200_000_000
_JPEG_QUALITY = 95
_DAMAGE = re.compile(r"could not|cannot be read|damaged")


class RecordingConfig(BaseModel):
    """How a recording is read. Topics are for bags; what is not given is found where there is only one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_topic: str | None = Field(
        None,
        description="The images of a bag come on this topic; null takes the only one.",
    )
    camera_info_topic: str | None = Field(
        None,
        description="The calibration of a bag comes on this topic; null takes the one beside the images.",
    )
    camera_yaml: Path | None = Field(
        None,
        description="The calibration is read from this file instead.",
    )
    depth_topic: str | None = Field(
        None,
        description="The depth images of a bag come on this topic; null takes the only image topic with `depth` in "
        "its name.",
    )
    odometry_topic: str | None = Field(None, description="The poses come on this topic where there is no ground truth.")
    ground_truth_topic: str | None = Field(
        None,
        description="The true poses come on this topic; null takes the only one.",
    )
    rectified: Literal["auto"] | bool = Field(
        "auto",
        description="The images are rectified, so that P counts and no distortion, when this is true; auto looks at "
        "the topic's name.",
    )
    start_s: float | None = Field(None, ge=0, description="The recording is used from this second on.")
    stop_s: float | None = Field(None, ge=0, description="The recording is used up to this second.")
    max_frames: int = Field(2000, ge=2, description="A recording with more frames than this is thinned out evenly.")
    max_side: int = Field(640, ge=64, description="Images whose longer side has more pixels are reduced to this.")


@dataclass(frozen=True)
class RecordedView:
    """One frame: image without distortion, and what is known about it.

    Attributes:
        image: uint8 RGB (H, W, 3).
        depth: float32 (H, W) metres, NaN = unknown, or None.
        K: (3, 3) pixels, or None.
        T_world_from_camera: (4, 4), or None.
    """

    image: Image
    depth: Float32 | None
    K: Float64 | None
    T_world_from_camera: Float64 | None


@dataclass(frozen=True)
class _Stored:
    stamp_ns: int
    image: NDArray[np.uint8]
    depth: NDArray[np.uint8] | None
    nearest: float
    K: Float64 | None
    T_world_from_camera: Float64 | None


@dataclass
class Recording:
    """The frames of a recording, in order of time.

    Attributes:
        path: bag, video or folder.
        problems: data that could not be used, one sentence each.
    """

    path: Path
    problems: list[str] = field(default_factory=list)
    _frames: list[_Stored] = field(default_factory=list)
    _views: OrderedDict[int, RecordedView] = field(default_factory=OrderedDict)
    in_memory: int = 200

    @staticmethod
    def load(path: Path, config: RecordingConfig) -> Recording:
        """Reads anything that `io.open_source` opens.

        Raises:
            TrainingDataError: it cannot be opened, or holds fewer than two frames.
        """
        recording = Recording(path)
        try:
            source = open_source(path, _options(path, config))
            recording._read(source, config)
        except (ValueError, OSError) as error:
            raise TrainingDataError(f"cannot train on {path}: {error}") from error
        # Other warnings (no calibration, a clock that jumps) are no damage.
        recording.problems += [f"{path}: {w}" for w in source.warnings if _DAMAGE.search(w)]
        if len(recording) < 2:
            raise TrainingDataError(f"{path} holds {len(recording)} frames that can be read: at least two are needed")
        return recording

    def _read(self, source: FrameSource, config: RecordingConfig) -> None:
        step, maps = 1, _StraightMaps()
        truth = source.ground_truth
        for number, frame in enumerate(source):
            if number % step:
                continue
            pose = frame.odometry
            if truth is not None:
                there, known = truth.interpolated(np.array([frame.stamp_ns], np.int64), max_gap_ns=_MAX_POSE_GAP_NS)
                pose = there.T_world_from_camera[0] if known[0] else None
            self._frames.append(self._store(frame, pose, config.max_side, maps))
            if len(self._frames) > config.max_frames:
                self._frames, step = self._frames[::2], 2 * step

    def _store(self, frame: Frame, pose: Float64 | None, max_side: int, maps: _StraightMaps) -> _Stored:
        image = frame.image if frame.image.ndim == 3 else np.repeat(frame.image[..., None], 3, 2)
        depth, camera = frame.depth, frame.camera
        if depth is not None:
            with np.errstate(invalid="ignore"):
                depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(np.nan)).astype(np.float32)
            if depth.shape != image.shape[:2] or not np.isfinite(depth).any():
                why = f"is {depth.shape[1]} x {depth.shape[0]}" if np.isfinite(depth).any() else "holds no finite value"
                self.problems.append(f"{self.path}: the depth of frame {frame.index} ({frame.source}) {why}: not used")
                depth = None
        if camera is not None and camera.distortion_model != "none":
            image, depth = undistorted(image, depth, maps.get(camera))
        height, width = image.shape[:2]
        K = None if camera is None else np.asarray(camera.K, np.float64)
        reduced = max_side / max(height, width)
        if reduced < 1:
            size = (max(1, round(width * reduced)), max(1, round(height * reduced)))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
            K = None if camera is None else Camera.from_matrix(camera.K, width, height).resized(*size).K
            if depth is not None:
                depth = _nearest_resized(depth, size)
        coded, nearest = _encode_depth(depth) if depth is not None else (None, 0.0)
        flag = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        jpeg = np.asarray(cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), flag)[1], np.uint8)
        return _Stored(frame.stamp_ns, jpeg, coded, nearest, K, pose)

    def __len__(self) -> int:
        return len(self._frames)

    def stamp_ns(self, k: int) -> int:
        return self._frames[k].stamp_ns

    def calibration(self, k: int) -> Float64 | None:
        return self._frames[k].K

    def pose(self, k: int) -> Float64 | None:
        return self._frames[k].T_world_from_camera

    def posed(self) -> list[int]:
        """Numbers of the frames with depth, calibration and pose."""
        return [
            k
            for k, f in enumerate(self._frames)
            if f.depth is not None and f.K is not None and f.T_world_from_camera is not None
        ]

    def view(self, k: int) -> RecordedView:
        """Frame k, decoded."""
        if k in self._views:
            self._views.move_to_end(k)
            return self._views[k]
        stored = self._frames[k]
        image = cv2.imdecode(stored.image, cv2.IMREAD_COLOR)
        assert image is not None
        view = RecordedView(
            np.ascontiguousarray(image[..., ::-1], dtype=np.uint8), self.depth(k), stored.K, stored.T_world_from_camera
        )
        self._views[k] = view
        if len(self._views) > self.in_memory:
            self._views.popitem(last=False)
        return view

    def depth(self, k: int) -> Float32 | None:
        """The depth of frame k without its image."""
        stored = self._frames[k]
        if stored.depth is None:
            return None
        coded = cv2.imdecode(stored.depth, cv2.IMREAD_UNCHANGED)
        assert coded is not None
        inverse: Float32 = np.asarray(coded, np.float32)
        inverse[inverse == 0] = np.nan
        return np.asarray(np.float32(65535 * stored.nearest) / inverse, np.float32)


def _encode_depth(depth: Float32) -> tuple[NDArray[np.uint8], float]:
    """Inverse depth in 16 bits (0 = unknown) as PNG, and the nearest depth: relative error depth / nearest / 131070."""
    nearest = float(np.nanmin(depth))
    inverse = np.nan_to_num(65535 * nearest / depth.astype(np.float64), nan=0.0)
    coded = np.round(inverse).astype(np.uint16)
    return np.asarray(cv2.imencode(".png", coded, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1], np.uint8), nearest


def _nearest_resized(depth: Float32, size: tuple[int, int]) -> Float32:
    """Depth at another size, each pixel from the one nearest to its centre."""
    height, width = depth.shape
    x = np.clip(np.round((np.arange(size[0]) + 0.5) * width / size[0] - 0.5).astype(int), 0, width - 1)
    y = np.clip(np.round((np.arange(size[1]) + 0.5) * height / size[1] - 0.5).astype(int), 0, height - 1)
    return np.ascontiguousarray(depth[y[:, None], x])


class _StraightMaps:
    """For each pixel of the undistorted image its place in the distorted one; made once a camera."""

    def __init__(self) -> None:
        self._camera: Camera | None = None
        self._map = np.zeros((0, 0, 2), np.float32)

    def get(self, camera: Camera) -> NDArray[np.float32]:
        if camera is not self._camera:
            x, y = np.meshgrid(np.arange(camera.width, dtype=np.float64), np.arange(camera.height, dtype=np.float64))
            pixels = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], 1)
            distorted = camera.project(pixels @ np.linalg.inv(camera.K).T)
            self._map = np.nan_to_num(distorted, nan=-1e4).reshape(camera.height, camera.width, 2).astype(np.float32)
            self._camera = camera
        return self._map


def _options(path: Path, config: RecordingConfig) -> SourceOptions:
    fields = config.model_dump(exclude={"max_frames", "max_side"})
    if path.exists() and is_bag(path) and config.depth_topic is None:
        fields["depth_topic"] = _only_depth_topic(path)
    return SourceOptions(**fields)


def _only_depth_topic(path: Path) -> str | None:
    topics = open_records(path).topics
    found = [name for name, topic in topics.items() if topic.type in IMAGE_TYPES and "depth" in name.lower()]
    return found[0] if len(found) == 1 else None
