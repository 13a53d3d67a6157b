"""A replay as a rerun recording: images, matches, keyframes and trajectory on a timeline, live or afterwards.

rerun's pixels begin at the corner of the top-left pixel, so half a pixel is added to points and principal points.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.files.atomic import refuse_full_disk, replacing
from ros2_densematch.files.results_folder import refuse_foreign
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.io.exports.colours import score_colours
from ros2_densematch.io.exports.replay_result import FrameResult
from ros2_densematch.tracking.frame import Frame

WORLD, CAMERA, IMAGE, KEYFRAME = "world", "world/camera", "world/camera/image", "keyframe"
_APPLICATION = "densematch"
_PATH_EVERY = 10  # frames between two drawings of the whole path
_JPEG_QUALITY = 80
_KEYFRAMES_KEPT = 64
_ANSWER_S = 5.0
_ROOM = 4 << 20  # bytes; a frame takes less


class RerunLog:
    """Sends frames to a rerun viewer or file. Used as a context manager.

    Args:
        target: "viewer" opens one on this machine; an address (rerun+http://HOST:PORT/proxy) sends to one that runs;
            otherwise the .rrd file to write.
        name: of the recording.

    Raises:
        ModuleNotFoundError: rerun-sdk is not installed.
        ValueError: the target is none of these, or no viewer answers there.
        ForeignFileError: the file exists and is no earlier recording of ours.
    """

    def __init__(self, target: str, name: str) -> None:
        if target != "viewer" and "://" not in target and not target.endswith(".rrd"):
            raise ValueError(f"{target} is not a rerun target: give viewer, rerun+http://HOST:PORT/proxy or a FILE.rrd")
        self._rr = import_module("rerun")
        self._target = target
        self._stream = self._rr.RecordingStream(_APPLICATION)
        self._stream.send_recording_name(name)
        self._file: Any = None
        self._path: dict[int, list[NDArray[np.float64]]] = {}
        self._count = 0
        self._keyframes: OrderedDict[int, Any] = OrderedDict()  # their pictures, by stamp
        self._shown_keyframe = -1

    def __enter__(self) -> RerunLog:
        if self._target == "viewer":
            self._stream.spawn()
        elif "://" in self._target:
            self._connect()
        else:
            if not Path(self._target).parent.is_dir():
                raise ValueError(f"there is no folder {Path(self._target).parent} for {self._target}: create it first")
            refuse_foreign(Path(self._target), ours=_is_export(Path(self._target)))
            self._need_room()
            self._file = replacing(Path(self._target))
            self._stream.save(self._file.__enter__())
        self._stream.log(WORLD, self._rr.ViewCoordinates.RDF, static=True)
        return self

    def _connect(self) -> None:
        self._stream.connect_grpc(self._target)
        self._stream.log("log", self._rr.TextLog("connected"))
        try:
            self._stream.flush(timeout_sec=_ANSWER_S)
        except Exception:  # noqa: BLE001  (the library's error types are its own)
            self._stream.disconnect()
            raise ValueError(
                f"no rerun viewer answers at {self._target}: start one there (rerun), or give a FILE.rrd"
            ) from None

    def __exit__(self, *error: Any) -> None:
        self._draw_path()
        with suppress(RuntimeError, ValueError):  # a viewer may have been closed meanwhile
            self._stream.flush(timeout_sec=_ANSWER_S)
        self._stream.disconnect()
        if self._file is not None:
            self._file.__exit__(*error)

    def _need_room(self) -> None:
        """rerun says nothing of what it cannot write, and then waits for ever: there must be room for what comes."""
        refuse_full_disk(Path(self._target), needed=_ROOM)

    def add(self, result: FrameResult, frame: Frame | None) -> None:
        """One frame.

        Args:
            result: what became of it.
            frame: the frame itself, or None where its image is not at hand.
        """
        rr, stream = self._rr, self._stream
        if self._file is not None:
            self._need_room()
        stream.set_time("frame", sequence=result.index)
        stream.set_time("time", timestamp=np.datetime64(result.stamp_ns, "ns"))
        if frame is not None:
            picture = rr.Image(frame.image).compress(jpeg_quality=_JPEG_QUALITY)
            stream.log(IMAGE, picture)
            if frame.camera is not None:
                self._pinhole(frame.camera)
        self._matches(result)
        if result.is_keyframe and frame is not None:
            self._keyframes[result.stamp_ns] = picture
            if len(self._keyframes) > _KEYFRAMES_KEPT:
                self._keyframes.popitem(last=False)
        T = result.T_world_from_camera
        if T is None:
            stream.log(CAMERA, rr.Clear(recursive=False))
        else:
            stream.log(CAMERA, rr.Transform3D(translation=T[:3, 3], mat3x3=T[:3, :3]))
            self._path.setdefault(result.segment, []).append(T[:3, 3])
            if result.is_keyframe:
                stream.log(f"{WORLD}/keyframes/{result.index}", rr.Points3D([T[:3, 3]], colors=[(217, 119, 6)]))
        stream.log("plots/inliers", rr.Scalars(float(result.inlier.sum()) if T is not None else 0.0))
        level = rr.TextLogLevel.INFO if T is not None else rr.TextLogLevel.WARN
        stream.log("log", rr.TextLog(f"{result.status}: {result.reason}", level=level))
        self._count += 1
        if self._count % _PATH_EVERY == 0:
            self._draw_path()

    def _matches(self, result: FrameResult) -> None:
        rr, stream = self._rr, self._stream
        kept = result.inlier
        if result.keyframe_stamp_ns != self._shown_keyframe and result.keyframe_stamp_ns in self._keyframes:
            self._shown_keyframe = result.keyframe_stamp_ns
            stream.log(f"{KEYFRAME}/image", self._keyframes[self._shown_keyframe])
        a, b, colours = result.reference_xy[kept] + 0.5, result.query_xy[kept] + 0.5, score_colours(result.score[kept])
        stream.log(f"{IMAGE}/matches", rr.Points2D(b, colors=colours, radii=2.0))
        stream.log(f"{IMAGE}/trails", rr.LineStrips2D(np.stack([a, b], 1), colors=colours, radii=0.5))
        stream.log(f"{KEYFRAME}/image/matches", rr.Points2D(a, colors=colours, radii=2.0))

    def _pinhole(self, camera: Camera) -> None:
        K = camera.K.copy()
        K[:2, 2] += 0.5
        self._stream.log(IMAGE, self._rr.Pinhole(image_from_camera=K, resolution=list(camera.size)))

    def _draw_path(self) -> None:
        for segment, positions in self._path.items():
            strip = self._rr.LineStrips3D([np.array(positions)], colors=[(37, 99, 235)])
            self._stream.log(f"{WORLD}/trajectory/{segment}", strip)


def _is_export(path: Path) -> bool:
    """Whether the file is a recording of ours: its first message names the application."""
    try:
        with path.open("rb") as stream:
            head = stream.read(512)
    except OSError:
        return False
    return head.startswith(b"RRF") and _APPLICATION.encode() in head
