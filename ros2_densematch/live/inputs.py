"""From ROS messages to frames: calibration, decoding, companions. Knows messages by their attributes only."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera, Rectified
from ros2_densematch.geometry.trajectory import Trajectory
from ros2_densematch.geometry.transform_tree import TransformTree
from ros2_densematch.io.sources.assemble import FrameAssembler
from ros2_densematch.io.sources.camera_infos import CameraInfos
from ros2_densematch.io.sources.depth_view import DepthView, difference
from ros2_densematch.io.sources.files import load_mask
from ros2_densematch.io.sources.log import SourceLog
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.io.sources.pose_topics import pose_at
from ros2_densematch.live.synchroniser import Bundle
from ros2_densematch.live.topics import CAMERA_INFO, DEPTH, DEPTH_INFO, ODOMETRY, RIGHT, RIGHT_INFO
from ros2_densematch.messages.conversions import pose_matrix
from ros2_densematch.messages.image import ImageDecodeError, decode_depth, decode_image
from ros2_densematch.tracking.frame import Frame

_MAX_POSES = 400


class Inputs:
    """Keeps what is known beside the images, and builds frames.

    Calibrations, transforms and odometry come from one thread, frames are built in another.

    Args:
        rectified: as in `Camera.from_camera_info`.
        image_topic, right_topic: resolved names, for "auto" and for messages.
    """

    def __init__(self, *, rectified: Rectified = "auto", image_topic: str = "image", right_topic: str = "right/image"):
        self.log = SourceLog()
        self.transforms = TransformTree()
        self._rectified: Rectified = rectified
        self._topics = {CAMERA_INFO: image_topic, RIGHT_INFO: right_topic, DEPTH_INFO: ""}
        self._lock = threading.Lock()
        self._infos: dict[str, CameraInfos] = {}
        self._mask: NDArray[np.bool_] | None = None
        self._poses: deque[tuple[int, NDArray[np.float64]]] = deque(maxlen=_MAX_POSES)
        self._odometry_child = ""
        self._odometry_refused = ""
        self._assembler = FrameAssembler(SourceOptions(), self.log, None)

    def set_mask(self, path: str) -> None:
        """Takes another mask; "" none.

        Raises:
            ValueError: the file cannot be read or is no image.
        """
        mask = load_mask(Path(path)) if path else None
        with self._lock:
            self._mask = mask

    def set_rectified(self, rectified: Rectified) -> None:
        """Reads later calibrations as those of rectified images, or not."""
        with self._lock:
            self._rectified = rectified
            self._infos.clear()

    def camera_info(self, topic: str, msg: Any, stamp_ns: int) -> str:
        """Takes a calibration; one that says the same as before costs next to nothing.

        Args:
            topic: CAMERA_INFO, RIGHT_INFO or DEPTH_INFO.
            msg: sensor_msgs/CameraInfo.
            stamp_ns: its time.

        Returns:
            "" or why it cannot be used, in one line; an earlier one then stays.
        """
        with self._lock:
            if topic not in self._infos:
                self._infos[topic] = CameraInfos(topic, self._topics[topic], self._rectified, self.log)
            infos = self._infos[topic]
            if infos.add(msg, stamp_ns):
                return ""
        self.log.count(f"calibrations on {topic} could not be used", infos.unusable)
        return f"the calibration on {topic} cannot be used: {infos.unusable}"

    def camera(self, topic: str = CAMERA_INFO, stamp_ns: int | None = None) -> Camera | None:
        """The calibration of an image, as in `CameraInfos.at`; without its time the newest one."""
        with self._lock:
            infos = self._infos.get(topic)
            if infos is None:
                return None
            return infos.newest if stamp_ns is None else infos.at(stamp_ns)

    def odometry(self, stamp_ns: int, msg: Any) -> str:
        """Takes a nav_msgs/Odometry; returns "" or why it cannot be used."""
        try:
            T = pose_matrix(msg.pose.pose)
            if not np.isfinite(T).all():
                raise ValueError("a number is not finite")
        except ValueError as error:
            self.log.count(f"messages on {ODOMETRY} could not be used", str(error))
            return f"odometry cannot be used: {error}"
        with self._lock:
            if self._poses and stamp_ns <= self._poses[-1][0]:
                self._poses.clear()
            self._poses.append((stamp_ns, T))
            self._odometry_child = str(msg.child_frame_id)
        return ""

    def frame(self, bundle: Bundle, source: str) -> tuple[Frame, str]:
        """The frame of an image and its companions, and the image's frame_id.

        Raises:
            ImageDecodeError: the image cannot be decoded (a companion that cannot is left out and counted).
            ValueError: the image does not fit the mask.
        """
        image = decode_image(bundle.message)
        frame_id = str(bundle.message.header.frame_id)
        with self._lock:
            assembler, mask = self._assembler, self._mask
        camera = self.camera(CAMERA_INFO, bundle.stamp_ns)
        height, width = image.shape[:2]
        if mask is not None and mask.shape != (height, width):
            raise ValueError(
                f"the mask is {mask.shape[1]} x {mask.shape[0]}, the image {width} x {height}: use a mask of the "
                f"image's size"
            )
        depth = self._registered(self._companion(bundle, DEPTH, decode_depth), frame_id, bundle.stamp_ns)
        frame = assembler.frame(
            image,
            bundle.stamp_ns,
            bundle.number,
            source,
            depth=depth,
            camera=camera,
            right_image=self._companion(bundle, RIGHT, decode_image),
            right_camera=self._with_baseline(self.camera(RIGHT_INFO, bundle.stamp_ns), frame_id),
            odometry=self._pose_at(bundle.stamp_ns, frame_id),
        )
        if frame is None:  # the clock was set back: restart
            with self._lock:
                self._assembler = FrameAssembler(SourceOptions(), self.log, None)
                for infos in self._infos.values():
                    infos.forget_times()
            return self.frame(bundle, source)
        camera = frame.camera
        return replace(frame, mask=mask), frame_id or (camera.frame_id if camera is not None else "") or "camera"

    def _companion(self, bundle: Bundle, name: str, decode: Any) -> Any:
        if name not in bundle.companions:
            return None
        try:
            return decode(bundle.companions[name])
        except ImageDecodeError as error:
            self.log.count(f"images on {name} could not be decoded and are not used", str(error))
            return None

    def _with_baseline(self, right: Camera | None, left_frame: str) -> Camera | None:
        """The right camera; where its P holds no baseline, with that of /tf_static."""
        if right is None or right.baseline:
            return right
        T = self.transforms.find(left_frame, right.frame_id) if left_frame and right.frame_id else None
        if T is None or T[0, 3] <= 0 or poses.rotation_angle_deg(T) > 1.0:
            return right
        self.log.note(f"the stereo baseline of {T[0, 3]:.4f} m comes from /tf_static")
        return right.with_baseline(float(T[0, 3]))

    def _pose_at(self, stamp_ns: int, frame_id: str) -> NDArray[np.float64] | None:
        """T_world_from_camera of the odometry at a time, interpolated."""
        with self._lock:
            if not self._poses or self._odometry_refused:
                return None
            near = [item for item in self._poses if abs(item[0] - stamp_ns) < 1_000_000_000]
            child = self._odometry_child
        if not near:
            return None
        track = Trajectory(np.array([t for t, _ in near], np.int64), np.stack([T for _, T in near]))
        T = pose_at(track, stamp_ns)
        if T is None or not child or not frame_id or child.lstrip("/") == frame_id.lstrip("/"):
            return T
        mount = self.transforms.find(child, frame_id)
        return None if mount is None else poses.compose(T, mount)

    def refuse_odometry(self, reason: str) -> None:
        """Uses no odometry any more; "" uses it again."""
        self._odometry_refused = reason

    def odometry_problem(self, image_frame: str) -> str:
        """Why the odometry is not used: nothing places the camera on what it moves; "" where it is used."""
        if self._odometry_refused:
            return f"the odometry is refused: {self._odometry_refused}; correct one of them"
        child = self._odometry_child.lstrip("/")
        frame = image_frame.lstrip("/")
        if not child or not frame or child == frame or self.transforms.find(child, frame) is not None:
            return ""
        return (
            f"the odometry is not used: it describes {child}, and /tf_static has no transform from it to {frame}: "
            f"publish that transform, or use the odometry of the camera"
        )

    def depth_problem(self, image_frame: str) -> str:
        """Why the depth image is not used: of another camera, with no transform to the images; "" where it is used."""
        view, why = self._view_of_depth(image_frame)
        if not why or view is not None:
            return ""
        depth = self.camera(DEPTH_INFO)
        frame = depth.frame_id if depth is not None else ""
        return (
            f"the depth is not registered to the images: {why}, and /tf_static does not connect {frame} to "
            f"{image_frame}: use the registered depth (aligned_depth_to_color, depth_registered)"
        )

    def _view_of_depth(self, image_frame: str, stamp_ns: int | None = None) -> tuple[DepthView | None, str]:
        """How to bring the depth into the images, where it is of another camera, and why that is thought so."""
        depth, camera = self.camera(DEPTH_INFO, stamp_ns), self.camera(CAMERA_INFO, stamp_ns)
        if depth is None or camera is None:
            return None, ""
        same = not depth.frame_id or not image_frame or depth.frame_id.lstrip("/") == image_frame.lstrip("/")
        T = np.eye(4) if same else self.transforms.find(image_frame, depth.frame_id)
        why = difference(depth, camera, T)
        return (None if T is None or not why else DepthView(depth, T)), why

    def _registered(
        self, depth: NDArray[np.float32] | None, image_frame: str, stamp_ns: int
    ) -> NDArray[np.float32] | None:
        """The depth map as the images' camera sees it, or None where it cannot be brought there."""
        camera = self.camera(CAMERA_INFO, stamp_ns)
        if depth is None or camera is None:
            return depth
        view, why = self._view_of_depth(image_frame, stamp_ns)
        if not why:
            return depth
        if view is None:
            self.log.count("depth images come from another camera and are not used", self.depth_problem(image_frame))
            return None
        return view.registered(depth, camera)
