"""A rendered flight as a rosbag2 (MCAP): images, calibration and true poses, as a robot would have recorded them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer

from ros2_densematch.files.atomic import AtomicFolder
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.poses import quaternion_from_matrix
from ros2_densematch.messages.typestore import ros2_typestore
from ros2_densematch.simulation.flight import Flight
from ros2_densematch.simulation.renderer import render
from ros2_densematch.simulation.scene import Scene
from ros2_densematch.simulation.sensor import Sensor

IMAGE_TOPIC = "/camera/image_raw/compressed"
CAMERA_INFO_TOPIC = "/camera/camera_info"
GROUND_TRUTH_TOPIC = "/ground_truth/pose"
FRAME_ID = "camera_optical_frame"
WORLD_FRAME_ID = "world"

_TYPES = {
    IMAGE_TOPIC: "sensor_msgs/msg/CompressedImage",
    CAMERA_INFO_TOPIC: "sensor_msgs/msg/CameraInfo",
    GROUND_TRUTH_TOPIC: "geometry_msgs/msg/PoseStamped",
}


def write_flight_bag(
    folder: Path,
    scene: Scene,
    camera: Camera,
    flight: Flight,
    sensor: Sensor,
    *,
    jpeg_quality: int = 95,
    on_frame: Callable[[int, bytes], None] | None = None,
) -> None:
    """Renders a flight into a bag; the bag appears in its place when it is complete.

    Args:
        folder: the bag's folder to be made; an older bag there is replaced.
        scene: what there is.
        camera: pinhole camera without distortion.
        flight: poses and stamps.
        sensor: what it adds to the drawn images.
        jpeg_quality: of the images, 1 to 100.
        on_frame: called after each frame with its index and its JPEG file.

    Raises:
        FileExistsError: `folder` exists and is no rosbag2 folder.
    """
    if folder.exists() and not (folder / "metadata.yaml").is_file():
        raise FileExistsError(f"{folder} exists and is no bag: choose another output folder")
    place = AtomicFolder(folder)
    try:
        with Writer(place.filling, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            _write(writer, scene, camera, flight, sensor, jpeg_quality, on_frame)
        place.close()
    finally:
        place.discard()


def _write(
    writer: Writer,
    scene: Scene,
    camera: Camera,
    flight: Flight,
    sensor: Sensor,
    jpeg_quality: int,
    on_frame: Callable[[int, bytes], None] | None,
) -> None:
    store = ros2_typestore()
    connections = {topic: writer.add_connection(topic, kind, typestore=store) for topic, kind in _TYPES.items()}

    def draw(index: int) -> bytes:
        image = sensor.expose(render(scene, camera, flight.T_world_from_camera[index]).image, index)
        ok, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
        if not ok:
            raise RuntimeError(f"OpenCV could not encode frame {index} as JPEG")
        return data.tobytes()

    # Two at a time: OpenCV and NumPy release the interpreter lock for most of a frame.
    with ThreadPoolExecutor(2) as pool:
        for index, jpeg in enumerate(pool.map(draw, range(len(flight)))):
            stamp_ns = int(flight.stamps_ns[index])
            for topic, message in _messages(camera, flight, index, jpeg).items():
                writer.write(connections[topic], stamp_ns, store.serialize_cdr(message, _TYPES[topic]))
            if on_frame is not None:
                on_frame(index, jpeg)


def _messages(camera: Camera, flight: Flight, index: int, jpeg: bytes) -> dict[str, Any]:
    types = ros2_typestore().types
    stamp_ns = int(flight.stamps_ns[index])
    stamp = types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    header, world = (types["std_msgs/msg/Header"](stamp=stamp, frame_id=name) for name in (FRAME_ID, WORLD_FRAME_ID))
    pose = flight.T_world_from_camera[index]
    position = types["geometry_msgs/msg/Point"](*(float(v) for v in pose[:3, 3]))
    orientation = types["geometry_msgs/msg/Quaternion"](*(float(v) for v in quaternion_from_matrix(pose[:3, :3])))
    return {
        IMAGE_TOPIC: types["sensor_msgs/msg/CompressedImage"](
            header=header, format="rgb8; jpeg compressed bgr8", data=np.frombuffer(jpeg, np.uint8)
        ),
        CAMERA_INFO_TOPIC: types["sensor_msgs/msg/CameraInfo"](
            header=header,
            height=camera.height,
            width=camera.width,
            distortion_model="plumb_bob",
            d=np.zeros(5),
            k=camera.K.ravel(),
            r=np.eye(3).ravel(),
            p=np.hstack([camera.K, np.zeros((3, 1))]).ravel(),
            binning_x=0,
            binning_y=0,
            roi=types["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
        ),
        GROUND_TRUTH_TOPIC: types["geometry_msgs/msg/PoseStamped"](
            header=world, pose=types["geometry_msgs/msg/Pose"](position=position, orientation=orientation)
        ),
    }
