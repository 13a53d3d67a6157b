"""Figures as rows of text, the same for HTML and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ros2_densematch.evaluation.comparison.run import Evaluation
from ros2_densematch.evaluation.scores.figures import EntryScores, Figure, FigureGroup

_BY_SUBSET = ("auc_5", "auc_10", "auc_20", "accuracy_3", "recall_1", "ate_m", "coverage")


@dataclass(frozen=True)
class Cell:
    """One cell: the number, what qualifies it in small print, and whether it is the best of its column."""

    text: str
    small: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table of one group of figures, entries in rows.

    Attributes:
        title, setting, note: of the group; the setting stands beside the figures.
        columns: headings.
        rows: name of the entry, cells.
    """

    title: str
    setting: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def group_keys(entries: Sequence[EntryScores]) -> list[str]:
    """Keys of all groups in the order in which they first appear."""
    keys: dict[str, None] = {}
    for entry in entries:
        keys.update(dict.fromkeys(group.key for group in entry.groups))
    return list(keys)


def tables(evaluation: Evaluation) -> list[Table]:
    """One table for each group of figures and each setting that it was measured under; settings do not mix."""
    found = []
    for key in group_keys(evaluation.entries):
        groups = [(entry.name, _group(entry, key)) for entry in evaluation.entries]
        given = [(name, group) for name, group in groups if group is not None]
        for setting in dict.fromkeys(group.setting for _, group in given):
            found.append(_table([(name, group) for name, group in given if group.setting == setting]))
    return found


def subset_table(evaluation: Evaluation) -> Table | None:
    """The first figures of every subset; None where the data set has no subsets."""
    names = list(dict.fromkeys(name for entry in evaluation.entries for name, _ in entry.subsets))
    if not names:
        return None
    group = next(groups[0] for entry in evaluation.entries for _, groups in entry.subsets)
    shown = [f.key for f in group.figures if f.key in _BY_SUBSET]
    labels = " / ".join(f.label for f in group.figures if f.key in shown)
    rows = []
    for entry in evaluation.entries:
        by_name = dict(entry.subsets)
        cells = []
        for name in names:
            figures = {f.key: f for f in by_name[name][0].figures} if name in by_name else {}
            cells.append(Cell(" / ".join(shown_value(figures[k]) for k in shown) if figures else "–"))
        rows.append((entry.name, tuple(cells)))
    counts = {name: sum(name in (p.subset, p.name) for p in evaluation.entries[0].pairs) for name in names}
    columns = tuple(f"{name} ({counts[name]})" for name in names)
    note = f"In brackets: {evaluation.dataset.unit}s."
    return Table("By subset", f"{labels}; {group.setting}", note, columns, tuple(rows))


def sweep_tables(evaluation: Evaluation) -> list[Table]:
    """All thresholds that were tried, where the threshold was chosen on the test data."""
    found = []
    for entry in evaluation.entries:
        for group in entry.groups:
            if group.sweep:
                columns = tuple(f.label for f in group.sweep[0][1])
                rows = tuple((f"{t:g} px", tuple(Cell(shown_value(f)) for f in figures)) for t, figures in group.sweep)
                title = f"Thresholds tried: {entry.name}"
                found.append(Table(title, group.setting, "Chosen on the test data.", columns, rows))
    return found


def count_table(evaluation: Evaluation) -> Table:
    """What became of the pairs."""
    rows = []
    for entry in evaluation.entries:
        states = [Cell(str(entry.count(s))) for s in ("scored", "failed", "missing")]
        facts = f"{entry.facts.get('preset') or '–'}, weights {entry.facts.get('weights', '–')}"
        rows.append((entry.name, (*states, Cell("incomplete" if entry.incomplete else "complete"), Cell(facts))))
    note = (
        "Failed: no pose, homography, match or trajectory; it counts as wrong. Missing: an image or its ground truth "
        "cannot be read, or the run was stopped; it is left out. A result with more than 1 % missing is incomplete."
    )
    columns = ("scored", "failed", "missing", "result", "preset and weights")
    unit = evaluation.dataset.unit
    return Table(f"{unit.title()}s", evaluation.dataset.counted, note, columns, tuple(rows))


def shown_value(figure: Figure) -> str:
    """The number as it is shown, without its unit."""
    return "–" if figure.value is None else f"{figure.value:.{figure.digits}f}"


def _group(entry: EntryScores, key: str) -> FigureGroup | None:
    return next((group for group in entry.groups if group.key == key), None)


def _table(given: Sequence[tuple[str, FigureGroup]]) -> Table:
    first = given[0][1]
    keys = list(dict.fromkeys(f.key for _, group in given for f in group.figures))
    by_entry = [(name, {f.key: f for f in group.figures}) for name, group in given]
    best = {key: _best([figures[key] for _, figures in by_entry if key in figures]) for key in keys}
    rows = tuple(
        (name, tuple(_cell(figures.get(key), best[key], len(given) > 1) for key in keys)) for name, figures in by_entry
    )
    headings = []
    for key in keys:
        figure = next(figures[key] for _, figures in by_entry if key in figures)
        headings.append(f"{figure.label} ({figure.unit})" if figure.unit else figure.label)
    return Table(first.title, first.setting, first.note, tuple(headings), rows)


def _best(figures: Sequence[Figure]) -> float | None:
    values = [f.value for f in figures if f.value is not None]
    if not values or not figures[0].better:
        return None
    return max(values) if figures[0].better == "higher" else min(values)


def _cell(figure: Figure | None, best: float | None, several: bool) -> Cell:
    if figure is None:
        return Cell("–")
    small = []
    if figure.low is not None and figure.high is not None:
        small.append(f"{figure.low:.{figure.digits}f} to {figure.high:.{figure.digits}f}")
    if figure.std is not None:
        small.append(f"± {figure.std:.{max(figure.digits, 1)}f}")
    return Cell(shown_value(figure), ", ".join(small), several and best is not None and figure.value == best)
