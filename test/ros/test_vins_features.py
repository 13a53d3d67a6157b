"""The VINS-Fusion adapter on the real transport: correspondences in, its feature message out."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.messages.conversions import correspondences_message, time_ns

SIZE = (640, 480)
START = 1_700_000_000 * 10**9


def moved(frame: int) -> Any:
    """Correspondences of image `frame` with the keyframe at START: everything goes 3 px to the right an image."""
    rng = np.random.default_rng(frame)
    reference = rng.uniform([0, 0], [560, 480], (2000, 2)).astype(np.float32)
    query = (reference + np.array([3.0 * frame, 0])).astype(np.float32)
    matches = Correspondences(reference, query, np.full(2000, 0.9, np.float32), 0.9, SIZE, SIZE)
    return correspondences_message(
        matches,
        stamp_ns=START + frame * 50_000_000,
        frame_id="camera_optical_frame",
        reference_stamp_ns=START,
        reference_frame_id="camera_optical_frame",
        keyframe_id=0,
        inliers=np.ones(2000, np.bool_),
    )


def test_the_feature_topic_is_what_vins_fusion_reads(peer: Any, camera: Any, tmp_path: Path) -> None:
    log = tmp_path / "adapter.log"
    command = [sys.executable, "-m", "ros2_densematch.live.ros_vins", "--ros-args"]
    command += ["-r", "camera_info:=/camera/camera_info"]
    with log.open("w") as out:
        adapter = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        heard = peer.listen("/feature_tracker/feature", "sensor_msgs/msg/PointCloud")
        peer.publish("/matcher/correspondences", moved(1))  # before any calibration: said, and survived
        peer.until(lambda: "no calibration on /camera/camera_info" in log.read_text(), "the warning")
        info = camera.info()
        for frame in range(2, 8):
            peer.publish("/camera/camera_info", info)
            peer.publish("/matcher/correspondences", moved(frame))
        # the calibration may arrive after the first matches
        peer.until(lambda: len(heard) >= 3, "features")
        first, last = heard[1], heard[-1]
        assert [c.name for c in last.channels][:4] == ["id", "camera_id", "u", "v"]
        assert len(last.channels) == 9
        assert all(len(c.values) == len(last.points) == 300 for c in last.channels)
        assert all(p.z == 1.0 for p in last.points)
        assert last.header.frame_id == "camera_optical_frame"
        ids = [np.array(m.channels[0].values) for m in (first, last)]
        _, i, j = np.intersect1d(*ids, return_indices=True)
        assert len(i) > 200
        u = [np.array(m.channels[2].values) for m in (first, last)]
        images = (time_ns(last.header.stamp) - time_ns(first.header.stamp)) // 50_000_000
        np.testing.assert_allclose(u[1][j] - u[0][i], 3.0 * images, atol=0.05)
        points = np.array([[p.x, p.y] for p in last.points])
        pixels = np.column_stack([last.channels[2].values, last.channels[3].values])
        expected = Camera.from_camera_info(info, rectified=False).normalise(pixels)
        np.testing.assert_allclose(points, expected, atol=1e-5)
    finally:
        adapter.send_signal(signal.SIGINT)
        assert adapter.wait(180) == 0, log.read_text()
    assert "Traceback" not in log.read_text()


def test_help_is_an_answer_and_starts_no_node(
    ros_environment: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ros2_densematch.live import ros_vins

    monkeypatch.setattr(sys, "argv", ["vins_features", "--help"])
    with pytest.raises(SystemExit) as ended:
        ros_vins.main()
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for word in ("usage: vins_features", "/feature_tracker/feature", "max_tracks (integer, 300)"):
        assert word in said
    monkeypatch.setattr(sys, "argv", ["vins_features", "--nonsense"])
    with pytest.raises(SystemExit) as refused:
        ros_vins.main()
    assert refused.value.code == 2
    assert "unrecognized arguments: --nonsense" in capsys.readouterr().err
