"""The node's services. Each waits for the worker without stopping the executor, so that images go on being received."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from rclpy.serialization import deserialize_message
from rclpy.task import Future as RosFuture

from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.relative_pose import no_pose
from ros2_densematch.geometry.two_view import Geometry
from ros2_densematch.live.core import MatcherCore
from ros2_densematch.live.ros_graph import ros_type
from ros2_densematch.messages.conversions import correspondences_message, relative_pose_message, time_ns, to_cdr
from ros2_densematch.messages.image import decode_image


class Services:
    """Creates and answers ~/reset, ~/set_keyframe, ~/enable and ~/match_pair.

    Args:
        node: an rclpy node.
        core: of the node.
    """

    def __init__(self, node: Any, core: MatcherCore) -> None:
        self._node, self._core = node, core
        answers = {
            "~/reset": ("std_srvs/srv/Trigger", self._reset),
            "~/set_keyframe": ("std_srvs/srv/Trigger", self._set_keyframe),
            "~/enable": ("std_srvs/srv/SetBool", self._enable),
            "~/match_pair": ("densematch/srv/MatchPair", self._match_pair),
        }
        for name, (kind, answer) in answers.items():
            node.create_service(ros_type(kind), name, answer)

    async def _reset(self, _request: Any, response: Any) -> Any:
        return await self._trigger(self._core.reset(), response, "all keyframes are discarded")

    async def _set_keyframe(self, _request: Any, response: Any) -> Any:
        text = "the next tracked image becomes a keyframe"
        return await self._trigger(self._core.request_keyframe(), response, text)

    async def _trigger(self, work: Future[None], response: Any, done: str) -> Any:
        await self._done(work)
        error = _error(work)
        response.success, response.message = not error, error or done
        return response

    def _enable(self, request: Any, response: Any) -> Any:
        self._core.enabled = bool(request.data)
        response.success = True
        response.message = "images are matched" if request.data else "images are counted and not matched"
        return response

    async def _match_pair(self, request: Any, response: Any) -> Any:
        try:
            images = decode_image(request.reference), decode_image(request.query)
            cameras = _cameras(request, self._core.configuration.rectified, images)
            work = self._core.match_pair(*images, cameras, int(request.max_matches) or None)
        except ValueError as error:
            response.success, response.message = False, str(error)
            return response
        await self._done(work)
        problem = _error(work)
        if problem:
            response.success, response.message = False, problem
            return response
        matches, pose = work.result()
        loaded = self._core.loaded
        frames: dict[str, Any] = {
            "stamp_ns": time_ns(request.query.header.stamp),
            "frame_id": str(request.query.header.frame_id),
            "reference_stamp_ns": time_ns(request.reference.header.stamp),
            "reference_frame_id": str(request.reference.header.frame_id),
            "keyframe_id": 0,
        }
        found = correspondences_message(
            matches,
            matcher="" if loaded is None else loaded.identity,
            rectified=cameras is not None and cameras[1].distortion_model == "none",
            inliers=None if pose is None else pose.inliers,
            **frames,
        )
        if pose is None:
            pose = no_pose(len(matches), "no calibration was sent", geometry=Geometry.UNDEFINED)
        found_pose = relative_pose_message(pose, **frames)
        response.correspondences = _as_ros(found)
        response.relative_pose = _as_ros(found_pose)
        response.success, response.message = True, f"{len(matches)} matches; {pose.status}"
        return response

    async def _done(self, work: Future[Any]) -> None:
        """Waits for the worker; the executor goes on meanwhile."""
        if work.done():
            return
        finished = RosFuture(executor=self._node.executor)
        work.add_done_callback(lambda _: finished.set_result(None))
        await finished


def _error(work: Future[Any]) -> str:
    if work.cancelled():
        return "the node was deactivated meanwhile"
    error = work.exception()
    return "" if error is None else f"{type(error).__name__}: {error}"


def _cameras(request: Any, rectified: str, images: tuple[Any, Any]) -> tuple[Camera, Camera] | None:
    """Both cameras, or None where one has width 0: no calibration."""
    infos = request.reference_camera_info, request.query_camera_info
    if any(info.width == 0 for info in infos):
        return None
    cameras = [Camera.from_camera_info(info, rectified=rectified == "true") for info in infos]
    fitted = [c.for_image(i.shape[1], i.shape[0]) for c, i in zip(cameras, images, strict=True)]
    return fitted[0], fitted[1]


def _as_ros(message: Any) -> Any:
    return deserialize_message(to_cdr(message), ros_type(message.__msgtype__))
