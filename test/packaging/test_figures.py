"""Every headline figure is the same wherever the documents quote it: docs/figures.yaml says what and where."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

SLOT = re.compile(r"\{(\d*)(?::\.(\d)f)?\}")
NUMBER = r"(\d[\d.,]*)"


@dataclass(frozen=True)
class Figure:
    """One entry of docs/figures.yaml: its values as text, and the templates that quote them, by document."""

    name: str
    values: list[str]
    quotes: dict[str, list[str]]


def figures(repository: Path) -> list[Figure]:
    """All entries; every scalar stays the text that the file holds."""
    content = yaml.load((repository / "docs/figures.yaml").read_text("utf-8"), Loader=yaml.BaseLoader)
    found = []
    for name, entry in content.items():
        assert set(entry) == {"value", "command", "quotes"}, f"{name}: value, command and quotes are needed"
        assert entry["command"].startswith(("python ", "densematch ")), name
        values = entry["value"] if isinstance(entry["value"], list) else [entry["value"]]
        found.append(Figure(name, values, entry["quotes"]))
    return found


def pattern(template: str, values: list[str] | None = None) -> str:
    """Regular expression of a template with its values filled in, or with any number in the place of each."""
    parts, end = [], 0
    for slot in SLOT.finditer(template):
        parts.append(template[end : slot.start()])
        value = values[int(slot[1] or 0)] if values is not None else ""
        parts.append(f"{float(value):.{slot[2]}f}" if values is not None and slot[2] else value)
        end = slot.end()
    parts.append(template[end:])
    texts = [re.escape(part).replace("…", r"[^|]*?").replace(r"\ ", r"\s+") for part in parts]
    if values is None:
        texts[1::2] = [NUMBER] * (len(texts) // 2)
        return "".join(texts)
    # not the beginning or the end of a longer number
    texts[1::2] = [rf"(?<![\d.]){text}(?![\d]|\.\d)" for text in texts[1::2]]
    return "".join(texts)


def fault(figure: Figure, document: str, template: str, text: str) -> str:
    """What is wrong with one quotation, in words; "" where the document quotes the figure as it is."""
    if re.search(pattern(template, figure.values), text):
        return ""
    other = re.search(pattern(template), text)
    if other is None:
        return (
            f"{document} has no text like {template!r}: if the sentence changed, change the template of "
            f"{figure.name!r} in docs/figures.yaml"
        )
    return (
        f"{document} says {' / '.join(other.groups())} where docs/figures.yaml has {' / '.join(figure.values)} for "
        f"{figure.name!r}: run its command, then correct the one that is wrong"
    )


def test_every_quotation_is_the_measured_figure(repository: Path) -> None:
    entries = figures(repository)
    assert len(entries) > 15
    texts = {document: (repository / document).read_text("utf-8") for f in entries for document in f.quotes}
    faults = [
        found
        for figure in entries
        for document, templates in figure.quotes.items()
        for template in templates
        if (found := fault(figure, document, template, texts[document]))
    ]
    assert faults == [], "\n".join(faults)


def test_every_bold_figure_of_the_readme_is_listed(repository: Path) -> None:
    """A headline figure cannot be added to the README without its command and its other places."""
    text = (repository / "README.md").read_text("utf-8")
    bold = re.findall(r"\*\*(\d[\d./ ]*\d)(?: %| px)?\*\*", text)
    assert len(bold) >= 5
    known = {value for figure in figures(repository) if "README.md" in figure.quotes for value in figure.values}
    assert [number for figure in bold for number in figure.split(" / ") if number not in known] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("It runs at 27.6\nframes/s here.", ""),
        ("It runs at 27.9 frames/s here.", "README.md says 27.9 where docs/figures.yaml has 27.6 for 'rate'"),
        ("It runs at 127.6 frames/s here.", "README.md says 127.6 where"),
        ("It runs at 27.65 frames/s here.", "README.md says 27.65 where"),
        ("It is fast.", "README.md has no text like 'runs at {} frames/s'"),
    ],
)
def test_a_quotation_that_differs_is_named(text: str, said: str) -> None:
    found = fault(Figure("rate", ["27.6"], {}), "README.md", "runs at {} frames/s", text)
    assert found.startswith(said)
    assert bool(found) == bool(said)


def test_templates_pass_over_other_cells_and_round() -> None:
    figure = Figure("time", ["24.9", "0.360"], {})
    table = "| base | 25 ms | 300 ms | 0.36 |"
    assert fault(figure, "a", "| base | {0:.0f} ms | … | {1:.2f} |", table) == ""
    assert "says 25 / 0.36" in fault(figure, "a", "| base | {0} ms | … | {1} |", table)
    assert "has no text" in fault(figure, "a", "| base | … | {1:.2f} |", table)
