"""The wheel carries everything: built from a clean copy, installed in a fresh environment, run outside the clone.

The environment is made with constraints-ros.txt, where NumPy 1 can be had at all (up to Python 3.12): so the set that
lives beside a distribution's ROS is resolved, imported and run here, and the other set by the rest of the tests.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import ros2_densematch

pytestmark = pytest.mark.slow

SHARED_FOLDERS = ("msg", "srv", "config", "launch")


def run(command: list[str | Path], cwd: Path, **environment: str) -> str:
    """Runs a command without the variables that could lead Python back to the clone; returns its output."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "PYTEST"))}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=clean | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def source(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that git knows or would take, without build folders of earlier runs."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=repository, capture_output=True, check=True).stdout.decode().split("\0")
    copy = tmp_path_factory.mktemp("source")
    for name in filter(None, names):
        if (repository / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((repository / name).read_bytes())
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, so that it too is complete."""
    target = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "build", "--outdir", target, source], cwd=target)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(repository: Path, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fresh virtual environment with nothing but the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("environment")
    constraints = "constraints-ros.txt" if sys.version_info < (3, 13) else "constraints.txt"
    run([sys.executable, "-m", "venv", folder], cwd=folder)
    pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--no-compile", "-c", repository / constraints]
    run([*pip, wheel], cwd=folder)
    yield folder
    shutil.rmtree(folder)  # more than a gigabyte, which pytest would keep for three runs


@pytest.fixture(scope="module")
def demo(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of `densematch demo`, run in an empty folder."""
    empty = tmp_path_factory.mktemp("empty")
    run([environment / "bin/densematch", "demo", "--out", "out"], cwd=empty)
    return empty / "out"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four pictures of a textured wall that passes by."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.uniform(0, 255, (300, 400)).astype(np.float32), (0, 0), 1.5)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(4):
        cv2.imwrite(str(folder / f"{index:06d}.png"), texture[20:260, 10 + 8 * index : 330 + 8 * index])
    return folder


def test_it_holds_messages_configuration_launch_files_and_weights(source: Path, wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in SHARED_FOLDERS:
        files = {p.relative_to(source).as_posix() for p in (source / folder).rglob("*") if p.is_file()}
        assert files, f"{folder}/ is empty"
        assert {f"ros2_densematch/share/{name}" for name in files} <= names
    module = {p.relative_to(source).as_posix() for p in (source / "ros2_densematch").rglob("*") if p.is_file()}
    assert any(name.endswith(".safetensors") for name in module)
    assert module <= names


def test_it_holds_nothing_else(wheel: Path) -> None:
    top = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert top == {"ros2_densematch", f"densematch-{ros2_densematch.__version__}.dist-info"}


def test_licence_and_credits_travel_with_it(wheel: Path) -> None:
    names = [name.rpartition("/")[2] for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" in name]
    assert {"LICENSE", "NOTICE"} <= set(names)


def test_the_module_comes_from_the_wheel(environment: Path, tmp_path: Path) -> None:
    code = "import ros2_densematch, numpy, cv2, torch; print(ros2_densematch.__file__, ros2_densematch.__version__)"
    file, version = run([environment / "bin/python", "-c", code], cwd=tmp_path).split()
    assert Path(file).is_relative_to(environment)
    assert version == ros2_densematch.__version__


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="there is no NumPy 1 for Python 3.13")
def test_the_set_beside_ros_is_what_was_installed(environment: Path, tmp_path: Path) -> None:
    code = "import numpy, cv2; print(numpy.__version__, cv2.__version__)"
    numpy_version, cv2_version = run([environment / "bin/python", "-c", code], cwd=tmp_path).split()
    assert numpy_version.startswith("1.")
    assert tuple(map(int, cv2_version.split(".")[:2])) < (4, 12)


def test_demo(demo: Path) -> None:
    assert "<html" in (demo / "report.html").read_text()
    assert len((demo / "trajectory.tum").read_text().splitlines()) >= 150


def test_replay_of_the_bag_that_the_demo_wrote(environment: Path, demo: Path, tmp_path: Path) -> None:
    run([environment / "bin/densematch", "replay", demo / "flight", "--out", "out", "--to", "1.0"], cwd=tmp_path)
    assert json.loads((tmp_path / "out/summary.json").read_text())
    assert (tmp_path / "out/trajectory.tum").read_text().strip()
    assert len((tmp_path / "out/relative_poses.csv").read_text().splitlines()) > 1
    assert "<html" in (tmp_path / "out/report.html").read_text()
    assert [*(tmp_path / "out").rglob("*.mcap")]


def test_match(environment: Path, pictures: Path, tmp_path: Path) -> None:
    images = [pictures / "000000.png", pictures / "000001.png"]
    run([environment / "bin/densematch", "match", *images, "--out", "out"], cwd=tmp_path)
    (result,) = (tmp_path / "out").rglob("*.npz")
    with np.load(result) as matches:
        shift = np.median(matches["query_xy"] - matches["reference_xy"], axis=0)
    np.testing.assert_allclose(shift, [-8.0, 0.0], atol=0.3)
    assert json.loads((tmp_path / "out/summary.json").read_text())


def test_two_photos_that_ship_are_matched_without_naming_a_folder(environment: Path, tmp_path: Path) -> None:
    run([environment / "bin/densematch", "match", "sample/a.jpg", "sample/b.jpg"], cwd=tmp_path)
    assert cv2.imread(str(tmp_path / "densematch-match/matches.png")).shape[1] == 1280


def test_recipes_and_parameters_are_found_by_name(environment: Path, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from ros2_densematch.files.shipped import recipe_file, shipped_parameters;"
        "print(recipe_file(Path('condl')), shipped_parameters(Path('matcher')))"
    )
    for file in run([environment / "bin/python", "-c", code], cwd=tmp_path).split():
        assert Path(file).is_relative_to(environment)


def test_the_page_for_an_index_has_no_link_that_leads_nowhere(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
    text = archive.read(name).decode()
    assert "Description-Content-Type: text/markdown" in text
    assert "# densematch" in text
    assert not [t for t in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in t]


def test_the_module_runs_as_the_command_too(environment: Path, tmp_path: Path) -> None:
    assert ros2_densematch.__version__ in run(
        [environment / "bin/python", "-m", "ros2_densematch", "--version"], cwd=tmp_path
    )
