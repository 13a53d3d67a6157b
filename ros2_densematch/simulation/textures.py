"""Procedural textures: our own drawings, from a random generator, fine enough to match below the pixel.

Every function takes the size in texels, the density in texels per metre (so that bricks are as large as bricks) and a
generator, and returns uint8 RGB (height, width, 3). All of them carry multi-octave noise, because a surface that is
smooth between its lines gives a matcher nothing to hold on to at other scales.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Image

Field = NDArray[np.float32]
Colours = NDArray[np.float64]
Texture = Callable[[int, int, float, np.random.Generator], Image]


def noise(height: int, width: int, coarsest: float, rng: np.random.Generator, *, persistence: float = 0.7) -> Field:
    """Multi-octave value noise, float32 (height, width), zero mean and unit standard deviation.

    Args:
        height: texels.
        width: texels.
        coarsest: size of the largest blobs in texels; each further octave has half of it, down to one texel.
        rng: source of randomness.
        persistence: amplitude of an octave over that of the octave before, in (0, 1].
    """
    total = np.zeros((height, width), np.float32)
    amplitude, cell = 1.0, max(float(coarsest), 1.0)
    while cell >= 1.0:
        rows, columns = int(np.ceil(height / cell)) + 1, int(np.ceil(width / cell)) + 1
        grid = rng.random((rows, columns), np.float32) - 0.5
        layer = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC if cell > 1.5 else cv2.INTER_LINEAR)
        total += np.float32(amplitude) * layer
        amplitude *= persistence
        cell /= 2.0
    total -= total.mean()
    total /= max(float(total.std()), 1e-6)
    return total


def _tint(base: Any, field: Field, strength: float, chroma: Field | None = None) -> Image:
    """Paints `base` (RGB triple or float image) with brightness `field`; `chroma` shifts red against blue."""
    colour = np.broadcast_to(np.asarray(base, np.float32), (*field.shape, 3)) + np.float32(strength) * field[..., None]
    if chroma is not None:
        colour = colour + chroma[..., None] * np.array([7.0, 1.0, -7.0], np.float32)
    return np.asarray(np.clip(colour, 0, 255), np.uint8)


def _palette(count: int, brightness: tuple[float, float], rng: np.random.Generator, chroma: float = 38.0) -> Colours:
    """Muted colours (count, 3): a grey level each and a moderate shift of hue."""
    hue = rng.uniform(0, 2 * np.pi, (count, 1)) + np.array([0.0, 2.1, 4.2])
    return np.asarray(rng.uniform(*brightness, (count, 1)) + chroma * np.cos(hue), np.float64)


def _varied(base: tuple[float, float, float], shape: tuple[int, ...], rng: np.random.Generator) -> Colours:
    """Colours (*shape, 3) of one material: brightness varies by a sixth, hue a little."""
    light = 1.0 + 0.17 * rng.standard_normal((*shape, 1))
    return np.asarray(np.array(base) * light + rng.normal(0, 7, (*shape, 3)), np.float64)


def plaster(height: int, width: int, density: float, rng: np.random.Generator) -> Image:
    """Rough stone-like plaster with stains, pits and cracks."""
    field = noise(height, width, 0.6 * density, rng, persistence=0.75)
    colour = _tint(_palette(1, (160, 195), rng, 8.0)[0], field, 22.0, noise(height, width, 0.3 * density, rng))
    for _ in range(int(height * width / (0.15 * density) ** 2)):  # pits: dark dots of a few centimetres
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        shade = tuple(float(v) for v in rng.uniform(30, 110, 3))
        cv2.circle(colour, centre, max(int(density * rng.uniform(0.004, 0.02)), 1), shade, -1, cv2.LINE_AA)
    for _ in range(max(int(height * width / density**2), 1)):  # cracks: random walks
        steps = rng.normal(0, 0.05 * density, (12, 2)).cumsum(0) + rng.random(2) * (width, height)
        cv2.polylines(colour, [steps.astype(np.int32)], False, (45, 40, 38), 1, cv2.LINE_AA)
    return colour


def brick(height: int, width: int, density: float, rng: np.random.Generator) -> Image:
    """A brick wall in running bond: every brick has its own colour, so that the pattern does not repeat."""
    brick_h, brick_w = 0.12 * density, 0.30 * density
    rows, columns = int(np.ceil(height / brick_h)) + 1, int(np.ceil(width / brick_w)) + 2
    y, x = np.arange(height, dtype=np.float32) / brick_h, np.arange(width, dtype=np.float32) / brick_w
    row = y.astype(np.int64)
    shifted = x[None, :] + np.where(row % 2 == 0, 0.0, 0.5)[:, None].astype(np.float32)
    column = shifted.astype(np.int64)
    colours = _varied((156, 88, 66), (rows, columns), rng).astype(np.float32)
    wall = colours[row[:, None], column]
    gap_y = np.minimum(y - row, 1 - (y - row))[:, None] * brick_h
    gap_x = np.minimum(shifted - column, 1 - (shifted - column)) * brick_w
    ragged = np.float32(0.009 * density) * (1 + 0.35 * noise(height, width, 0.05 * density, rng))
    mortar = np.clip(ragged - np.minimum(gap_x, gap_y) + 0.5, 0, 1)[..., None]
    wall = wall * (1 - mortar) + np.float32(188) * mortar
    return _tint(wall, noise(height, width, 0.08 * density, rng, persistence=0.9), 17.0)


def tiles(height: int, width: int, density: float, rng: np.random.Generator) -> Image:
    """Square tiles, a part of them with a random ornament."""
    side = max(int(0.30 * density), 8)
    palette = _palette(5, (95, 215), rng, 26.0)
    canvas = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, side):
        for left in range(0, width, side):
            base = palette[rng.integers(5)] + rng.normal(0, 10, 3)
            cell = np.empty((side, side, 3), np.uint8)
            cell[:] = np.clip(base, 0, 255)
            if rng.random() < 0.45:
                _ornament(cell, palette, rng)
            cv2.rectangle(cell, (0, 0), (side - 1, side - 1), (96, 92, 88), max(int(0.006 * density), 1))
            part = canvas[top : top + side, left : left + side]
            part[:] = cell[: part.shape[0], : part.shape[1]]
    return _tint(canvas, noise(height, width, 0.2 * density, rng, persistence=0.85), 12.0)


def _ornament(cell: Image, palette: Colours, rng: np.random.Generator) -> None:
    side = cell.shape[0]
    for _ in range(int(rng.integers(1, 4))):
        colour = tuple(float(v) for v in palette[rng.integers(5)])
        if rng.random() < 0.5:
            radius = int(side * rng.uniform(0.12, 0.42))
            cv2.circle(cell, (side // 2, side // 2), radius, colour, max(side // 16, 1), cv2.LINE_AA)
        else:
            corners = (rng.random((3, 2)) * side).astype(np.int32)
            cv2.fillPoly(cell, [corners], colour, cv2.LINE_AA)


def boards(height: int, width: int, density: float, rng: np.random.Generator) -> Image:
    """Wooden floor boards along x, each of its own length, colour and grain."""
    board_h = max(int(0.14 * density), 4)
    canvas = np.empty((height, width, 3), np.float32)
    for top in range(0, height, board_h):
        left = -int(rng.integers(int(1.2 * density)))
        while left < width:
            length = int(rng.uniform(0.7, 1.9) * density)
            part = canvas[top : top + board_h, max(left, 0) : left + length]
            part[:] = _varied((172, 128, 84), (), rng)
            part[:1] *= 0.35
            part[:, :2] *= 0.35
            left += length
    # Grain is noise stretched along the board; the cubic-root-like warp makes dark, thin lines of its valleys.
    grain = noise(height, max(width // 10, 8), 0.03 * density, rng, persistence=0.9)
    grain = cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    worn = noise(height, width, 0.4 * density, rng, persistence=0.75)
    colour = _tint(canvas, 0.75 * grain + 0.65 * worn, 19.0)
    for _ in range(int(height * width / (0.45 * density) ** 2)):  # knots
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (max(int(density * rng.uniform(0.012, 0.03)), 1), max(int(density * rng.uniform(0.006, 0.014)), 1))
        cv2.ellipse(colour, centre, axes, 0, 0, 360, (70, 44, 26), -1, cv2.LINE_AA)
    return colour


def foliage(height: int, width: int, density: float, rng: np.random.Generator) -> Image:
    """Overlapping leaves, as on a hedge: no straight line and no repetition."""
    field = noise(height, width, 0.25 * density, rng)
    canvas = _tint((34, 52, 26), field, 14.0)
    count = int(height * width / (0.042 * density) ** 2)
    for i in range(count):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        long_axis = max(int(density * rng.uniform(0.022, 0.06)), 2)
        axes = (long_axis, max(int(long_axis * rng.uniform(0.3, 0.55)), 1))
        light = 0.5 + 0.6 * i / count  # later leaves lie on top and catch more light
        colour = tuple(float(v) for v in np.clip(rng.normal((92, 140, 50), (26, 26, 20)) * light, 0, 255))
        cv2.ellipse(canvas, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
    return _tint(canvas, noise(height, width, 4, rng), 8.0)


def crate(height: int, width: int, density: float, rng: np.random.Generator) -> Image:
    """A wooden crate: planks, frame, a stencilled mark."""
    canvas = boards(height, width, density, rng)
    frame = max(int(0.07 * min(height, width)), 3)
    for start, stop in (((0, 0), (width, frame)), ((0, height - frame), (width, height))):
        _bar(canvas, start, stop, rng)
    for start, stop in (((0, 0), (frame, height)), ((width - frame, 0), (width, height))):
        _bar(canvas, start, stop, rng)
    size = 0.5 * min(height, width)
    glyphs(canvas, (width / 2 - size, height / 2 - size / 4), size / 2, 4, (38, 30, 28), rng)
    return canvas


def _bar(canvas: Image, start: tuple[int, int], stop: tuple[int, int], rng: np.random.Generator) -> None:
    part = canvas[start[1] : stop[1], start[0] : stop[0]]
    part[:] = _tint(
        _varied((142, 102, 64), (), rng), noise(part.shape[0], part.shape[1], 12, rng, persistence=0.9), 20.0
    )
    cv2.rectangle(canvas, start, (stop[0] - 1, stop[1] - 1), (62, 42, 28), 1)


def glyphs(
    canvas: Image,
    origin: tuple[float, float],
    size: float,
    count: int,
    colour: tuple[float, float, float],
    rng: np.random.Generator,
) -> None:
    """Draws `count` letter-like signs (strokes between the nodes of a 3 x 4 grid) from `origin` (x, y) to the right."""
    thickness = max(int(size / 7), 1)
    for i in range(count):
        cell = np.array([origin[0] + i * 0.9 * size, origin[1]])
        nodes = np.array([(x * 0.3, y / 3) for y in range(4) for x in range(3)]) * size + cell
        for _ in range(int(rng.integers(2, 4))):
            a = int(rng.integers(12))
            b = (a + int(rng.integers(1, 12))) % 12
            if rng.random() < 0.3:
                centre = tuple(int(v) for v in nodes[a])
                cv2.ellipse(canvas, centre, (int(size / 5), int(size / 4)), 0, 0, 270, colour, thickness, cv2.LINE_AA)
            else:
                ends = [tuple(int(v) for v in nodes[j]) for j in (a, b)]
                cv2.line(canvas, ends[0], ends[1], colour, thickness, cv2.LINE_AA)


def poster(height: int, width: int, density: float, rng: np.random.Generator) -> Image:
    """A poster: shapes in strong colours, a headline and lines of letter-like glyphs."""
    ground = _palette(1, (185, 225) if rng.random() < 0.65 else (40, 75), rng, 22.0)[0]
    canvas = _tint(ground, noise(height, width, 0.5 * min(height, width), rng), 9.0)
    for _ in range(int(rng.integers(7, 14))):
        colour = tuple(float(v) for v in _palette(1, (70, 190), rng, 70.0)[0])
        centre = (int(rng.uniform(0.1, 0.9) * width), int(rng.uniform(0.25, 0.75) * height))
        extent = int(min(height, width) * rng.uniform(0.05, 0.22))
        kind = rng.integers(3)
        if kind == 0:
            cv2.circle(canvas, centre, extent, colour, -1 if rng.random() < 0.7 else 3, cv2.LINE_AA)
        elif kind == 1:
            angle = rng.uniform(0, np.pi) + np.arange(int(rng.integers(3, 7))) * 2.0
            points = np.stack([np.cos(angle), np.sin(angle)], 1) * extent + centre
            cv2.fillPoly(canvas, [points.astype(np.int32)], colour, cv2.LINE_AA)
        else:
            box = cv2.boxPoints((centre, (2.0 * extent, 0.8 * extent), float(rng.uniform(0, 90))))
            cv2.fillPoly(canvas, [box.astype(np.int32)], colour, cv2.LINE_AA)
    ink = (20.0, 20.0, 24.0) if ground.mean() > 120 else (236.0, 232.0, 224.0)
    headline = 0.12 * height
    glyphs(canvas, (0.06 * width, 0.06 * height), headline, int(0.86 * width / (0.9 * headline)), ink, rng)
    line = 0.035 * height
    for i in range(4):
        count = int(rng.uniform(0.5, 0.86) * width / (0.9 * line))
        glyphs(canvas, (0.06 * width, (0.79 + 0.05 * i) * height), line, count, ink, rng)
    cv2.rectangle(canvas, (0, 0), (width - 1, height - 1), (230, 228, 222), max(int(0.015 * height), 2))
    return _tint(canvas, noise(height, width, 10, rng, persistence=0.9), 6.0)


def blank(height: int, width: int, density: float, rng: np.random.Generator) -> Image:
    """A painted wall without any texture: what no matcher can track on."""
    return np.full((height, width, 3), (206, 202, 192), np.uint8)


def gallery(under: Texture, count: int, *, metres: tuple[float, float] = (0.55, 1.1)) -> Texture:
    """A texture with `count` posters of a height in `metres` hung over `under`, without touching one another."""

    def paint(height: int, width: int, density: float, rng: np.random.Generator) -> Image:
        canvas = under(height, width, density, rng)
        taken: list[tuple[int, int, int, int]] = []
        for _ in range(20 * count):
            if len(taken) == count:
                break
            h = int(rng.uniform(*metres) * density)
            w = int(h * rng.uniform(0.7, 1.35))
            if h >= height or w >= width:
                continue
            top, left = int(rng.integers(height - h)), int(rng.integers(width - w))
            margin = int(0.1 * density)
            if any(
                top < b + margin and top + h > t - margin and left < r + margin and left + w > le - margin
                for t, le, b, r in taken
            ):
                continue
            taken.append((top, left, top + h, left + w))
            canvas[top : top + h, left : left + w] = poster(h, w, density, rng)
        return canvas

    return paint
