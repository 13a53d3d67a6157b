"""The control figures of docs/evaluation.md, made again by the commands that stand beside them."""

from __future__ import annotations

import functools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from ros2_densematch.cli.main import main

_DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"
_DATA = "../shared/data"


def stated() -> list[tuple[str, str, str, float, float]]:
    """(command, file, path in it, value, noise) of each row of the table."""
    rows: list[tuple[str, str, str, float, float]] = []
    for line in _DOCUMENT.read_text("utf-8").partition("## Control figures")[2].splitlines():
        found = re.fullmatch(r"\| (`densematch (.+?)`|the same) \| `(\S+) (\S+)` \| ([\d.]+) \| ([\d.]+) \|", line)
        if found:
            command = rows[-1][0] if found[1] == "the same" else found[2]
            rows.append((command, found[3], found[4], float(found[5]), float(found[6])))
    return rows


ROWS = stated()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs a command once; gives the folder of its results."""

    @functools.cache
    def run(command: str, data: str) -> Path:
        out = tmp_path_factory.mktemp("control")
        words = [word.replace(_DATA, data) for word in shlex.split(command)]
        assert main([*words, "--out", str(out)]) == 0, command
        return out

    return run


def test_the_table_is_read_whole() -> None:
    table = _DOCUMENT.read_text("utf-8").partition("## Control figures")[2]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len(ROWS) == len(lines) - 2  # but the heading and its rule
    assert any(_DATA not in command for command, *_ in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[f"{command.split()[0]} {path}" for command, _, path, _, _ in ROWS])
def test_a_figure_is_what_the_document_says(row: tuple[str, str, str, float, float], made: Any, request: Any) -> None:
    command, file, path, value, noise = row
    data = str(request.getfixturevalue("shared_data")) if _DATA in command else ""  # skips by name where it is missing
    found: Any = json.loads((made(command, data) / file).read_text("utf-8"))
    for key in path.split("/"):
        found = found[int(key)] if isinstance(found, list) else found[key]
    assert found == pytest.approx(value, abs=noise), f"densematch {command}: {path} drifted; the document says {value}"
