"""Line charts and scatter plots as SVG text: small, sharp, and without a library."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

# distinguishable with colour vision deficiencies (Okabe and Ito), darkened where white is behind
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#6b7280", "#7c3aed", "#111827", "#a3334f")

_WIDTH, _HEIGHT = 520, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 12, 46


@dataclass(frozen=True)
class Line:
    """A line or a point with its name; x and y of equal length."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def colour(index: int) -> str:
    """The colour of the i-th entry."""
    return COLOURS[index % len(COLOURS)]


def line_chart(
    lines: Sequence[Line], x_label: str, y_label: str, *, diagonal: bool = False, percent: bool = True
) -> str:
    """Lines over a common axis that starts at 0; y runs from 0 to 1 and is shown in per cent."""
    x_top = max((max(line.x) for line in lines if line.x), default=1.0) or 1.0
    frame = _Frame((0.0, x_top), (0.0, 1.0), log_x=False)
    parts = [frame.axes(x_label, y_label, percent=percent)]
    if diagonal:
        parts.append(frame.polyline([0, x_top], [0, x_top], "#9ca3af", dashed=True))
    for i, line in enumerate(lines):
        parts.append(frame.polyline(line.x, line.y, colour(i), name=line.name))
        if len(line.x) < 40:
            parts += [frame.dot(x, y, colour(i), 2.5) for x, y in zip(line.x, line.y, strict=True)]
    return _svg(parts, [line.name for line in lines])


def scatter_chart(points: Sequence[Line], x_label: str, y_label: str) -> str:
    """One labelled point an entry over a logarithmic x axis; y in its own unit, from a round number below."""
    xs, ys = [p.x[0] for p in points], [p.y[0] for p in points]
    low, high = min(ys), max(ys)
    margin = max((high - low) * 0.15, 1.0)
    y_range = max(0.0, math.floor((low - margin) / 5) * 5), min(100.0, math.ceil((high + margin) / 5) * 5)
    frame = _Frame((min(xs) / 1.6, max(xs) * 1.6), (y_range[0], max(y_range[1], y_range[0] + 5)), log_x=True)
    parts = [frame.axes(x_label, y_label, percent=False)]
    parts += [frame.dot(p.x[0], p.y[0], colour(i), 6, p.name) for i, p in enumerate(points)]
    return _svg(parts, [p.name for p in points])


class _Frame:
    """The map from values to pixels of the drawing."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], *, log_x: bool):
        self._x, self._y, self._log = x, y, log_x

    def at(self, x: float, y: float) -> tuple[float, float]:
        low, high = (math.log10(v) for v in self._x) if self._log else self._x
        value = math.log10(x) if self._log else x
        u = _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)
        v = _HEIGHT - _BOTTOM - (y - self._y[0]) / (self._y[1] - self._y[0]) * (_HEIGHT - _TOP - _BOTTOM)
        return round(u, 1), round(v, 1)

    def axes(self, x_label: str, y_label: str, *, percent: bool) -> str:
        parts = []
        for y in _ticks(*self._y):
            u, v = self.at(self._x[0], y)
            text = f"{100 * y:.0f} %" if percent else f"{y:g}"
            parts.append(f'<path d="M{u} {v}H{_WIDTH - _RIGHT}" stroke="#e5e7eb"/>')
            parts.append(f'<text x="{u - 6}" y="{v + 4}" text-anchor="end">{text}</text>')
        for x in _decades(*self._x) if self._log else _ticks(*self._x):
            u, v = self.at(x, self._y[0])
            parts.append(f'<path d="M{u} {v}V{_TOP}" stroke="#f0f1f3"/>')
            parts.append(f'<text x="{u}" y="{v + 16}" text-anchor="middle">{x:g}</text>')
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        parts.append(f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{html.escape(x_label)}</text>')
        height = (_TOP + _HEIGHT - _BOTTOM) / 2
        parts.append(
            f'<text transform="translate(13 {height}) rotate(-90)" text-anchor="middle">{html.escape(y_label)}</text>'
        )
        return "".join(parts)

    def polyline(
        self, x: Sequence[float], y: Sequence[float], stroke: str, *, dashed: bool = False, name: str = ""
    ) -> str:
        points = " ".join("{},{}".format(*self.at(a, b)) for a, b in zip(x, y, strict=True))
        dash = ' stroke-dasharray="4 4"' if dashed else ""
        width = 1 if dashed else 2
        title = f"<title>{html.escape(name)}</title>" if name else ""
        return (
            f'<polyline points="{points}" fill="none" stroke="{stroke}" stroke-width="{width}"{dash}>{title}</polyline>'
        )

    def dot(self, x: float, y: float, fill: str, radius: float, name: str = "") -> str:
        u, v = self.at(x, y)
        title = f"<title>{html.escape(name)}</title>" if name else ""
        return f'<circle cx="{u}" cy="{v}" r="{radius}" fill="{fill}">{title}</circle>'


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers in a range."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten in a range; only powers of ten where there would be many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [m * 10.0**p for p in powers for m in ((1, 2, 5) if len(powers) <= 4 else (1,))]
    return [v for v in found if low <= v <= high]


def _svg(parts: Sequence[str], names: Sequence[str]) -> str:
    legend = "".join(
        f'<span><i style="background:{colour(i)}"></i>{html.escape(name)}</span>' for i, name in enumerate(names)
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" font-size="12" fill="#4b5563" '
        f'font-family="system-ui, sans-serif">{"".join(parts)}</svg><div class="legend">{legend}</div>'
    )
