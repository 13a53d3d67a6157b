"""scores.json: everything that was scored, in one file (docs/evaluation.md)."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ros2_densematch.evaluation.comparison.run import SCORES, Evaluation
from ros2_densematch.evaluation.scores.figures import EntryScores, Figure, FigureGroup
from ros2_densematch.evaluation.summary import versions, write_json


def write_scores(out: Path, evaluation: Evaluation) -> None:
    """Writes scores.json; the same scores give the same bytes (it holds no time of day)."""
    write_json(out / SCORES, as_json(evaluation))


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """The content of scores.json."""
    return {
        "command": "eval",
        "versions": versions(),
        "dataset": evaluation.dataset.facts(),
        "protocol": evaluation.protocol.facts(),
        "incomplete": evaluation.incomplete,
        "notes": list(evaluation.notes),
        "entries": [_entry(entry) for entry in evaluation.entries],
    }


def _entry(entry: EntryScores) -> dict[str, Any]:
    return {
        "name": entry.name,
        **entry.facts,
        "pairs": {"scored": entry.count("scored"), "failed": entry.count("failed"), "missing": entry.count("missing")},
        "incomplete": entry.incomplete,
        "error_unit": entry.error_unit,
        "groups": {group.key: _group(group) for group in entry.groups},
        "subsets": {name: {g.key: _group(g) for g in groups} for name, groups in entry.subsets},
        "curves": [asdict(curve) for curve in entry.curves],
        "each_pair": [asdict(pair) for pair in entry.pairs],
    }


def _group(group: FigureGroup) -> dict[str, Any]:
    content: dict[str, Any] = {
        "title": group.title,
        "setting": group.setting,
        "note": group.note,
        "figures": {figure.key: _figure(figure) for figure in group.figures},
    }
    if group.sweep:
        content["sweep"] = {f"{t:g} px": {f.key: _figure(f) for f in figures} for t, figures in group.sweep}
    return content


def _figure(figure: Figure) -> dict[str, Any]:
    content: dict[str, Any] = {"value": figure.value, "unit": figure.unit}
    if figure.low is not None:
        content["interval_95"] = [figure.low, figure.high]
    if figure.std is not None:
        content["std"] = figure.std
    return content
