"""A package that is not installed is one line with the command that installs it, never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ros2_densematch.cli.errors import missing
from ros2_densematch.geometry.camera import Camera


def run_without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process where a module cannot be imported."""
    code = (
        f"import sys; sys.modules[{module!r}] = None; from ros2_densematch.__main__ import main; "
        f"sys.exit(main({list(arguments)!r}))"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("module", "package"),
    [("typer", "typer"), ("torch", "torch"), ("poselib", "poselib"), ("cv2", "opencv-python-headless")],
)
def test_one_line_names_the_package_and_the_command(module: str, package: str, tmp_path: Path) -> None:
    picture = str(tmp_path / "picture.png")
    Image.new("RGB", (64, 48)).save(picture)
    camera = str(tmp_path / "camera.yaml")
    Camera.from_matrix(np.array([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]]), 64, 48).to_yaml(camera)
    cameras = ("--reference-camera", camera, "--query-camera", camera)
    done = run_without(module, "match", picture, picture, *cameras, "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert f"-m pip install {package}" in done.stderr.replace(" -c constraints-ros.txt", "")


def test_beside_a_distribution_the_constraints_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DISTRO", "humble")
    assert missing("poselib").endswith("-m pip install -c constraints-ros.txt poselib")
    assert missing("cv_bridge").endswith("apt install ros-humble-cv-bridge")
    monkeypatch.delenv("ROS_DISTRO")
    assert missing("yaml").endswith("-m pip install pyyaml")


def test_what_comes_with_ros_is_named_so() -> None:
    assert 'pip install ".[ros]" in a clone' in missing("rclpy")
    assert "make messages" in missing("densematch.msg")
