"""report.md: the tables of an evaluation as GitHub renders them."""

from __future__ import annotations

from pathlib import Path

from ros2_densematch.evaluation.comparison.run import MARKDOWN, Evaluation
from ros2_densematch.evaluation.comparison.tables import Cell, Table, count_table, subset_table, sweep_tables, tables
from ros2_densematch.files.atomic import write_text

TITLES = {"bag": "Not accuracies, without true poses"}


def write_markdown(out: Path, evaluation: Evaluation) -> None:
    """Writes report.md."""
    write_text(out / MARKDOWN, markdown(evaluation))


def markdown(evaluation: Evaluation) -> str:
    """All tables with their settings and notes."""
    dataset, protocol = evaluation.dataset, evaluation.protocol
    lines = [f"# {TITLES.get(dataset.task, dataset.task)}: {dataset.name}", ""]
    lines += [f"{dataset.counted}, protocol {protocol.name}, {protocol.judged_label}."]
    if dataset.research_only:
        lines += ["", f"Licence of the data: {dataset.licence} (research only)."]
    lines += [line for note in evaluation.notes for line in ("", note)]
    if evaluation.incomplete:
        lines += ["", f"**Incomplete**: more than 1 % of the {dataset.unit}s of an entry are missing."]
    subsets = subset_table(evaluation)
    found = [*tables(evaluation), *([subsets] if subsets else []), *sweep_tables(evaluation), count_table(evaluation)]
    for table in found:
        lines += ["", f"## {table.title}", "", f"{table.setting}. {table.note}".strip(), "", *table_lines(table)]
    return "\n".join(lines) + "\n"


def table_lines(table: Table) -> list[str]:
    """One table, entries in rows."""
    head = f"| | {' | '.join(table.columns)} |"
    rule = "| --- |" + " ---: |" * len(table.columns)
    return [head, rule, *(f"| {name} | {' | '.join(_cell(c) for c in cells)} |" for name, cells in table.rows)]


def _cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    return f"{text} ({cell.small})" if cell.small else text
