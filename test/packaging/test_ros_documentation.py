"""docs/ros.md says what the node declares."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ros2_densematch.configuration import parameter_names
from ros2_densematch.live.reference import tables, updated
from ros2_densematch.live.topics import PUBLISHED, SERVICES, SUBSCRIBED


@pytest.fixture(scope="module")
def document(repository: Path) -> str:
    return (repository / "docs/ros.md").read_text()


def test_the_tables_are_those_of_the_declarations(document: str) -> None:
    assert document == updated(document), "run: python -m ros2_densematch.live.reference docs/ros.md"


def test_every_name_is_in_them() -> None:
    text = tables()
    for name in [*(t for t in (*SUBSCRIBED, *PUBLISHED)), *(s.name for s in SERVICES), *parameter_names()]:
        assert f"| `{name}` |" in text


def test_defaults_and_ranges_are_written_as_in_a_parameter_file() -> None:
    rows = {line.split("`")[1]: line for line in tables().splitlines() if line.startswith("| `")}
    assert "| integer | `0` | >= 0, \\<= 2147483647 |" in rows["tracker.seed"]
    assert "| bool | `false` |  | any time |" in rows["publish_tf"]
    assert "| `auto` | auto, raw, compressed | at start |" in rows["image_transport"]
    assert '| string | `""` |' in rows["mask"]


def test_a_document_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no line"):
        updated("# nothing")


def test_every_launch_file_and_layout_is_named(repository: Path, document: str) -> None:
    for path in [*repository.glob("launch/*.py"), repository / "config/densematch.rviz"]:
        assert path.name in document
    named = set(re.findall(r"`(\w+\.launch\.py)`", document))
    assert named == {path.name for path in repository.glob("launch/*.py")}


def test_what_was_not_seen_is_said(document: str, repository: Path) -> None:
    assert "## Not seen on a full installation" in document
    assert "NOT VERIFIED" in (repository / "docker/Dockerfile").read_text()


def test_every_argument_that_a_text_names_can_be_set_where_it_says(repository: Path, document: str) -> None:
    """`NAME:=` in the node's log lines, in the messages of its errors and in the document is a launch argument, or a
    parameter or topic behind --ros-args."""
    given = json.loads((repository / "launch/parameters.json").read_text("utf-8"))
    launch = set(given) | set(re.findall(r'^    "(\w+)": \(', "".join(
        (repository / f"launch/{name}.launch.py").read_text("utf-8") for name in ("matcher", "replay", "two_cameras")
    ), re.MULTILINE))  # fmt: skip
    texts = [(repository / f"ros2_densematch/{part}") for part in ("live", "messages")]
    lines = [line for folder in texts for path in folder.glob("*.py") for line in path.read_text("utf-8").splitlines()]
    named: set[str] = set()
    for line in [*lines, *document.splitlines()]:
        if "--ros-args" not in line and "-p " not in line:
            named |= set(re.findall(r"(?<![\w.])([a-z][\w.]*):=", line))
    of_others = {"odom"}  # RTAB-Map's
    assert {"image_transport", "publish_tf", "params", "depth", "name"} <= named
    assert named - launch - of_others == set()
