"""Accuracy of the matchers on rendered scenes, where depth and pose are exact: needs no data folder.

The limits lie well below what each matcher reaches today, and well above what a broken one does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.poses import direction_angle_deg, inverse, rotation_angle_deg
from ros2_densematch.geometry.two_view import estimate_relative_pose
from ros2_densematch.matchers.registry import load_matcher
from ros2_densematch.simulation.flight import demo_camera, look
from ros2_densematch.simulation.ground_truth import warp
from ros2_densematch.simulation.renderer import Rendering, render
from ros2_densematch.simulation.sensor import Sensor
from ros2_densematch.simulation.worlds import tabletop

CAMERA = demo_camera(640, 480)
SENSOR = Sensor()


@dataclass(frozen=True)
class View:
    pose: np.ndarray
    rendering: Rendering
    image: np.ndarray


@pytest.fixture(scope="module")
def views() -> dict[str, View]:
    """The same table from several places."""
    scene = tabletop(seed=5)
    poses = {
        "start": look(np.array([0.0, 0.0, 1.0]), 0.0, 0.1, 0.0),
        "sideways": look(np.array([0.0, 0.35, 1.0]), -0.08, 0.1, 0.0),
        "forward": look(np.array([0.45, 0.0, 1.05]), 0.0, 0.12, 0.02),
        "rolled": look(np.array([0.05, -0.2, 0.95]), 0.05, 0.08, 0.35),
        "turned": look(np.array([0.0, 0.0, 1.0]), 0.2, 0.05, 0.05),
    }
    result = {}
    for i, (name, pose) in enumerate(poses.items()):
        rendering = render(scene, CAMERA, pose)
        result[name] = View(pose, rendering, SENSOR.expose(rendering.image, i))
    start = result["start"]
    result["blank"] = View(start.pose, start.rendering, SENSOR.expose(np.full((480, 640, 3), 200, np.uint8), 9))
    return result


@pytest.fixture(scope="module", params=["gcm", "sift"])
def matched(request: pytest.FixtureRequest, views: dict[str, View]) -> dict[str, Correspondences]:
    """Matches of a matcher between the view "start" and each other one."""
    matcher = load_matcher(request.param, device="cpu")
    reference = matcher.encode(views["start"].image, reference=True)
    return {name: matcher.match(reference, matcher.encode(v.image)) for name, v in views.items() if name != "start"}


def true_position(reference: View, query: View, xy: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """True query pixel of reference pixels (N, 2), and whether the depth there is one surface's and seen in both."""
    field, visible = warp(reference.rendering.depth, camera, reference.pose, query.rendering.depth, camera, query.pose)
    x0 = np.clip(np.floor(xy[:, 0]).astype(int), 0, camera.width - 2)
    y0 = np.clip(np.floor(xy[:, 1]).astype(int), 0, camera.height - 2)
    fx, fy = (xy[:, 0] - x0)[:, None], (xy[:, 1] - y0)[:, None]
    corners = [(y0, x0), (y0, x0 + 1), (y0 + 1, x0), (y0 + 1, x0 + 1)]
    surface = reference.rendering.surface
    usable = np.all([visible[c] & (surface[c] == surface[corners[0]]) for c in corners], axis=0)
    upper = field[corners[0]] * (1 - fx) + field[corners[1]] * fx
    lower = field[corners[2]] * (1 - fx) + field[corners[3]] * fx
    return upper * (1 - fy) + lower * fy, usable


@pytest.mark.parametrize("name", ["sideways", "forward", "rolled", "turned"])
def test_matches_lie_where_the_geometry_says(
    views: dict[str, View], matched: dict[str, Correspondences], name: str
) -> None:
    reference, query = views["start"], views[name]
    matches = matched[name]
    truth, usable = true_position(reference, query, matches.reference_xy.astype(np.float64), CAMERA)
    error = np.linalg.norm(matches.query_xy - truth, axis=1)[usable]
    assert usable.sum() >= 300
    assert (error < 3.0).mean() > 0.85
    assert np.median(error) < 0.5


@pytest.mark.parametrize("name", ["sideways", "forward", "rolled"])
def test_the_relative_pose_is_right(views: dict[str, View], matched: dict[str, Correspondences], name: str) -> None:
    reference, query = views["start"], views[name]
    pose = estimate_relative_pose(matched[name], CAMERA, CAMERA)
    truth = inverse(query.pose) @ reference.pose
    estimated = pose.T_query_from_reference
    assert rotation_angle_deg(estimated[:3, :3], truth[:3, :3]) < 0.15
    assert direction_angle_deg(estimated[:3, 3], truth[:3, 3]) < 2.0


def test_a_blank_wall_matches_nothing(matched: dict[str, Correspondences]) -> None:
    blank, seen = matched["blank"], matched["sideways"]
    assert blank.overlap < 0.2 * seen.overlap
    assert len(blank) < 0.1 * len(seen)
