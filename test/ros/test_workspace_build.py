"""`colcon build`, with and without --symlink-install, leaves executables that start.

colcon passes `-DAMENT_CMAKE_SYMLINK_INSTALL=1` to CMake for --symlink-install; where it is not there, the tests call
CMake the same way.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("densematch.msg", reason="the messages are not built: make messages")
pytest.importorskip("ament_package", reason="ament_cmake is not installed")
if shutil.which("cmake") is None:
    pytest.skip("cmake is not installed", allow_module_level=True)

PREFIX = Path(sys.prefix)
EXECUTABLES = ("densematch", "matcher", "replay_gate", "vins_features")


def cmake(folder: Path, *arguments: object) -> None:
    """Runs it in a folder, where a symlink install leaves its list of files."""
    environment = os.environ | {
        "PATH": f"{PREFIX / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "AMENT_PREFIX_PATH": os.environ.get("AMENT_PREFIX_PATH", str(PREFIX)),
    }
    command = ["cmake", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.fixture
def package(repository: Path, tmp_path: Path) -> Path:
    """A copy of the package's sources: CMake refuses an environment that lies inside the source folder."""
    folder = tmp_path / "src/densematch"
    folder.mkdir(parents=True)
    for name in ("CMakeLists.txt", "package.xml"):
        shutil.copy(repository / name, folder)
    for name in ("msg", "srv", "config", "launch", "scripts", "ros2_densematch"):
        shutil.copytree(repository / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def configure(package: Path, build: Path, install: Path, *, symlinks: bool) -> None:
    cmake(
        build.parent, "-S", package, "-B", build, "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_TESTING=OFF",
        f"-DAMENT_CMAKE_SYMLINK_INSTALL={int(symlinks)}", f"-DCMAKE_PREFIX_PATH={PREFIX}",
        f"-DCMAKE_INSTALL_PREFIX={install}", f"-DPython3_EXECUTABLE={sys.executable}",
    )  # fmt: skip


def test_the_files_that_a_symlink_install_links_to_are_executable(package: Path, tmp_path: Path) -> None:
    configure(package, tmp_path / "build", tmp_path / "install", symlinks=True)
    for name in EXECUTABLES:
        assert os.access(tmp_path / "build/scripts" / name, os.X_OK), name


@pytest.mark.slow
def test_the_matcher_of_a_symlink_install_starts(package: Path, tmp_path: Path) -> None:
    build, install = tmp_path / "build", tmp_path / "install"
    configure(package, build, install, symlinks=True)
    cmake(tmp_path, "--build", build, "--parallel", "2")
    cmake(tmp_path, "--install", build)
    for name in EXECUTABLES:
        path = install / "lib/densematch" / name
        assert path.is_symlink()
        assert os.access(path, os.X_OK)
    done = subprocess.run([install / "lib/densematch/matcher", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-500:]
    assert "matcher" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--symlink-install",)], ids=["copied", "linked"])
def test_colcon_builds_a_workspace_whose_executables_start(
    package: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    if shutil.which("colcon") is None:
        pytest.skip("colcon is not installed: pip install colcon-core colcon-cmake colcon-ros")
    prefixes = os.environ.get("AMENT_PREFIX_PATH", str(PREFIX))
    environment = os.environ | {
        "PATH": f"{PREFIX / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "AMENT_PREFIX_PATH": prefixes,
        "CMAKE_PREFIX_PATH": os.environ.get("CMAKE_PREFIX_PATH", prefixes),
    }
    install = tmp_path / "install"
    command = [
        "colcon", "--log-base", tmp_path / "log", "build", *options, "--base-paths", package,
        "--build-base", tmp_path / "build", "--install-base", install,
        "--cmake-args", "-DBUILD_TESTING=OFF", f"-DPython3_EXECUTABLE={sys.executable}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for name in EXECUTABLES:
        path = install / "densematch/lib/densematch" / name
        assert path.is_symlink() == bool(options)
        assert os.access(path, os.X_OK), name
    matcher = install / "densematch/lib/densematch/matcher"
    done = subprocess.run([matcher, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-500:]
