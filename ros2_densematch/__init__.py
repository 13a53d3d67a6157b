"""Dense correspondences and relative poses against keyframes, for visual odometry and SLAM.

Importing this module is fast: it needs no GPU, no network and no ROS, and loads no heavy library. The public names
below are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ros2_densematch.api.matching import match as match
    from ros2_densematch.api.tracker import Tracker as Tracker
    from ros2_densematch.geometry.camera import Camera as Camera
    from ros2_densematch.geometry.correspondences import Correspondences as Correspondences
    from ros2_densematch.geometry.correspondences import DenseWarp as DenseWarp
    from ros2_densematch.geometry.two_view import RelativePose as RelativePose
    from ros2_densematch.geometry.two_view import estimate_relative_pose as estimate_relative_pose
    from ros2_densematch.io.sources.opening import open_source as open_source
    from ros2_densematch.matchers.base import Matcher as Matcher
    from ros2_densematch.matchers.registry import list_matchers as list_matchers
    from ros2_densematch.matchers.registry import load_matcher as load_matcher
    from ros2_densematch.tracking.frame import Frame as Frame
    from ros2_densematch.tracking.tracker import TrackedFrame as TrackedFrame
    from ros2_densematch.tracking.tracker import TrackerConfig as TrackerConfig

_HOME = {
    "Camera": "geometry.camera",
    "Correspondences": "geometry.correspondences",
    "DenseWarp": "geometry.correspondences",
    "Frame": "tracking.frame",
    "Matcher": "matchers.base",
    "RelativePose": "geometry.two_view",
    "TrackedFrame": "tracking.tracker",
    "Tracker": "api.tracker",
    "TrackerConfig": "tracking.tracker",
    "estimate_relative_pose": "geometry.two_view",
    "list_matchers": "matchers.registry",
    "load_matcher": "matchers.registry",
    "match": "api.matching",
    "open_source": "io.sources.opening",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
