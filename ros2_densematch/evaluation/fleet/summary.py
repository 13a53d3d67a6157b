"""What became of a fleet: one summary with the worst recordings first, as JSON, Markdown and a page.

summary.json depends on the recordings and the settings alone: a serial run and one on many workers write the same
bytes. Time and memory stand in resources.json.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ros2_densematch.evaluation.fleet.job import RecordingOutcome
from ros2_densematch.evaluation.fleet.recordings import Recording
from ros2_densematch.evaluation.page import PAGE, STYLE
from ros2_densematch.evaluation.summary import write_json
from ros2_densematch.files.atomic import write_text

SUMMARY, RESOURCES, REPORT = FILES = "summary.json", "resources.json", "report.html"
_COLUMNS = (
    ("frames", "frames", ""),
    ("coverage", "with pose", "%"),
    ("lost", "lost", ""),
    ("segments", "segments", ""),
    ("median_inliers", "inliers", ""),
    ("ate_rmse_m", "ATE", "m"),
    ("ate_percent_of_path", "of the path", "%"),
    ("rpe_rotation_deg", "RPE", "°"),
)


def write_summary(
    out: Path, recordings: Sequence[Recording], outcomes: Sequence[RecordingOutcome], settings: dict[str, Any]
) -> dict[str, Any]:
    """Writes summary.json, resources.json and report.html; gives the content of the first."""
    by_name = {outcome.name: outcome for outcome in outcomes}
    rows = sorted((_row(out, r, by_name.get(r.name)) for r in recordings), key=_worst_first)
    done = sum(row["status"] == "done" for row in rows)
    summary = {
        "command": "batch",
        "settings": settings,
        "recordings": len(rows),
        "done": done,
        "failed": sum(row["status"] == "failed" for row in rows),
        "not_run": sum(row["status"] == "not run" for row in rows),
        "rows": rows,
    }
    write_json(out / SUMMARY, summary)
    resources = {o.name: {"seconds": round(o.seconds, 2), "peak_memory_mb": o.peak_memory_mb} for o in outcomes}
    write_json(out / RESOURCES, dict(sorted(resources.items())))
    write_text(out / REPORT, _page(summary, by_name))
    return summary


def _row(out: Path, recording: Recording, outcome: RecordingOutcome | None) -> dict[str, Any]:
    row: dict[str, Any] = {"name": recording.name, "status": "not run", "reason": ""}
    if outcome is None:
        return row
    row |= {"status": "done" if outcome.done else "failed", "reason": outcome.reason}
    if not outcome.done:
        return row
    try:
        replay = json.loads((out / "recordings" / recording.name / "summary.json").read_text("utf-8"))
    except (OSError, ValueError):
        return row | {"status": "failed", "reason": "its summary.json cannot be read: run the batch again"}
    frames, accuracy = replay["frames"], replay["accuracy"] or {}
    total = frames["total"]
    ate, rpe = accuracy.get("ate", {}), accuracy.get("rpe", {})
    return row | {
        "frames": total,
        "coverage": 100.0 * frames["with_pose"] / total if total else 0.0,
        "lost": frames["status"].get("LOST", {}).get("count", 0),
        "segments": frames["segments"],
        "keyframes": frames["keyframes"],
        "median_inliers": replay["matches"]["median_inliers"],
        "ate_rmse_m": ate.get("rmse_m"),
        "ate_percent_of_path": ate.get("percent_of_path"),
        "rpe_rotation_deg": rpe.get("rotation_rmse_deg"),
        "warnings": len(replay["warnings"]),
    }


def _worst_first(row: dict[str, Any]) -> tuple[Any, ...]:
    """Failed ones, those not run, then by the share of frames with a pose, then by the error where truth is known."""
    order = {"failed": 0, "not run": 1, "done": 2}[row["status"]]
    error = row.get("ate_percent_of_path")
    return order, row.get("coverage", 0.0), -(error if error is not None else -1.0), row["name"]


def _page(summary: dict[str, Any], outcomes: dict[str, RecordingOutcome]) -> str:
    head = "".join(f'<th class="n">{title}{f" ({unit})" if unit else ""}</th>' for _, title, unit in _COLUMNS)
    rows = "".join(_page_row(row, outcomes.get(row["name"])) for row in summary["rows"])
    counts = f"{summary['done']} done, {summary['failed']} failed, {summary['not_run']} not run"
    facts = "".join(
        f"<dt>{html.escape(key)}</dt><dd>{html.escape(str(value))}</dd>" for key, value in summary["settings"].items()
    )
    body = (
        f'<header><p class="kicker">densematch batch</p><h1>{summary["recordings"]} recordings: {counts}</h1>'
        f'<dl class="facts">{facts}</dl></header><section><h2>Recordings, the worst first</h2>'
        "<p>Failed ones first, then by the share of frames with a pose, then by the trajectory error where the "
        "truth is "
        "known (ATE after similarity alignment; RPE a frame).</p>"
        f'<div class="wide"><table><thead><tr><th>recording</th><th>status</th>{head}<th class="n">seconds</th>'
        f'<th class="n">MiB</th></tr></thead><tbody>{rows}</tbody></table></div></section>'
        "<footer>Files beside this page: summary.json, resources.json, recordings/NAME/report.html.</footer>"
    )
    return PAGE.format(title="densematch batch", style=STYLE, body=body)


def _page_row(row: dict[str, Any], outcome: RecordingOutcome | None) -> str:
    name = html.escape(row["name"])
    seconds = "" if outcome is None else f"{outcome.seconds:.1f}"
    memory = "" if outcome is None or outcome.peak_memory_mb is None else f"{outcome.peak_memory_mb:.0f}"
    cost = f'<td class="n">{seconds}</td><td class="n">{memory}</td>'
    if row["status"] != "done":
        reason = html.escape(row["reason"])
        said = f'<td colspan="{len(_COLUMNS)}"><span class="red">{reason}</span></td>'
        return f"<tr><td>{name}</td><td>{row['status']}</td>{said}{cost}</tr>"
    cells = "".join(f'<td class="n">{_number(row.get(key))}</td>' for key, _, _ in _COLUMNS)
    return f'<tr><td><a href="recordings/{name}/report.html">{name}</a></td><td>done</td>{cells}{cost}</tr>'


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.3g}"
