"""The plots of a report, as SVG text: trajectory, errors and per-frame curves (matplotlib, no window, no network)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.evaluation.lengths import unit_for
from ros2_densematch.evaluation.summary import FrameRecord

ESTIMATED, TRUTH, ACCENT, WARM = "#2563eb", "#111827", "#0d9488", "#d97706"
STATUS_COLOURS = {
    "INITIALISED": "#0ea5e9",
    "TRACKED": "#a7d8b8",
    "NEW_KEYFRAME": "#15803d",
    "RELOCALISED": "#9333ea",
    "LOST": "#dc2626",
    "NO_CALIBRATION": "#9ca3af",
    "REJECTED": "#f97316",
}
# Statuses that the curves shade, because the curve alone does not tell why it drops.
BANDS = ("LOST", "REJECTED", "RELOCALISED")
_STAGE_COLOURS = {"encode": "#3b82f6", "match": "#14b8a6", "pose": "#f59e0b"}
_MOST_VECTOR_POINTS = 4000


@dataclass(frozen=True)
class TrajectoryView:
    """What the trajectory plots show.

    Attributes:
        stamps_s: (N,) seconds since the first frame.
        positions: (N, 3) camera positions, in the frame of the ground truth when there is one.
        pieces: (N,) int, number of the piece that a pose belongs to: frames without a pose begin a new one, and no line
            is drawn from one to the next.
        keyframes: bool (N,), whether the pose is that of a keyframe.
        ground_truth: (M, 3) true camera positions, or None.
        unit: "m", or "units" where the scale is arbitrary.
        position_error: (N,) after alignment, in `unit` of the ground truth, NaN where there is none; or None.
        rotation_error_deg: (N,) after alignment, NaN where there is none; or None.
    """

    stamps_s: NDArray[np.float64]
    positions: NDArray[np.float64]
    pieces: NDArray[np.int64]
    keyframes: NDArray[np.bool_]
    ground_truth: NDArray[np.float64] | None = None
    unit: str = "m"
    position_error: NDArray[np.float64] | None = None
    rotation_error_deg: NDArray[np.float64] | None = None


def trajectory_plot(view: TrajectoryView) -> str:
    """What `trajectory_figure` draws, as SVG text."""
    return _svg(trajectory_figure(view))


def picture_of(figure: Any) -> NDArray[np.uint8]:
    """A figure as uint8 (H, W, 3) RGB; it is closed."""
    import matplotlib.pyplot as plt

    figure.canvas.draw()
    picture = np.array(figure.canvas.buffer_rgba(), np.uint8)
    plt.close(figure)
    return np.ascontiguousarray(picture[..., :3])


def trajectory_figure(view: TrajectoryView) -> Any:
    """Two plane views along coordinate axes (largest extents first) and one 3-D view, as a matplotlib figure."""
    plt = _pyplot()
    figure = plt.figure(figsize=(12.0, 4.6))
    everything = view.positions if view.ground_truth is None else np.vstack([view.positions, view.ground_truth])
    finite = everything[np.isfinite(everything).all(1)]
    extent = np.ptp(finite, axis=0) if len(finite) else np.ones(3)
    first, second, third = (int(i) for i in np.argsort(-extent, kind="stable"))
    for column, (u, v) in enumerate(((first, second), (first, third)), start=1):
        axes = figure.add_subplot(1, 3, column)
        _paths(axes, view, (min(u, v), max(u, v)))
        axes.set_xlabel(f"{'xyz'[min(u, v)]} ({view.unit})")
        axes.set_ylabel(f"{'xyz'[max(u, v)]} ({view.unit})")
        axes.set_title(f"seen along {'xyz'[3 - u - v]}")
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.08)
    solid = figure.add_subplot(1, 3, 3, projection="3d")
    _paths(solid, view, (0, 1, 2))
    solid.set_xlabel(f"x ({view.unit})")
    solid.set_ylabel(f"y ({view.unit})")
    solid.set_zlabel(f"z ({view.unit})")
    solid.tick_params(labelsize=7, pad=0)
    solid.locator_params(nbins=4)
    if len(finite):
        centre, half = (finite.max(0) + finite.min(0)) / 2, max(float(extent.max()) / 2, 1e-6)
        solid.set(**{f"{a}lim": (centre[i] - half, centre[i] + half) for i, a in enumerate("xyz")})
    solid.set_box_aspect((1, 1, 1), zoom=0.82)  # room for the labels
    solid.set_title("3-D")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False)
    figure.tight_layout(rect=(0, 0.07, 1, 0.96))
    return figure


def error_plot(view: TrajectoryView, records: Sequence[FrameRecord]) -> str:
    """Position and rotation error over time after alignment, statuses shaded; SVG text."""
    plt = _pyplot()
    figure, axes = plt.subplots(2, 1, sharex=True, figsize=(12.0, 4.2))
    assert view.position_error is not None
    assert view.rotation_error_deg is not None
    known = view.position_error[np.isfinite(view.position_error)]
    unit, factor = unit_for(float(known.max())) if view.unit == "m" and len(known) else (view.unit, 1.0)
    rows = (
        (axes[0], view.position_error * factor, f"position error ({unit})", ESTIMATED, unit),
        (axes[1], view.rotation_error_deg, "rotation error (deg)", ACCENT, "deg"),
    )
    for ax, error, label, colour, unit in rows:
        _broken(ax, view.stamps_s, error, view.pieces, color=colour, linewidth=1.4)
        if np.isfinite(error).any():
            median = float(np.nanmedian(error))
            ax.axhline(median, color=colour, linewidth=0.8, linestyle=":", label=f"median {median:.3g} {unit}")
            ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        ax.set_ylabel(label)
        ax.set_ylim(bottom=0)
        _bands(ax, records)
    axes[-1].set_xlabel("time (s)")
    figure.align_ylabels()
    figure.tight_layout()
    return _svg(figure)


def curves_plot(records: Sequence[FrameRecord], min_inliers: int | None = None) -> str:
    """Matches and inliers, overlap, latency and status over time, with keyframes marked; SVG text.

    Args:
        records: all frames, in order.
        min_inliers: the tracker's limit, drawn as a line; None draws none.
    """
    plt = _pyplot()
    figure, axes = plt.subplots(
        4, 1, sharex=True, figsize=(12.0, 7.6), gridspec_kw={"height_ratios": [3, 2, 2.4, 0.45], "hspace": 0.12}
    )
    time = _seconds(records)
    count, overlap, latency, strip = axes

    matches = np.array([np.nan if r.num_matches is None else r.num_matches for r in records], np.float64)
    inliers = np.array([np.nan if r.num_inliers is None else r.num_inliers for r in records], np.float64)
    count.plot(time, matches, color="#9ca3af", linewidth=1.1, label="matches")
    if np.isfinite(inliers).any():
        count.plot(time, inliers, color=ESTIMATED, linewidth=1.4, label="inliers")
        if min_inliers is not None:
            count.axhline(
                min_inliers, color="#dc2626", linewidth=0.9, linestyle="--", label=f"lost below {min_inliers}"
            )
    count.set_ylabel("matches a frame")
    most = float(np.nanmax(matches)) if np.isfinite(matches).any() else 1.0
    count.set_ylim(0, 1.08 * max(most, 1.0))

    share = np.array([np.nan if r.overlap is None else r.overlap for r in records], np.float64)
    ratio = np.array([np.nan if r.inlier_ratio is None else r.inlier_ratio for r in records], np.float64)
    overlap.plot(time, share, color=ACCENT, linewidth=1.4, label="overlap (matcher)")
    if np.isfinite(ratio).any():
        overlap.plot(time, ratio, color=WARM, linewidth=1.0, label="inlier ratio")
    overlap.set_ylim(0, 1.02)
    overlap.set_ylabel("share (0 to 1)")

    below = np.zeros(len(records))
    for stage, colour in _STAGE_COLOURS.items():
        value = np.array([r.timings_ms.get(stage, 0.0) for r in records])
        latency.fill_between(time, below, below + value, color=colour, alpha=0.75, linewidth=0, label=stage)
        below = below + value
    latency.set_ylabel("latency (ms)")
    # The first frame pays for warming up; the axis is for the others.
    latency.set_ylim(0, max(1.25 * float(np.percentile(below, 99)), 1e-3) if len(below) else 1.0)

    for ax in (count, overlap, latency):
        _bands(ax, records)
        _keyframe_ticks(ax, time, records, label="keyframe" if ax is count else "_")
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    _status_strip(strip, time, records)
    strip.set_xlabel("time (s)")
    figure.align_ylabels(axes[:3])
    figure.subplots_adjust(left=0.07, right=0.86, top=0.98, bottom=0.08)
    return _svg(figure)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "font.family": "DejaVu Sans",
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": "#9ca3af",
            "axes.labelcolor": "#374151",
            "axes.titlesize": 10,
            "axes.titlecolor": "#374151",
            "axes.grid": True,
            "grid.color": "#e5e7eb",
            "grid.linewidth": 0.6,
            "xtick.color": "#6b7280",
            "ytick.color": "#6b7280",
            "legend.fontsize": 9,
            "svg.hashsalt": "densematch",
        }
    )
    return plt


def _svg(figure: Any) -> str:
    import matplotlib.pyplot as plt

    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight", pad_inches=0.05)
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _seconds(records: Sequence[FrameRecord]) -> NDArray[np.float64]:
    stamps = np.array([r.stamp_ns for r in records], np.int64)
    return (stamps - stamps[0]).astype(np.float64) * 1e-9 if len(stamps) else np.zeros(0)


def _paths(axes: Any, view: TrajectoryView, dimensions: tuple[int, ...]) -> None:
    if view.ground_truth is not None:
        truth = view.ground_truth[:: max(len(view.ground_truth) // _MOST_VECTOR_POINTS, 1)]
        axes.plot(*(truth[:, d] for d in dimensions), color=TRUTH, linewidth=1.2, linestyle="--", label="ground truth")
    label = "estimated" if view.ground_truth is None else "estimated, aligned"
    for number in np.unique(view.pieces):
        piece = view.positions[view.pieces == number]
        piece = piece[:: max(len(piece) // _MOST_VECTOR_POINTS, 1)]
        axes.plot(*(piece[:, d] for d in dimensions), color=ESTIMATED, linewidth=1.8, label=label)
        label = "_"
    keys = view.positions[view.keyframes]
    if len(keys):
        points = [keys[:, d] for d in dimensions]
        axes.plot(*points, "o", color=WARM, markersize=3.5, linestyle="none", label="keyframes")
    if len(view.positions):
        start = [view.positions[:1, d] for d in dimensions]
        axes.plot(*start, "s", color="#15803d", markersize=7, linestyle="none", label="start")


def _broken(axes: Any, x: NDArray[np.float64], y: NDArray[np.float64], pieces: NDArray[np.int64], **style: Any) -> None:
    """A curve with a gap where the piece changes."""
    for number in np.unique(pieces):
        here = pieces == number
        axes.plot(x[here], y[here], **style, marker="." if here.sum() == 1 else "")


def _runs(records: Sequence[FrameRecord]) -> list[tuple[str, float, float]]:
    """Stretches of equal status as (status, start, end) in seconds."""
    time = _seconds(records)
    runs: list[tuple[str, float, float]] = []
    for i, record in enumerate(records):
        end = float(time[i + 1]) if i + 1 < len(time) else float(time[i] + (time[i] - time[i - 1] if i else 1.0))
        if runs and runs[-1][0] == record.status:
            runs[-1] = (record.status, runs[-1][1], end)
        else:
            runs.append((record.status, float(time[i]), end))
    return runs


def _bands(axes: Any, records: Sequence[FrameRecord]) -> None:
    for status, start, end in _runs(records):
        if status in BANDS:
            axes.axvspan(start, end, color=STATUS_COLOURS[status], alpha=0.13, linewidth=0)


def _keyframe_ticks(axes: Any, time: NDArray[np.float64], records: Sequence[FrameRecord], label: str) -> None:
    at = time[np.array([r.is_keyframe for r in records], np.bool_)] if len(records) else time
    axes.plot(
        at,
        np.zeros(len(at)),
        linestyle="none",
        marker="|",
        markersize=9,
        color=WARM,
        transform=axes.get_xaxis_transform(),
        clip_on=False,
        label=label,
    )


def _status_strip(axes: Any, time: NDArray[np.float64], records: Sequence[FrameRecord]) -> None:
    seen: set[str] = set()
    for status, start, end in _runs(records):
        label = "_" if status in seen else status.lower().replace("_", " ")
        seen.add(status)
        colour = STATUS_COLOURS.get(status, "#6b7280")
        axes.axvspan(start, end, color=colour, linewidth=0, label=label)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.set_ylabel("status", rotation=0, ha="right", va="center")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, handlelength=1.2, labelspacing=0.25)
