"""Real photographs with exact cameras: SIFT and this estimator."""

from __future__ import annotations

import cv2
import numpy as np

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.two_view import Geometry, estimate_relative_pose
from ros2_densematch.matchers.sift.matcher import SiftMatcher


def test_fountain_poses_are_within_a_degree(shared_data) -> None:
    folder = shared_data.need("pose_pairs/strecha_fountain")
    lines = [line.split() for line in (folder / "pairs.txt").read_text().splitlines() if not line.startswith("#")]
    matcher, encodings = SiftMatcher(), {}
    for fields in lines[::11]:
        encoded = []
        for name in fields[:2]:
            if name not in encodings:
                encodings[name] = matcher.encode(cv2.cvtColor(cv2.imread(str(folder / name)), cv2.COLOR_BGR2RGB))
            encoded.append(encodings[name])
        numbers = np.array(fields[2:], float)
        cameras = [
            Camera.from_matrix(K.reshape(3, 3), *e.size)
            for K, e in zip((numbers[:9], numbers[9:18]), encoded, strict=True)
        ]
        truth = numbers[18:].reshape(4, 4)
        pose = estimate_relative_pose(matcher.match(*encoded), *cameras)
        assert pose.geometry is Geometry.CALIBRATED, (fields[:2], pose.status)
        assert poses.rotation_angle_deg(truth, pose.T_query_from_reference) < 0.3, fields[:2]
        assert poses.direction_angle_deg(truth[:3, 3], pose.T_query_from_reference[:3, 3]) < 1.0, fields[:2]
