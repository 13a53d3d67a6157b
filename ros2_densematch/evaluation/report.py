"""report.html: one self-contained page (inline pictures and style, no network): what a replay did and how well."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from ros2_densematch.arrays import Image
from ros2_densematch.evaluation import plots
from ros2_densematch.evaluation.lengths import length_in_words
from ros2_densematch.evaluation.page import PAGE, STYLE
from ros2_densematch.evaluation.summary import STAGES, FrameRecord
from ros2_densematch.files.atomic import write_text

JPEG_QUALITY = 86


@dataclass(frozen=True)
class ReportPicture:
    """A picture of the report.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        caption: what is seen.
        kind: "matches" or "warp".
    """

    image: Image
    caption: str
    kind: str = "matches"


def write_report(
    path: Path,
    summary: Mapping[str, Any],
    records: Sequence[FrameRecord],
    *,
    trajectory: plots.TrajectoryView | None = None,
    pictures: Sequence[ReportPicture] = (),
    min_inliers: int | None = None,
) -> None:
    """Writes the page in one step.

    Args:
        path: the HTML file.
        summary: the content of summary.json.
        records: all frames, in order.
        trajectory: what the trajectory and error plots show; None where no frame has a pose.
        pictures: match and warp pictures, in the order of the page.
        min_inliers: the tracker's limit, drawn in the curves.
    """
    parts = [
        _header(summary),
        _notices(summary),
        _figures(summary),
        _trajectory_section(summary, trajectory, records),
    ]
    if records:
        svg = plots.curves_plot(records, min_inliers if summary["frames"]["with_pose"] else None)
        parts.append(
            _section(
                "Frame by frame",
                svg,
                "Orange ticks are keyframes. Shaded: lost (red), rejected (orange), relocalised (purple). Latency is "
                "the time of a frame against an encoded keyframe.",
            )
        )
    parts += [_status_section(summary), _picture_section(pictures), _footer(summary)]
    title = html.escape(f"densematch: {summary['input']['name']}")
    page = PAGE.format(title=title, style=STYLE, body="\n".join(p for p in parts if p))
    write_text(path, page)


def _header(summary: Mapping[str, Any]) -> str:
    matcher, estimator, source = summary["matcher"], summary["estimator"], summary["input"]
    pairs = [
        ("Input", source["path"]),
        ("Image", source["image"]),
        ("Length", f"{source['duration_s']:.2f} s, {summary['frames']['total']} frames"),
        (
            "Matcher",
            f"{matcher['name']}, preset {matcher['preset']}, weights {matcher['weights']}, on {matcher['device']}",
        ),
        ("Estimator", f"{estimator['name']}, threshold {estimator['max_epipolar_error_px']:g} px"),
    ]
    rows = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd>" for k, v in pairs)
    name = html.escape(str(source["name"]))
    return f'<header><p class="kicker">densematch replay</p><h1>{name}</h1><dl class="facts">{rows}</dl></header>'


def _notices(summary: Mapping[str, Any]) -> str:
    notes = []
    if summary["stopped_early"]:
        notes.append(("error", f"This replay stopped early: {summary['stopped_early']}. The results so far are shown."))
    if summary["trajectory"] is None:
        notes.append(("info", f"Correspondences only, no poses: {summary['no_pose_reason']}"))
    notes += [("warning", text) for text in summary["warnings"]]
    return "".join(f'<p class="notice {kind}">{html.escape(text)}</p>' for kind, text in notes)


def _figures(summary: Mapping[str, Any]) -> str:
    frames, times, accuracy = summary["frames"], summary["timings_ms"], summary["accuracy"]
    total = frames["total"]
    lost = frames["status"].get("LOST", {}).get("count", 0)
    tiles = []
    if accuracy is not None:
        ate, rpe = accuracy["ate"], accuracy["rpe"]
        of_path = f", {ate['percent_of_path']:.2f} % of the path" if ate["percent_of_path"] is not None else ""
        tiles.append((_length(ate["rmse_m"]), "ATE (RMSE)", f"after {accuracy['alignment']} alignment{of_path}"))
        tiles.append((_number(rpe["rotation_rmse_deg"], "°"), "rotation RPE (RMSE)", f"over {accuracy['rpe_delta']}"))
        tiles.append((_length(rpe["translation_rmse_m"]), "translation RPE (RMSE)", f"over {accuracy['rpe_delta']}"))
    if summary["trajectory"] is not None:
        share = 100.0 * frames["with_pose"] / max(total, 1)
        tiles.append((f"{share:.1f} %", "frames with a pose", f"{frames['with_pose']} of {total}, {lost} lost"))
    tiles.append((str(frames["keyframes"]), "keyframes", f"of {total} frames"))
    counts = summary["matches"]
    tiles.append((_number(counts["median"], ""), "matches per frame (median)", _inlier_words(counts)))
    if times["total"]["median"] is not None:
        stages = ", ".join(f"{s} {times[s]['median']:.0f}" for s in STAGES if times[s]["median"] is not None)
        tiles.append(
            (f"{times['total']['median']:.0f} ms", "a frame (median)", f"{stages}; p95 {times['total']['p95']:.0f}")
        )
    cells = "".join(
        f'<div class="tile"><b>{html.escape(v)}</b><span>{html.escape(k)}</span><small>{html.escape(n)}</small></div>'
        for v, k, n in tiles
    )
    return f'<section class="tiles">{cells}</section>'


def _inlier_words(counts: Mapping[str, Any]) -> str:
    if counts["median_inliers"] is None:
        return "no pose, so no inliers"
    return f"{counts['median_inliers']:.0f} inliers (median)"


def _trajectory_section(
    summary: Mapping[str, Any], view: plots.TrajectoryView | None, records: Sequence[FrameRecord]
) -> str:
    if view is None or not len(view.positions):
        return ""
    accuracy = summary["accuracy"]
    if accuracy is not None:
        note = (
            f"Estimated trajectory after {accuracy['alignment']} alignment with the ground truth "
            f"({accuracy['poses']} poses matched in time)."
        )
    else:
        scale = summary["trajectory"]["scale"]
        note = "No ground truth is available. "
        note += (
            "Lengths are metres."
            if scale == "METRIC"
            else "The scale is arbitrary, because a single camera cannot measure it."
        )
    body = _section("Trajectory", plots.trajectory_plot(view), note)
    if view.position_error is not None:
        body += _section(
            "Error over time", plots.error_plot(view, records), "After alignment; the dotted line is the median."
        )
    return body


def _status_section(summary: Mapping[str, Any]) -> str:
    rows = []
    total = max(summary["frames"]["total"], 1)
    for status, entry in summary["frames"]["status"].items():
        colour = plots.STATUS_COLOURS.get(status, "#6b7280")
        for i, reason in enumerate(entry["reasons"]):
            first = (
                f'<td rowspan="{len(entry["reasons"])}"><i style="background:{colour}"></i>{_words(status)}</td>'
                f'<td class="n" rowspan="{len(entry["reasons"])}">{entry["count"]}'
                f"<small> {100.0 * entry['count'] / total:.1f} %</small></td>"
                if i == 0
                else ""
            )
            rows.append(f'<tr>{first}<td class="n">{reason["count"]}</td><td>{html.escape(reason["reason"])}</td></tr>')
    table = (
        '<table><thead><tr><th>status</th><th class="n">frames</th><th class="n">of these</th>'
        f"<th>reason (first wording)</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
    return _section("Status of the frames", table)


def _picture_section(pictures: Sequence[ReportPicture]) -> str:
    if not pictures:
        return ""
    notes = {
        "matches": "The keyframe is on the left or top, the frame on the right or bottom. Inliers by score <span "
        'class="ramp"></span> '
        '0 to 1, outliers in <span class="red">red</span>. At most about 120 lines are drawn, spread over the image.',
        "warp": "Left: the keyframe. Middle: the frame, warped into the keyframe by the dense warp (white where the "
        'certainty is low). Right: the certainty <span class="ramp full"></span> 0 to 1.',
    }
    titles = {"matches": "Matches", "warp": "Dense warp"}
    sections = []
    for kind, note in notes.items():
        chosen = [p for p in pictures if p.kind == kind]
        if chosen:
            body = "".join(
                f'<figure><img alt="{html.escape(p.caption)}" src="{_data_url(p.image)}">'
                f"<figcaption>{html.escape(p.caption)}</figcaption></figure>"
                for p in chosen
            )
            sections.append(f"<section><h2>{titles[kind]}</h2><p>{note}</p>{body}</section>")
    return "".join(sections)


def _footer(summary: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    return (
        f"<footer>{html.escape(versions)}. Files next to this page: "
        f"{html.escape(', '.join(summary['files']))}.</footer>"
    )


def _section(title: str, body: str, note: str = "") -> str:
    text = f"<p>{html.escape(note)}</p>" if note else ""
    return f'<section><h2>{html.escape(title)}</h2>{text}<div class="wide">{body}</div></section>'


def _length(metres: float | None) -> str:
    return "none" if metres is None else length_in_words(metres)


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "none"
    gap = "" if unit in ("", "°") else " "
    return f"{value:.0f}{gap}{unit}" if abs(value) >= 100 else f"{value:.3g}{gap}{unit}"


def _words(status: str) -> str:
    return html.escape(status.lower().replace("_", " "))


def _data_url(image: Image) -> str:
    ok, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not ok:
        raise RuntimeError(f"OpenCV could not encode a picture of shape {image.shape}")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
