"""The node's topics and services as data: `ros_node` and the documentation are made from here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Reliability = Literal["best_effort", "reliable"]


@dataclass(frozen=True)
class Qos:
    """Quality of service, keep-last.

    Attributes:
        reliability: best_effort or reliable.
        depth: messages kept.
        transient_local: a late subscriber gets the last messages too.
    """

    reliability: Reliability
    depth: int
    transient_local: bool = False

    def __str__(self) -> str:
        kept = ", transient local" if self.transient_local else ""
        return f"{self.reliability.replace('_', ' ')}, keep last {self.depth}{kept}"


@dataclass(frozen=True)
class Topic:
    """One topic: its name before remapping, type, quality of service, and what it is for."""

    name: str
    type: str
    qos: Qos
    description: str


@dataclass(frozen=True)
class Service:
    """One service: its name before remapping, type, and what it does."""

    name: str
    type: str
    description: str


IMAGE, CAMERA_INFO, DEPTH, DEPTH_INFO = "image", "camera_info", "depth", "depth/camera_info"
RIGHT, RIGHT_INFO, ODOMETRY, TF, TF_STATIC = "right/image", "right/camera_info", "odometry", "/tf", "/tf_static"
INITIAL_POSE = "initialpose"
PATH = "~/path"

_IMAGES = Qos("best_effort", 1)
_INFO = Qos("best_effort", 5)
OUTPUT = Qos("reliable", 10)

_SUBSCRIBED = (
    Topic(
        IMAGE,
        "sensor_msgs/msg/Image",
        _IMAGES,
        "Camera images. With image_transport auto, raw images are used if they are advertised, otherwise "
        "<image>/compressed (CompressedImage). image_reliability sets the reliability of all image subscriptions.",
    ),
    Topic(
        CAMERA_INFO, "sensor_msgs/msg/CameraInfo", _INFO, "Calibration of the camera; without it there are no poses."
    ),
    Topic(
        DEPTH,
        "sensor_msgs/msg/Image",
        _IMAGES,
        "Depth registered to the image, 16UC1 in millimetres or 32FC1 in metres; gives metric scale. With "
        "depth_transport compressedDepth: <depth>/compressedDepth. Subscribed only if depth_topic or a remapping "
        "names it.",
    ),
    Topic(
        DEPTH_INFO, "sensor_msgs/msg/CameraInfo", _INFO, "Used only to check that the depth is registered to the image."
    ),
    Topic(
        RIGHT,
        "sensor_msgs/msg/Image",
        _IMAGES,
        "Right image of a rectified stereo pair; gives metric scale. Subscribed only if right_image_topic or a "
        "remapping names it.",
    ),
    Topic(
        RIGHT_INFO,
        "sensor_msgs/msg/CameraInfo",
        _INFO,
        "Calibration of the right camera; the baseline is in P, or in /tf_static.",
    ),
    Topic(
        ODOMETRY,
        "nav_msgs/msg/Odometry",
        Qos("best_effort", 50),
        "Metric odometry of the robot (wheels, inertial); gives metric scale. It must not be derived from this node's "
        "output. Subscribed only if odometry_topic or a remapping names it.",
    ),
    Topic(
        TF_STATIC,
        "tf2_msgs/msg/TFMessage",
        Qos("reliable", 100, True),
        "Poses of the cameras and of base_frame on the robot.",
    ),
    Topic(
        TF,
        "tf2_msgs/msg/TFMessage",
        Qos("best_effort", 100),
        "Only with publish_tf or publish_map_tf, to detect another publisher of the same frames.",
    ),
    Topic(
        INITIAL_POSE,
        "geometry_msgs/msg/PoseWithCovarianceStamped",
        Qos("reliable", 1),
        "Pose of base_frame in map_frame, as RViz sends it; moves the map, not the odometry.",
    ),
)
SUBSCRIBED = {topic.name: topic for topic in _SUBSCRIBED}

DIAGNOSTICS = Topic(
    "/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", OUTPUT, "Rates, times, and all dropped images by reason."
)
_PUBLISHED = (
    Topic("~/correspondences", "densematch/msg/Correspondences", OUTPUT, "Matches of every matched image."),
    Topic(
        "~/relative_pose",
        "densematch/msg/RelativePose",
        OUTPUT,
        "Pose of every image with an estimate, including failed ones.",
    ),
    Topic(
        "~/odometry",
        "nav_msgs/msg/Odometry",
        OUTPUT,
        "Pose of base_frame in odom_frame, with twist; only while the scale is metric (or with "
        "publish_unscaled_odometry).",
    ),
    Topic("~/pose", "geometry_msgs/msg/PoseWithCovarianceStamped", OUTPUT, "The pose of ~/odometry."),
    Topic(
        "~/map_pose",
        "geometry_msgs/msg/PoseWithCovarianceStamped",
        OUTPUT,
        "Pose of base_frame in map_frame: the odometry corrected by returns to known places; it may jump.",
    ),
    Topic(
        "~/keyframe",
        "densematch/msg/KeyframeInfo",
        Qos("reliable", 10, True),
        "Every new keyframe; the last ones are latched.",
    ),
    Topic(
        PATH,
        "nav_msgs/msg/Path",
        Qos("reliable", 1, True),
        "Poses of base_frame in odom_frame at the last 1000 keyframes, under the conditions of ~/odometry; published "
        "at every new keyframe, only while subscribed.",
    ),
    Topic("~/status", "densematch/msg/MatcherStatus", OUTPUT, "Status of every image, with the reason in words."),
    Topic(
        "~/matches_image",
        "sensor_msgs/msg/Image",
        OUTPUT,
        "Keyframe and image side by side with their matches, rgb8; only while subscribed.",
    ),
    Topic(
        "~/matches_image/compressed",
        "sensor_msgs/msg/CompressedImage",
        OUTPUT,
        "The picture of ~/matches_image as JPEG, for a network; only while subscribed.",
    ),
    Topic(
        "~/warp",
        "sensor_msgs/msg/Image",
        OUTPUT,
        "32FC3: x and y in the image and the certainty for each keyframe pixel; dense matchers only, and only while "
        "subscribed. The grid may be a regular subsampling of the keyframe.",
    ),
    DIAGNOSTICS,
    Topic(
        TF,
        "tf2_msgs/msg/TFMessage",
        Qos("reliable", 100),
        "odom_frame -> base_frame with publish_tf, map_frame -> odom_frame with publish_map_tf; not published if "
        "another node publishes the same frame.",
    ),
)
PUBLISHED = {topic.name: topic for topic in _PUBLISHED}

SERVICES = (
    Service("~/reset", "std_srvs/srv/Trigger", "Discards all keyframes; the next image becomes the first keyframe."),
    Service("~/set_keyframe", "std_srvs/srv/Trigger", "Makes the next tracked image a keyframe."),
    Service(
        "~/enable",
        "std_srvs/srv/SetBool",
        "Starts (true) or pauses (false) matching; while paused, images are only counted and the keyframes are kept.",
    ),
    Service("~/match_pair", "densematch/srv/MatchPair", "Matches the two images of the request."),
)
