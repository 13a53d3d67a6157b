"""report.html of an evaluation: one file that opens without a server and is read without the documentation."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from ros2_densematch.evaluation.comparison.charts import Line, colour, line_chart, scatter_chart
from ros2_densematch.evaluation.comparison.run import REPORT, Evaluation
from ros2_densematch.evaluation.comparison.tables import (
    Cell,
    Table,
    count_table,
    subset_table,
    sweep_tables,
    tables,
)
from ros2_densematch.evaluation.comparison.worst_pairs import ShownPair
from ros2_densematch.evaluation.page import PAGE, STYLE
from ros2_densematch.evaluation.protocols import Protocol
from ros2_densematch.evaluation.scores.figures import Curve, EntryScores
from ros2_densematch.evaluation.summary import versions
from ros2_densematch.files.atomic import write_text

_MORE_STYLE = """
td small { display: block; font-size: 11.5px; } td.best { font-weight: 700; color: #15803d; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(380px, 1fr)); gap: 18px; } .two h3 { margin: 0 0 4px; font-size: 15px; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 13px; } .legend i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 5px; }
.setting { color: #2563eb; font-size: 13px; } .pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 10px; margin-bottom: 18px; }
.pairs figure { margin: 0; } .pairs h3 { grid-column: 1 / -1; margin: 0; font-size: 14px; overflow-wrap: anywhere; }
.plots { margin-bottom: 18px; }
details > summary { cursor: pointer; font-weight: 600; } svg { width: 100%; height: auto; } th { vertical-align: bottom; }
table { font-size: 14px; } dl.terms dt { font-weight: 600; } dl.terms dd { margin: 0 0 6px; color: #4b5563; }
"""  # noqa: E501  (a style rule a line)

_TITLES = {
    "pose": "Relative poses",
    "homography": "Homographies",
    "dense": "Dense correspondence",
    "trajectory": "Trajectories",
    "bag": "Not accuracies: comparison without ground truth",
}
_TERMS = {
    "pose": (
        (
            "AUC@5°",
            "Area under the curve of the share of pairs below an error, for errors up to 5 degrees; 100 is perfect.",
        ),
        ("mAP@5°", "Share of pairs below 5 degrees; mAP@10° is the mean of the shares below 5 and 10, and so on."),
        (
            "Pose error",
            "The larger of the rotation error and the angle between true and estimated direction of translation.",
        ),
        ("Purity", "Share of wrong matches before any robust estimator, and number of correct ones."),
    ),
    "homography": (
        ("MMA@3 px", "Share of a pair's matches that lie within 3 pixels of the true position, mean over the pairs."),
        (
            "Corners < 3 px",
            "Share of pairs whose image corners the estimated homography maps to within 3 pixels of their true "
            "position.",
        ),
        ("AUC@3 px", "Area under the curve of that share over the corner error, up to 3 pixels; 100 is perfect."),
    ),
    "trajectory": (
        ("ATE", "Absolute trajectory error: distance of the positions from the true ones after the best alignment."),
        ("RPE", "Relative pose error: error of the motion over one frame, or over one second."),
        (
            "Segments",
            "After a loss without relocalisation, a new segment starts, without a common scale. Only the longest "
            "segment is scored; frames outside it count as wrong in the share of frames.",
        ),
    ),
    "bag": (
        (
            "Back within 1 px",
            "Share of matches that the matches of the opposite direction map back to their start.",
        ),
        (
            "Three views",
            "Share of matches for which the path over a second frame to a third agrees with the direct match.",
        ),
        ("Survival", "Average number of frames per keyframe; large is good if the matches are correct."),
    ),
    "dense": (
        (
            "Cells covered",
            "Share of the image, in blocks of 16 x 16 pixels, that contain a match within one pixel of the truth.",
        ),
        (
            "End-point error",
            "Mean distance of the dense warp from the true displacement, for matchers that give a warp.",
        ),
        ("PCK", "Share of points that are mapped to within a fraction alpha of the object's or the image's size."),
    ),
}
_COMMON_TERMS = (
    (
        "Small numbers",
        "95 % bootstrap interval over the pairs: the expected range of the figure for other pairs of the same kind.",
    ),
    (
        "Calibration",
        "Of matches with score 0.8, 80 % should be correct. The expected calibration error is the mean distance from "
        "that.",
    ),
    ("Covariance", "Stated covariances are correct if 95 % of the errors lie inside the 95 % ellipsoid."),
)


def write_page(out: Path, evaluation: Evaluation, shown: Sequence[ShownPair]) -> None:
    """Writes report.html."""
    write_text(out / REPORT, page(evaluation, shown))


def page(evaluation: Evaluation, shown: Sequence[ShownPair]) -> str:
    """The whole page."""
    title = f"{evaluation.dataset.task}: {evaluation.dataset.name}"
    body = [_header(evaluation), _notices(evaluation)]
    found = tables(evaluation)
    body += [_table(found[0])] if found else []
    body += [_charts(evaluation)]
    body += [_table(table) for table in found[1:]]
    subsets = subset_table(evaluation)
    body += [_table(subsets)] if subsets is not None else []
    body += [_table(table) for table in sweep_tables(evaluation)]
    body += [
        _table(count_table(evaluation)),
        _missing(evaluation),
        _worst(evaluation, shown),
        _terms(evaluation),
        _footer(),
    ]
    return PAGE.format(title=html.escape(title), style=STYLE + _MORE_STYLE, body="\n".join(body))


def _header(evaluation: Evaluation) -> str:
    dataset, protocol = evaluation.dataset, evaluation.protocol
    licence = dataset.licence or "not known to densematch"
    if dataset.research_only:
        licence += " – research only: figures may be published, the data may not be used commercially"
    facts = [
        ("data set", f"{dataset.name} ({dataset.layout}), {dataset.counted}"),
        ("licence of the data", licence),
        ("protocol", f"{protocol.name}: {protocol.judged_label}"),
        ("entries", ", ".join(entry.name for entry in evaluation.entries)),
    ]
    if isinstance(protocol, Protocol) and dataset.task == "pose":
        sign = "counted" if protocol.signed_translation else "not counted (smaller of e and 180 - e)"
        facts.insert(3, ("sign of the translation", sign))
    rows = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in facts)
    return (
        f'<header><p class="kicker">densematch eval</p><h1>{_TITLES[dataset.task]}: {html.escape(dataset.name)}</h1>'
        f'<dl class="facts">{rows}</dl></header>'
    )


def _notices(evaluation: Evaluation) -> str:
    found = []
    for entry in evaluation.entries:
        if entry.incomplete:
            count = f"{entry.count('missing')} of {len(entry.pairs)} {evaluation.dataset.unit}s"
            found.append(
                ("error", f"{entry.name} is incomplete: {count} are missing, so its figures cannot be compared.")
            )
    if any(group.sweep for entry in evaluation.entries for group in entry.groups):
        found.append(
            (
                "",
                "The threshold was chosen on the test data: these figures are optimistic for every entry. The sweep "
                "is below.",
            )
        )
    found += [("error" if evaluation.dataset.task == "bag" else "info", note) for note in evaluation.notes]
    return "".join(f'<p class="notice {kind}">{html.escape(text)}</p>' for kind, text in found)


def _table(table: Table) -> str:
    head = "".join(f'<th class="n">{html.escape(column)}</th>' for column in table.columns)
    rows = "".join(
        f'<tr><td><i style="background:{colour(i)}"></i>{html.escape(name)}</td>{"".join(_cell(c) for c in cells)}</tr>'
        for i, (name, cells) in enumerate(table.rows)
    )
    note = f"<p>{html.escape(table.note)}</p>" if table.note else ""
    return (
        f'<section><h2>{html.escape(table.title)} <span class="setting">{html.escape(table.setting)}</span></h2>{note}'
        f'<div class="wide"><table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>'
    )


def _cell(cell: Cell) -> str:
    small = f"<small>{html.escape(cell.small)}</small>" if cell.small else ""
    return f'<td class="n{" best" if cell.best else ""}">{html.escape(cell.text)}{small}</td>'


_CUMULATIVE = {
    "pose": ("pose error (degrees)", "pairs"),
    "homography": ("corner error (px)", "pairs"),
    "dense": ("error of a match (px)", "matches"),
    "trajectory": ("position error (% of the path)", "frames"),
}


def _charts(evaluation: Evaluation) -> str:
    parts = []
    curves = [_first_curve(entry, "cumulative") for entry in evaluation.entries]
    lines = [Line(e.name, c.x, c.y) for e, c in zip(evaluation.entries, curves, strict=True) if c is not None]
    if lines:
        label = next(c.label for c in curves if c is not None)
        error, counted = _CUMULATIVE[evaluation.dataset.task]
        chart = line_chart(lines, error, f"share of {counted} below")
        parts.append(f"<div><h3>Cumulative error: {html.escape(label)}</h3>{chart}</div>")
    points = [point for entry in evaluation.entries if (point := _cost_point(entry)) is not None]
    if points:
        setting = evaluation.entries[0].groups[0].setting
        per = "a pair" if isinstance(evaluation.protocol, Protocol) else "a frame"
        chart = scatter_chart([p for p, _ in points], f"milliseconds {per}, this machine, this run", points[0][1])
        parts.append(f"<div><h3>Accuracy against time: {html.escape(setting)}</h3>{chart}</div>")
    reliable = [_first_curve(entry, "reliability") for entry in evaluation.entries]
    lines = [Line(e.name, c.x, c.y) for e, c in zip(evaluation.entries, reliable, strict=True) if c is not None]
    if lines:
        chart = line_chart(lines, "score", "share right", diagonal=True)
        parts.append(f"<div><h3>Reliability of the score (dashed: perfect)</h3>{chart}</div>")
    return f'<section><div class="two">{"".join(parts)}</div></section>' if parts else ""


def _first_curve(entry: EntryScores, key: str) -> Curve | None:
    return next((curve for curve in entry.curves if curve.key == key), None)


HEADLINES = ("auc_5", "accuracy_3", "coverage", "pck_0.1", "pck_0.05", "maa_10", "lt_acc", "recall_1")


def _cost_point(entry: EntryScores) -> tuple[Line, str] | None:
    figures = {f.key: f for group in entry.groups for f in reversed(group.figures)}
    first = {f.key: f for f in entry.groups[0].figures} if entry.groups else {}
    headline = next((first[key] for key in HEADLINES if key in first), None)
    cost = figures.get("pair_ms") or figures.get("frame_ms")
    if headline is None or headline.value is None or cost is None or not cost.value:
        return None
    percent = headline.value if headline.unit == "%" else 100 * headline.value
    return Line(entry.name, (cost.value,), (percent,)), f"{headline.label} (%)"


def _missing(evaluation: Evaluation) -> str:
    rows = []
    for entry in evaluation.entries:
        rows += [
            f"<tr><td>{html.escape(entry.name)}</td><td>{html.escape(p.name)}</td><td>{p.status}</td><td>{html.escape(p.reason)}</td></tr>"
            for p in entry.pairs
            if p.status != "scored"
        ]
    if not rows:
        return ""
    more = f"<p>The first 300 of {len(rows)}.</p>" if len(rows) > 300 else ""
    head = f"<tr><th>entry</th><th>{evaluation.dataset.unit}</th><th></th><th>reason</th></tr>"
    table = f"<table><thead>{head}</thead><tbody>{''.join(rows[:300])}</tbody></table>"
    unit = evaluation.dataset.unit.title()
    summary = f"<summary>{unit}s that failed or are missing: {len(rows)}</summary>"
    return f'<section><details>{summary}{more}<div class="wide">{table}</div></details></section>'


def _worst(evaluation: Evaluation, shown: Sequence[ShownPair]) -> str:
    if not shown:
        return ""
    kind = "trajectory" if evaluation.dataset.task == "trajectory" else "matches"
    parts = []
    for pair in shown:
        figures = "".join(
            f'<figure><img alt="{kind} of {html.escape(name)}" src="{url}"><figcaption><b>{html.escape(name)}</b> '
            f"{html.escape(caption)}</figcaption></figure>"
            for name, url, caption in pair.pictures
        )
        parts.append(f'<div class="pairs"><h3>{html.escape(pair.name)}</h3>{figures}</div>')
    if kind == "trajectory":
        wide = "".join(parts).replace('class="pairs"', 'class="plots"')
        return f"<section><h2>Trajectories</h2><p>Aligned with the ground truth, if there is one.</p>{wide}</section>"
    note = (
        "Worst for the first entry. Matches within 3 px of the truth (or of its epipolar line) by score "
        '<span class="ramp"></span> 0 to 1, the others in <span class="red">red</span>; at most 80 lines per picture.'
    )
    return f"<section><h2>The {len(shown)} worst pairs</h2><p>{note}</p>{''.join(parts)}</section>"


def _terms(evaluation: Evaluation) -> str:
    task = evaluation.dataset.task
    terms = (*_TERMS[task], *(_COMMON_TERMS if isinstance(evaluation.protocol, Protocol) else ()))
    rows = "".join(f"<dt>{html.escape(term)}</dt><dd>{html.escape(text)}</dd>" for term, text in terms)
    return f'<section><h2>How to read this page</h2><dl class="terms">{rows}</dl></section>'


def _footer() -> str:
    text = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"<footer>{html.escape(text)}. Files next to this page: scores.json, report.md, predictions/.</footer>"
