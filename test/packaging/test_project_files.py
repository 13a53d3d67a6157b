"""What a stranger meets: files of the repository that say the same, things found by name, pages for an index."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import ros2_densematch
from ros2_densematch.configuration import Configuration, read_configuration
from ros2_densematch.files.shipped import recipe_names, sample_file
from ros2_densematch.io.sources.opening import open_source
from ros2_densematch.training.recipe import load_recipe


def test_the_workflow_runs_what_ci_runs(repository: Path) -> None:
    workflow = yaml.safe_load((repository / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    own = re.findall(r"^step (.+)$", (repository / ".ci/run").read_text(), re.MULTILINE)
    assert commands == [command.replace('"${PYTHON:-python3}"', "python3") for command in own]
    assert "make test" in commands


def test_issue_forms_and_hooks_are_yaml_and_name_what_exists(repository: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), re.MULTILINE))
    hooks = yaml.safe_load((repository / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert {hook["entry"] for hook in hooks} == {"make lint", "make typecheck"}
    assert {hook["entry"].removeprefix("make ") for hook in hooks} <= targets
    for form in (repository / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        content = yaml.safe_load(form.read_text())
        assert form.name == "config.yml" or {"name", "description", "body"} <= set(content)


def test_the_citation_is_of_this_version(repository: Path) -> None:
    citation = yaml.safe_load((repository / "CITATION.cff").read_text())
    assert citation["version"] == ros2_densematch.__version__
    assert citation["license"] == "Apache-2.0"


def test_no_line_installs_from_an_index_what_is_not_there(repository: Path) -> None:
    """The distribution is not published: `pip install densematch` would bring nothing, or something else."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, check=True)
    saying = re.compile(r"pip install (?:-\S+ \S+ )*[\"']?densematch\b")
    found = [
        name
        for name in listing.stdout.decode().split("\0")
        if name.endswith((".md", ".py", ".toml", ".yaml", ".yml", ".txt", ".sh"))
        and not name.startswith("test/")
        and name != "scripts/build_messages.sh"  # asks for an extra of what is installed already
        and saying.search((repository / name).read_text("utf-8"))
    ]
    assert not found


@pytest.fixture(scope="module")
def build_script(repository: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location("densematch_setup", repository / "setup.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_links_and_pictures_of_the_readme_work_on_an_index(repository: Path, build_script: ModuleType) -> None:
    text = (repository / "README.md").read_text()
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert any("://" not in target for target in targets)
    shown = build_script.readme_for_index(text, "https://example.com/densematch")
    for picture, target in re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)\)", shown):
        assert target.startswith("https://")
        if picture and "example.com" in target:
            assert "/raw/main/" in target
    plain = build_script.readme_for_index(text, "")
    assert not [t for t in re.findall(r"\]\(([^)\s]+)\)", plain) if "://" not in t]
    assert "docs/formats.md" in plain  # the words of a link stay


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_are_found_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recipe(Path(name)) == load_recipe(Path(f"{name}.yaml"))


def test_what_is_in_the_working_folder_goes_before_what_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_configuration(Path("matcher")) == Configuration()
    (tmp_path / "matcher").write_text("preset: fast\n")
    assert read_configuration(Path("matcher")).preset == "fast"
    with pytest.raises(FileNotFoundError, match="there is no configuration file nothing: check --config"):
        read_configuration(Path("nothing"))
    with pytest.raises(FileNotFoundError, match=r"there is no training recipe nothing: .*condl"):
        load_recipe(Path("nothing"))
    assert sample_file(Path("sample/a.jpg")).is_file()
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample/a.jpg").write_text("mine")
    assert sample_file(Path("sample/a.jpg")).read_text() == "mine"
    assert sample_file(Path("sample/../secret")) == Path("sample/../secret")


def test_two_photos_and_a_short_bag_with_true_poses_are_in_the_package(repository: Path) -> None:
    files = [file for file in (repository / "ros2_densematch/sample").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 1_000_000
    source = open_source("sample/flight")
    frames = list(source)
    assert len(frames) >= 20
    assert frames[0].camera is not None
    assert source.ground_truth is not None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("densematch re", {"replay"}),
        ("densematch replay --ani", {"--animate"}),
        ("densematch export ", {"hloc", "colmap", "gtsam", "kitti", "rerun", "foxglove", "onnx"}),
    ],
)
def test_the_shell_completes_commands_and_their_options(line: str, expected: set[str]) -> None:
    environment = {
        **os.environ,
        "_DENSEMATCH_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
    }
    done = subprocess.run(
        [sys.executable, "-m", "ros2_densematch"], env=environment, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == expected


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning_and_without_a_network(repository: Path, tmp_path: Path) -> None:
    for module in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(module, reason=f"{module} is of the extra docs")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", str(repository / "docs"), str(tmp_path / "site")]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"http_proxy": "http://127.0.0.1:9"}
    )
    assert done.returncode == 0, done.stderr
    pages = {file.relative_to(tmp_path / "site").as_posix() for file in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", "formats.html", "ros.html", "api.html", "matchers/gcm.html"} <= pages
