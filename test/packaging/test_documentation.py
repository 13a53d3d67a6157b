"""The documents point at things that exist."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from ros2_densematch.cli.main import COMMANDS
from ros2_densematch.matchers.registry import list_matchers, list_plugins


@pytest.fixture(scope="module")
def documents(repository: Path) -> list[Path]:
    return [
        *(repository / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
        *sorted((repository / "docs").rglob("*.md")),
    ]


def test_every_link_leads_somewhere(documents: list[Path], repository: Path) -> None:
    broken = []
    for document in documents:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text()):
            if "://" not in target and not (document.parent / target).exists():
                broken.append(f"{document.relative_to(repository)}: {target}")
    assert not broken


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub and MyST make them."""
    text = re.sub(r"^```.*?^```", "", document.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_every_anchor_of_a_link_is_a_heading(documents: list[Path], repository: Path) -> None:
    checked, broken = 0, []
    for document in documents:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", document.read_text("utf-8")):
            if "://" in target:
                continue
            checked += 1
            page = document.parent / target if target else document
            if anchor not in anchors(page):
                broken.append(f"{document.relative_to(repository)}: {target}#{anchor}")
    assert checked >= 8
    assert not broken


def test_every_command_of_the_readme_is_one_of_the_program(repository: Path) -> None:
    text = (repository / "README.md").read_text()
    named = set(re.findall(r"^densematch (\w+)", text, re.MULTILINE))
    for alternatives in re.findall(r"^densematch (\w+(?: \| \w+)+)", text, re.MULTILINE):
        named |= set(alternatives.split(" | "))
    assert named
    assert named <= set(COMMANDS)


def test_every_target_of_the_readme_is_one_of_the_makefile(repository: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), re.MULTILINE))
    named = set(
        re.findall(r"(?:^|`)make (?:[A-Z]+=\S+ )?([a-z-]+)", (repository / "README.md").read_text(), re.MULTILINE)
    )
    assert {"demo", "test"} <= named
    assert named <= targets


def test_the_table_of_matchers_says_which_exist(repository: Path) -> None:
    rows = re.findall(r"^\| (.+?) \|.*\| ([^|]+) \|$", (repository / "README.md").read_text(), re.MULTILINE)
    exist = {name.split("`")[1] for name, status in rows if status in ("default", "ready", "official weights")}
    assert exist == set(list_matchers()) - set(list_plugins())


def test_the_walk_through_the_tracker_is_drawn_as_it_is_programmed(repository: Path) -> None:
    """Every arrow between two files is an import, and no arrow leads back."""
    text = (repository / "docs" / "architecture.md").read_text("utf-8")
    drawing = text.split("### Inside the tracker")[1].split("```mermaid")[1].split("```")[0]
    files = {name: re.findall(r"(\w+)\.py", label) for name, label in re.findall(r'(\w+)\["(.+?)"\]', drawing)}
    arrows = []
    for line in drawing.splitlines():
        chain = re.findall(r"\w+", re.sub(r'\["[^"]*"\]', "", line)) if "-->" in line and "&" not in line else []
        arrows += list(itertools.pairwise(chain))
    assert len(arrows) >= 14
    known = {file for named in files.values() for file in named}
    assert {f"{file}.py" for file in known} <= {
        path.name for path in (repository / "ros2_densematch/tracking").glob("*.py")
    }
    untrue = []
    for left, right in arrows:
        sources = [(repository / f"ros2_densematch/tracking/{file}.py").read_text("utf-8") for file in files[left]]
        words = "|".join(files[right])
        pattern = rf"ros2_densematch\.tracking(\.({words}) import| import .*\b({words})\b)"
        if not any(re.search(pattern, source) for source in sources):
            untrue.append(f"{left} --> {right}")
    assert untrue == []
    reached = {left: {b for a, b in arrows if a == left} for left in files}
    for _ in files:
        reached = {a: ends.union(*(reached.get(b, set()) for b in ends)) for a, ends in reached.items()}
    assert not [name for name, ends in reached.items() if name in ends]
