"""Matchers of other packages: the template of docs/plugin is installed, found, held to the contract and used."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ros2_densematch.cli import doctor
from ros2_densematch.matchers.registry import broken_plugins, list_matchers, list_plugins, load_matcher

TOY = """
from ros2_densematch.matchers.base import Matcher

class Good(Matcher):
    name = "good"
    def _encode(self, image, *, reference, mask): return None
    def _match(self, reference, query, *, max_matches, seed): return None

class Unfinished(Matcher):
    name = "unfinished"
    def _encode(self, image, *, reference, mask): return None

class NoMatcher:
    name = "no_matcher"
"""


@pytest.fixture(scope="module")
def installed(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the template, as a user does, but without a network."""
    work = tmp_path_factory.mktemp("plugin")
    source, target = work / "source", work / "site"
    source.mkdir()
    for name in ("pyproject.toml", "toy_matcher.py"):
        (source / name).write_text((repository / "docs" / "plugin" / name).read_text("utf-8"), "utf-8")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "-q"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", target, source], check=True)
    return target


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Modules of a plugin are imported anew in each test."""
    yield
    for name in ("toy_matcher", "other_toy", "broken_toy"):
        sys.modules.pop(name, None)


def package(folder: Path, name: str, entries: str, code: str | None = TOY) -> None:
    """What pip leaves behind of an installed package."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text(f"[densematch.matchers]\n{entries}\n", "utf-8")
    if code is not None:
        (folder / f"{name}.py").write_text(code, "utf-8")


def test_an_installed_package_adds_a_matcher(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "toy" not in list_matchers()
    monkeypatch.syspath_prepend(installed)
    assert "toy" in list_matchers()
    assert list_plugins() == ["toy"]
    assert broken_plugins() == {}
    image = np.random.default_rng(0).integers(0, 256, (120, 160), np.uint8)
    matcher = load_matcher("toy")
    matches = matcher.match(matcher.encode(image), matcher.encode(image))
    assert len(matches) > 50
    np.testing.assert_array_equal(matches.reference_xy, matches.query_xy)


def test_the_contract_tests_run_on_it(installed: Path, repository: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(installed), str(repository)])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "toy"]
    done = subprocess.run(
        [*command, str(repository / "test" / "matchers" / "test_matcher_contract.py")],
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    passed = int(done.stdout.splitlines()[-1].split(" passed")[0].split()[-1])
    assert passed >= 20, "the whole contract, both halves of it"


def test_replay_uses_it(installed: Path, flight: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(installed), *sys.path])}
    command = [sys.executable, "-m", "ros2_densematch", "replay", str(flight), "--matcher", "toy"]
    done = subprocess.run([*command, "--out", str(tmp_path)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "relative_poses.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 3
    assert all(int(row["num_inliers"]) > 100 for row in rows[1:])
    assert '"name": "toy"' in (tmp_path / "summary.json").read_text("utf-8")


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("fails = other_toy_gone:Good", "No module named 'other_toy_gone'"),
        ("lost = other_toy:Nobody", "has no attribute 'Nobody'"),
        ("no_matcher = other_toy:NoMatcher", "no subclass of ros2_densematch.Matcher"),
        ("unfinished = other_toy:Unfinished", "lacks _match"),
        ("better = other_toy:Good", "says name = 'good'"),
    ],
)
def test_a_broken_plugin_is_listed_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], entry: str, why: str
) -> None:
    name = entry.partition(" ")[0]
    package(tmp_path, "other_toy", f"{entry}\ngood = other_toy:Good")
    monkeypatch.syspath_prepend(tmp_path)
    assert {name, "good", "gcm", "sift"} <= set(list_matchers())
    [(broken, said)] = broken_plugins().items()
    assert broken == name
    assert said.startswith(f"matcher {name!r} of other_toy 1.0 cannot be used (")
    assert why in said
    assert said.endswith("repair or remove that package")
    with pytest.raises(ValueError, match=r"of other_toy 1\.0 cannot be used"):
        load_matcher(name)
    assert load_matcher("sift").name == "sift"
    row, *faults = doctor.matchers()
    assert "good" in row.found.split(", ")
    assert name not in row.found.split(", ")
    assert [fault.name for fault in faults] == [f"plugin {name}"]
    assert why in faults[0].found


@pytest.mark.parametrize("code", ["raise RuntimeError('no licence')", "import sys; sys.exit(3)", "def ("])
def test_whatever_a_plugin_does_when_imported_others_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    package(tmp_path, "broken_toy", "bad = broken_toy:Bad", code)
    monkeypatch.syspath_prepend(tmp_path)
    assert "bad" in list_matchers()
    assert list(broken_plugins()) == ["bad"]
    assert load_matcher("sift").name == "sift"


def test_damaged_metadata_breaks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "other_toy", "good = other_toy:Good")
    package(tmp_path, "broken_toy", "this is no entry point", None)
    monkeypatch.syspath_prepend(tmp_path)
    assert "good" in list_matchers()
    assert set(broken_plugins()) <= {"broken_toy", "this is no entry point"}


def test_no_plugin_takes_a_name_of_densematch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "other_toy", "sift = other_toy:Good")
    monkeypatch.syspath_prepend(tmp_path)
    assert list_plugins() == []
    assert "is a matcher of densematch itself" in broken_plugins()["sift (other_toy 1.0)"]
    assert type(load_matcher("sift")).__name__ == "SiftMatcher"


def test_two_plugins_of_one_name_are_both_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("other_toy", "second_toy"):
        package(tmp_path, name, f"good = {name}:Good")
    monkeypatch.syspath_prepend(tmp_path)
    assert "good" not in list_matchers()
    said = broken_plugins()["good"]
    assert "other_toy 1.0" in said
    assert "second_toy 1.0" in said


def test_an_unknown_matcher_names_the_plugins_too(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(installed)
    with pytest.raises(ValueError, match=r"unknown matcher 'nobody': choose one of .*sift.*toy"):
        load_matcher("nobody")
