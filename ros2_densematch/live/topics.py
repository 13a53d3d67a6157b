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
        "The camera. image_transport auto takes raw images where they are advertised, else <image>/compressed "
        "(CompressedImage). image_reliability sets the reliability of all images.",
    ),
    Topic(CAMERA_INFO, "sensor_msgs/msg/CameraInfo", _INFO, "Its calibration; without it there are no poses."),
    Topic(
        DEPTH,
        "sensor_msgs/msg/Image",
        _IMAGES,
        "Depth registered to the image, 16UC1 in millimetres or 32FC1 in metres: metric scale. With depth_transport "
        "compressedDepth: <depth>/compressedDepth. Subscribed only when depth_topic or a remapping names it.",
    ),
    Topic(DEPTH_INFO, "sensor_msgs/msg/CameraInfo", _INFO, "Only to check that the depth is registered to the image."),
    Topic(
        RIGHT,
        "sensor_msgs/msg/Image",
        _IMAGES,
        "Right image of a rectified stereo pair: metric scale. "
        "Subscribed only when right_image_topic or a remapping names it.",
    ),
    Topic(RIGHT_INFO, "sensor_msgs/msg/CameraInfo", _INFO, "Its calibration; the baseline is in P, or in /tf_static."),
    Topic(
        ODOMETRY,
        "nav_msgs/msg/Odometry",
        Qos("best_effort", 50),
        "Metric odometry of the robot (wheels, inertial) that gives the scale; not one that was made from this node's. "
        "Subscribed only when odometry_topic or a remapping names it.",
    ),
    Topic(
        TF_STATIC,
        "tf2_msgs/msg/TFMessage",
        Qos("reliable", 100, True),
        "Where cameras and base_frame sit on the robot.",
    ),
    Topic(
        TF,
        "tf2_msgs/msg/TFMessage",
        Qos("best_effort", 100),
        "Only with publish_tf or publish_map_tf: whether somebody else places the same frames.",
    ),
    Topic(
        INITIAL_POSE,
        "geometry_msgs/msg/PoseWithCovarianceStamped",
        Qos("reliable", 1),
        "Where base_frame is in map_frame, as RViz sends it: moves the map, not the odometry.",
    ),
)
SUBSCRIBED = {topic.name: topic for topic in _SUBSCRIBED}

DIAGNOSTICS = Topic(
    "/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", OUTPUT, "Rates, times, every drop by its reason."
)
_PUBLISHED = (
    Topic("~/correspondences", "densematch/msg/Correspondences", OUTPUT, "Every image that was matched."),
    Topic("~/relative_pose", "densematch/msg/RelativePose", OUTPUT, "Every image with an estimate, failed ones too."),
    Topic(
        "~/odometry",
        "nav_msgs/msg/Odometry",
        OUTPUT,
        "base_frame in odom_frame, with twist; only while the scale is metric (or publish_unscaled_odometry).",
    ),
    Topic("~/pose", "geometry_msgs/msg/PoseWithCovarianceStamped", OUTPUT, "The pose of ~/odometry."),
    Topic(
        "~/map_pose",
        "geometry_msgs/msg/PoseWithCovarianceStamped",
        OUTPUT,
        "base_frame in map_frame: the odometry, corrected where a known place was found again; it may jump.",
    ),
    Topic(
        "~/keyframe", "densematch/msg/KeyframeInfo", Qos("reliable", 10, True), "Every new keyframe; the last are kept."
    ),
    Topic(
        PATH,
        "nav_msgs/msg/Path",
        Qos("reliable", 1, True),
        "base_frame in odom_frame at the keyframes, the last 1000, under the conditions of ~/odometry; sent only while "
        "subscribed, at every new keyframe.",
    ),
    Topic("~/status", "densematch/msg/MatcherStatus", OUTPUT, "Every image, with the reason in words."),
    Topic(
        "~/matches_image",
        "sensor_msgs/msg/Image",
        OUTPUT,
        "Keyframe and image side by side with their matches, rgb8; drawn only while subscribed.",
    ),
    Topic(
        "~/matches_image/compressed",
        "sensor_msgs/msg/CompressedImage",
        OUTPUT,
        "The same picture as JPEG, for a network; compressed only while subscribed.",
    ),
    Topic(
        "~/warp",
        "sensor_msgs/msg/Image",
        OUTPUT,
        "32FC3: for each keyframe pixel x and y in the image and the certainty; made only while subscribed, by dense "
        "matchers. It may be a regular subsampling of the keyframe.",
    ),
    DIAGNOSTICS,
    Topic(
        TF,
        "tf2_msgs/msg/TFMessage",
        Qos("reliable", 100),
        "odom_frame -> base_frame with publish_tf, map_frame -> odom_frame with publish_map_tf; neither where somebody "
        "else places the same frame.",
    ),
)
PUBLISHED = {topic.name: topic for topic in _PUBLISHED}

SERVICES = (
    Service("~/reset", "std_srvs/srv/Trigger", "Forgets all keyframes; the next image is the first keyframe."),
    Service("~/set_keyframe", "std_srvs/srv/Trigger", "The next image that is tracked becomes a keyframe."),
    Service("~/enable", "std_srvs/srv/SetBool", "false: images are counted and not matched, what is known stays."),
    Service("~/match_pair", "densematch/srv/MatchPair", "Matches two images that come with the request."),
)
