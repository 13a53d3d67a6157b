"""The tables of topics, services and parameters in docs/ros.md, and of the launch arguments, from the declarations.

python -m ros2_densematch.live.reference docs/ros.md launch/parameters.json        writes both
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from ros2_densematch.configuration import Configuration
from ros2_densematch.files.atomic import write_text
from ros2_densematch.live.parameters import Parameter, options, plain
from ros2_densematch.live.topics import PUBLISHED, SERVICES, SUBSCRIBED, Topic

BEGIN, END = "<!-- tables: written by python -m ros2_densematch.live.reference -->", "<!-- end of the tables -->"


def tables() -> str:
    """Markdown: what is subscribed, published, served, and every parameter."""
    parts = [
        ("### Subscribed topics", _topics(SUBSCRIBED.values())),
        ("### Published topics", _topics(PUBLISHED.values())),
        (
            "### Services",
            _table(("service", "type", "what"), ((f"`{s.name}`", s.type, s.description) for s in SERVICES)),
        ),
        ("### Parameters", _parameters(plain(Configuration()))),
        (
            "### Options of the matchers",
            "The defaults are those of the preset `base`. An option that is set overrides every preset. An option "
            "that is not set follows the preset, also when the preset "
            "changes.\n\n" + _parameters(options(Configuration())),
        ),
    ]
    return "\n\n".join(f"{title}\n\n{table}" for title, table in parts)


def updated(document: str) -> str:
    """A document with the tables between its marks.

    Raises:
        ValueError: the marks are not there.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document has no line {(END if begin else BEGIN)!r}: add it")
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def launch_parameters() -> str:
    """JSON of the parameters that `ros2 launch` gives an argument each: name -> kind and description.

    The launch file runs under the system's Python, which may not have what this package needs; it reads this table.
    """
    entries = {
        p.name: {"kind": p.kind, "description": p.description} for p in plain(Configuration()) if "." not in p.name
    }
    return json.dumps(entries, indent=1) + "\n"


def _topics(topics: Iterable[Topic]) -> str:
    return _table(
        ("topic", "type", "QoS", "what"), ((f"`{t.name}`", t.type, str(t.qos), t.description) for t in topics)
    )


def _parameters(parameters: Iterable[Parameter]) -> str:
    def row(p: Parameter) -> tuple[str, ...]:
        default = str(p.default).lower() if p.kind == "bool" else str(p.default) or '""'
        return (
            f"`{p.name}`", p.kind, f"`{default}`", _range(p), "at start" if p.read_only else "any time",
            p.description,
        )  # fmt: skip

    return _table(("parameter", "type", "default", "values", "set", "what"), map(row, parameters))


def _range(p: Parameter) -> str:
    return ", ".join(p.choices) or p.limits


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(re.sub(r'[|<]', _escaped, cell) for cell in line)} |" for line in lines)


def _escaped(found: re.Match[str]) -> str:
    return f"\\{found[0]}"  # else Markdown takes them for the table's own, or for HTML


if __name__ == "__main__":
    if len(sys.argv) == 1:
        print(tables())
    for path in map(Path, sys.argv[1:]):
        write_text(path, launch_parameters() if path.suffix == ".json" else updated(path.read_text("utf-8")))
