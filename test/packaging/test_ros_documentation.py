"""docs/ros.md says what the node declares."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from ros2_densematch.configuration import NODE_NAME, Configuration, parameter_names
from ros2_densematch.live.parameters import declared
from ros2_densematch.live.reference import tables, updated
from ros2_densematch.live.topics import PUBLISHED, SERVICES, SUBSCRIBED
from ros2_densematch.matchers.registry import all_presets


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


WRITTEN, NOT_SEEN = "no test", "not tested"


@pytest.fixture(scope="module")
def seen(document: str) -> list[tuple[str, str, str, str]]:
    """(what, name, tests with the wheels, tests with more of Jazzy's tools) of the table."""
    _, _, rest = document.partition("<!-- seen: test/packaging/test_ros_documentation.py -->")
    table, end, _ = rest.partition("<!-- end of seen -->")
    assert end
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.strip().splitlines()[2:]]
    return [(what, name.strip("`"), wheels, more) for what, name, wheels, more in rows]


def parameter_group(name: str) -> str:
    if "." not in name:
        return "without a dot"
    for group in ("tracker.pose", "tracker"):
        if name.startswith(f"{group}."):
            return f"{group}.*"
    assert name.split(".")[0] in all_presets()
    return "MATCHER.*"


def test_the_table_of_what_was_seen_is_complete(repository: Path, seen: list[tuple[str, str, str, str]]) -> None:
    names: dict[str, set[str]] = {}
    for what, name, _, _ in seen:
        assert name not in names.setdefault(what, set()), f"{what} {name} stands there twice"
        names[what].add(name)
    scripts = (path for path in (repository / "scripts").iterdir() if not path.suffix)
    messages = {f"densematch/msg/{path.stem}" for path in repository.glob("msg/*.msg")}
    assert names == {
        "executable": {path.name for path in scripts},
        "launch file": {path.name for path in repository.glob("launch/*.py")},
        "subscribed": set(SUBSCRIBED),
        "published": set(PUBLISHED),
        "service": {service.name for service in SERVICES},
        "message": messages | {f"densematch/srv/{path.stem}" for path in repository.glob("srv/*.srv")},
        "parameters": {parameter_group(p.name) for p in declared()},
        "file": {path.name for path in (repository / "config").iterdir() if path.is_file()},
    }


def words_for(what: str, name: str) -> set[str]:
    """What a test that has seen this part at work holds: its name, or the topic or service that has its type."""
    if what in ("parameters", "file"):
        return {"parameters" if what == "parameters" else "matcher.launch.py"}
    of_type = {part.name for part in (*PUBLISHED.values(), *SERVICES) if part.type == name}
    return {word.removeprefix("~/") for word in {name} | of_type}


def test_what_was_seen_is_in_the_test_that_has_seen_it(repository: Path, seen: list[tuple[str, str, str, str]]) -> None:
    wrong = []
    for what, name, *tests in seen:
        assert (tests == [WRITTEN, WRITTEN]) == (WRITTEN in tests), "no test: in both columns or in none"
        assert tests != [NOT_SEEN, NOT_SEEN]
        for column, test in enumerate(tests):
            path = repository / f"test/ros/{test}.py"
            text = path.read_text("utf-8") if path.is_file() else ""
            here = any(word in text for word in words_for(what, name))
            if test not in (WRITTEN, NOT_SEEN) and (not here or (test == "test_launch_real") != (column == 1)):
                wrong.append((what, name, test))
    assert wrong == []


def test_what_was_not_seen_is_said(document: str, repository: Path) -> None:
    assert "Not tested at all" in document
    assert "NOT VERIFIED" in (repository / "docker/Dockerfile").read_text()


def test_the_files_of_the_appendix_name_what_exists(repository: Path, document: str) -> None:
    _, _, appendix = document.partition("## Appendix: nav2 and robot_localization")
    files = set(re.findall(r"\]\(\.\./(config/\w+\.yaml)\)", appendix))
    assert files == {"config/nav2_lifecycle_manager.yaml", "config/robot_localization.yaml"}
    manager = yaml.safe_load((repository / "config/nav2_lifecycle_manager.yaml").read_text("utf-8"))
    ((name, content),) = manager.items()
    settings = content["ros__parameters"]
    assert settings == {"autostart": True, "node_names": [NODE_NAME], "bond_timeout": 0.0}
    assert isinstance(settings["bond_timeout"], float)  # an integer is another type to rclcpp
    ekf = yaml.safe_load((repository / "config/robot_localization.yaml").read_text("utf-8"))
    ((ekf_name, ekf_content),) = ekf.items()
    topics = {topic.name.replace("~", f"/{NODE_NAME}"): topic.type for topic in PUBLISHED.values()}
    assert topics[ekf_content["ros__parameters"]["odom0"]] == "nav_msgs/msg/Odometry"
    assert ekf_content["ros__parameters"]["odom_frame"] == Configuration().odom_frame
    for node in (name, ekf_name):
        assert f"__node:={node}" in appendix


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
