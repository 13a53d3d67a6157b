"""Scenes that mislead matchers: repeated facades and floors, posters, corridors, moving things, night, blur, JPEG 5.

Textures and styles are drawn from one of three disjoint parts (`train`, `development`, `final`); a scene depends on its
part, kind and seed alone. `KINDS` names the kinds; shelves and glass are never trained on nor chosen by.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from layered import Eye, Layer, LayeredPair, look

from ros2_densematch.arrays import Float64, Image

PARTS = ("train", "development", "final")
KINDS = (
    "facade_resolvable", "facade_indistinguishable", "floor", "corridor", "posters", "moving", "night", "blur", "jpeg5",
    "haze", "roll", "zoom", "slant", "shelves", "glass",
)  # fmt: skip
UNSEEN_KINDS = ("shelves", "glass")
_SIZE = (720, 540)


class Textures:
    """The photographs of surfaces and the paintings of one part."""

    def __init__(self, folder: Path, part: str) -> None:
        names = sorted((folder / "textures").glob("*.jpg"))
        mine = [p for k, p in enumerate(names) if k % len(PARTS) == PARTS.index(part)]
        read = {p.stem: np.ascontiguousarray(cv2.imread(str(p))[..., ::-1]) for p in mine}
        self.surfaces = [v for n, v in read.items() if not n.startswith("painting")]
        self.walls = [v for n, v in read.items() if any(w in n for w in ("brick", "wall", "stucco", "concrete"))]
        self.floors = [v for n, v in read.items() if "tile" in n.lower() or "floor" in n]
        self.walls, self.floors = self.walls or self.surfaces, self.floors or self.surfaces
        self.paintings = [v for n, v in read.items() if n.startswith("painting")]


Rng = np.random.Generator


def _pick(rng: Rng, pictures: list[Image]) -> Image:
    return pictures[int(rng.integers(len(pictures)))]


def tiled(picture: Image, size: tuple[int, int], tile: int) -> Image:
    """The picture, `tile` pixels wide, repeated over (width, height)."""
    height = max(1, round(tile * picture.shape[0] / picture.shape[1]))
    small = cv2.resize(picture, (tile, height), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(np.tile(small, (-(-size[1] // height), -(-size[0] // tile), 1))[: size[1], : size[0]])


def stained(rng: Rng, picture: Image, strength: float) -> Image:
    """The picture under dirt and light that do not repeat."""
    h, w = picture.shape[:2]
    total = np.ones((h, w), np.float32)
    for cells in (4, 12, 40):
        coarse = rng.normal(0, strength, (cells, cells * max(1, round(w / h)))).astype(np.float32)
        total += cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture * total[..., None].clip(0.2, 1.8), 0, 255).astype(np.uint8)


def opaque(picture: Image) -> Image:
    return np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])


def _coloured(rng: Rng, low: int = 30, high: int = 220) -> tuple[int, int, int]:
    base = int(rng.integers(low, high))
    return tuple(int(np.clip(base + rng.integers(-30, 30), 0, 255)) for _ in range(3))  # type: ignore[return-value]


def window(rng: Rng, w: int, h: int, textures: Textures) -> tuple[Image, Image]:
    """One window: what lies flush with the wall (RGBA with the opening as a hole), and what lies behind."""
    pane = cv2.resize(_pick(rng, textures.surfaces), (w, h), interpolation=cv2.INTER_AREA)
    shade = np.linspace(rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.9), h)[:, None, None]
    pane = np.clip(pane * 0.35 * shade + np.array(_coloured(rng, 20, 120)) * 0.6, 0, 255).astype(np.uint8)
    frame, thick = _coloured(rng, 60, 250), max(2, int(w * rng.uniform(0.03, 0.08)))
    for x in np.linspace(0, w, int(rng.integers(1, 4)) + 1)[1:-1].astype(int):
        cv2.rectangle(pane, (int(x) - thick // 2, 0), (int(x) + thick // 2, h), frame, -1)
    for y in np.linspace(0, h, int(rng.integers(1, 4)) + 1)[1:-1].astype(int):
        cv2.rectangle(pane, (0, int(y) - thick // 2), (w, int(y) + thick // 2), frame, -1)
    cv2.rectangle(pane, (0, 0), (w - 1, h - 1), frame, 2 * thick)
    if rng.random() < 0.5:  # a curtain or a blind
        cv2.rectangle(
            pane, (2 * thick, 2 * thick), (w - 2 * thick, int(h * rng.uniform(0.2, 0.6))), _coloured(rng, 90), -1
        )
    margin = int(w * rng.uniform(0.06, 0.2))
    outer = np.zeros((h + 2 * margin, w + 2 * margin, 4), np.uint8)
    if rng.random() < 0.8:  # a moulding round the opening
        cv2.rectangle(outer, (0, 0), (w + 2 * margin - 1, h + 2 * margin - 1), (*_coloured(rng, 60, 250), 255), -1)
        for _ in range(int(rng.integers(0, 4))):
            a = int(rng.integers(0, margin + 1))
            cv2.rectangle(outer, (a, a), (w + 2 * margin - 1 - a, h + 2 * margin - 1 - a), (*_coloured(rng), 255), 1)
    return outer, pane


def facade(
    rng: Rng, textures: Textures, *, resolvable: bool, width: float = 44.0, height: float = 16.0, ppm: int = 64
) -> list[Layer]:
    """A wall in the plane z = 0 with a grid of equal windows and what lies behind them; x right, y down, the ground at
    y = 0. Where it is resolvable, a door, an edge, and dirt tell the periods apart."""
    w_px, h_px = int(width * ppm), int(height * ppm)
    across = int(rng.uniform(2.2, 4.2) * ppm)
    up = int(rng.uniform(2.8, 4.0) * ppm)
    tile = across if not resolvable else int(rng.uniform(1.5, 4.0) * ppm)
    wall = tiled(_pick(rng, textures.walls), (w_px, h_px), tile)
    if resolvable:
        wall = stained(rng, wall, float(rng.uniform(0.01, 0.12)))
    wall = opaque(wall)
    behind = np.zeros_like(wall)
    ww, wh = int(across * rng.uniform(0.35, 0.65)), int(up * rng.uniform(0.4, 0.65))
    styles = [window(rng, ww, wh, textures) for _ in range(1 if not resolvable or rng.random() < 0.6 else 2)]
    if rng.random() < 0.5:  # a course between the floors
        for y in range(0, h_px, up):
            cv2.rectangle(wall, (0, y), (w_px, y + max(2, up // 16)), (*_coloured(rng, 60, 240), 255), -1)
    variety = float(rng.uniform(0, 0.5)) if resolvable else 0.0
    for j, y in enumerate(range(up // 5, h_px - up // 2, up)):
        for x in range(across // 4, w_px - across, across):
            outer, pane = styles[j % len(styles)]
            my, mx = (outer.shape[0] - wh) // 2, (outer.shape[1] - ww) // 2
            top, left = max(0, y - my), max(0, x - mx)
            patch = wall[top : top + outer.shape[0], left : left + outer.shape[1]]
            cover = outer[: patch.shape[0], : patch.shape[1]]
            patch[cover[..., 3] > 0] = cover[cover[..., 3] > 0]
            if rng.random() < variety:  # another curtain, an open shutter
                pane = pane.copy()
                cv2.rectangle(pane, (4, 4), (ww - 5, int(wh * rng.uniform(0.1, 0.95))), _coloured(rng), -1)
            room = behind[y : y + wh, x : x + ww]
            room[...] = opaque(pane)[: room.shape[0], : room.shape[1]]
            wall[y : y + wh, x : x + ww, 3] = 0
    if resolvable:
        x = int(rng.uniform(0.35, 0.65) * w_px)
        dw, dh = int(1.8 * ppm), int(2.6 * ppm)
        door = cv2.resize(_pick(rng, textures.surfaces + textures.paintings), (dw, dh), interpolation=cv2.INTER_AREA)
        wall[h_px - dh :, x : x + dw] = opaque(door)
        for _ in range(int(rng.integers(0, 5))):  # signs
            sx, sy = int(rng.uniform(0.2, 0.75) * w_px), int(rng.uniform(0.5, 0.9) * h_px)
            sw, sh = int(rng.uniform(0.4, 2.0) * ppm), int(rng.uniform(0.3, 1.0) * ppm)
            sign = cv2.resize(_pick(rng, textures.paintings), (sw, sh), interpolation=cv2.INTER_AREA)
            part = wall[sy : sy + sh, sx : sx + sw]
            part[...] = opaque(sign)[: part.shape[0], : part.shape[1]]
    step = 1.0 / ppm
    corner = np.array([-width / 2, -height, 0.0])
    dx, dy = np.array([step, 0, 0]), np.array([0, step, 0])
    recess = np.array([0, 0, float(rng.uniform(0.05, 0.4))])
    return [Layer(wall, corner, dx, dy), Layer(behind, corner + recess, dx, dy)]


def ground(rng: Rng, textures: Textures, *, plain: bool, side: float = 44.0, ppm: int = 40, tile: float = 4.0) -> Layer:
    """The plane y = 0; plain: under dirt that does not repeat."""
    n = int(side * ppm)
    picture = tiled(_pick(rng, textures.surfaces if plain else textures.floors), (n, n), int(tile * ppm))
    if plain:
        picture = stained(rng, picture, 0.06)
    step = 1.0 / ppm
    return Layer(opaque(picture), np.array([-side / 2, 0, -side]), np.array([step, 0, 0]), np.array([0, 0, step]))


def standing(rng: Rng, textures: Textures, centre: Float64, width: float, *, moves: float = 0.0) -> Layer:
    """An upright thing of any shape that stands on the ground at (3,) and turns its face roughly along z."""
    picture = _pick(rng, textures.paintings if rng.random() < 0.6 else textures.surfaces)
    n = 220
    picture = cv2.resize(picture, (n, n), interpolation=cv2.INTER_AREA)
    alpha = np.zeros((n, n), np.uint8)
    if rng.random() < 0.5:
        cv2.ellipse(alpha, (n // 2, n // 2), (n // 2 - 2, n // 2 - 2), 0, 0, 360, 255, -1)
    else:
        points = (np.array([[0.5, 0.5]]) + 0.5 * _ring(rng, 9)) * (n - 1)
        cv2.fillPoly(alpha, [points.astype(np.int32)], 255)
    turn = float(rng.uniform(-0.6, 0.6))
    step = width / n
    across = np.array([np.cos(turn), 0, np.sin(turn)]) * step
    corner = np.asarray(centre) - across * n / 2 - np.array([0, width, 0])
    away = None
    if moves:
        away = np.array([rng.uniform(-moves, moves), 0, rng.uniform(-moves, moves) / 2])
    return Layer(np.dstack([picture, alpha]), corner, across, np.array([0, step, 0]), away)


def _ring(rng: Rng, count: int) -> Float64:
    angle = np.sort(rng.uniform(0, 2 * np.pi, count))
    return np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(0.5, 1.0, (count, 1))


def corridor(rng: Rng, textures: Textures) -> list[Layer]:
    """Two walls with equal doors, a floor and a ceiling of tiles, an end; along z, the eye at z < 0."""
    length, half, high, ppm = 30.0, float(rng.uniform(1.0, 1.8)), 2.7, 72
    n, m = int(length * ppm), int(high * ppm)
    base = tiled(_pick(rng, textures.walls), (n, m), int(rng.uniform(1.0, 3.0) * ppm))
    door = cv2.resize(_pick(rng, textures.surfaces), (int(0.9 * ppm), int(2.1 * ppm)), interpolation=cv2.INTER_AREA)
    cv2.rectangle(door, (2, 2), (door.shape[1] - 3, door.shape[0] - 3), _coloured(rng), 4)
    cv2.circle(door, (door.shape[1] - 10, door.shape[0] // 2), 4, (230, 220, 120), -1)
    period = int(rng.uniform(1.8, 3.5) * ppm)
    layers = []
    for side in (-1, 1):
        wall = base.copy()
        for x in range(int(rng.integers(period)), n - door.shape[1], period):
            wall[m - door.shape[0] :, x : x + door.shape[1]] = door
        if rng.random() < 0.6:
            wall = stained(rng, wall, 0.03)
        for _ in range(int(rng.integers(0, 5))):
            sx, sw = int(rng.integers(0, n - 60)), int(rng.uniform(0.3, 0.9) * ppm)
            wall[60 : 60 + sw, sx : sx + sw] = cv2.resize(_pick(rng, textures.paintings), (sw, sw))[:, : n - sx]
        step = 1.0 / ppm
        layers.append(
            Layer(
                opaque(wall),
                np.array([side * half, -high, -length + 4]),
                np.array([0, 0, step]),
                np.array([0, step, 0]),
            )
        )
    tile = float(rng.uniform(0.3, 0.9))
    for y, pool in ((0.0, textures.floors), (-high, textures.surfaces)):
        w = int(2 * half * ppm)
        picture = tiled(_pick(rng, pool), (w, n), int(tile * ppm))
        layers.append(
            Layer(
                opaque(picture),
                np.array([-half, y, -length + 4]),
                np.array([1.0 / ppm, 0, 0]),
                np.array([0, 0, 1.0 / ppm]),
            )
        )
    end = cv2.resize(
        _pick(rng, textures.paintings), (int(2 * half * 100), int(high * 100)), interpolation=cv2.INTER_AREA
    )
    layers.append(Layer(opaque(end), np.array([-half, -high, 4.0]), np.array([0.01, 0, 0]), np.array([0, 0.01, 0])))
    return layers


def posters(rng: Rng, textures: Textures, *, shelves: bool = False) -> list[Layer]:
    """A wall with the same few pictures again and again; shelves: rows of equal packets, some missing."""
    width, height, ppm = 14.0, 4.5, 140
    w, h = int(width * ppm), int(height * ppm)
    wall = tiled(_pick(rng, textures.walls), (w, h), int(rng.uniform(1.0, 3.0) * ppm))
    few = [_pick(rng, textures.paintings) for _ in range(int(rng.integers(1, 4)))]
    size = int((rng.uniform(0.2, 0.35) if shelves else rng.uniform(0.5, 1.0)) * ppm)
    pitch = int(size * (1.04 if shelves else rng.uniform(1.15, 1.7)))
    for y in range(pitch // 4, h - size, pitch):
        row = few[int(rng.integers(len(few)))]
        for x in range(pitch // 4, w - size, pitch):
            if rng.random() < (0.1 if shelves else 0.05):
                continue
            shown = row if shelves else few[int(rng.integers(len(few)))]
            wall[y : y + size, x : x + size] = cv2.resize(shown, (size, size), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        wall = stained(rng, wall, 0.04)
    step = 1.0 / ppm
    return [Layer(opaque(wall), np.array([-width / 2, -height, 0]), np.array([step, 0, 0]), np.array([0, step, 0]))]


def _rotation(yaw: float, pitch: float, roll: float) -> Float64:
    """Axes of a camera that looks along z, turned (radians) to the right, downwards and about its axis."""
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    spin = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(turn @ nod @ spin, np.float64)


def _eye(
    rng: Rng, place: Float64, target: Float64, *, fov: float, roll: float = 0.0, size: tuple[int, int] = _SIZE
) -> Eye:
    ahead = np.asarray(target) - place
    yaw = np.arctan2(ahead[0], ahead[2])
    pitch = np.arctan2(ahead[1], np.hypot(ahead[0], ahead[2]))
    focal = size[0] / 2 / np.tan(np.radians(fov) / 2)
    K = np.array([[focal, 0, (size[0] - 1) / 2], [0, focal, (size[1] - 1) / 2], [0, 0, 1.0]])
    return Eye(K, _rotation(yaw, pitch, roll), np.asarray(place, np.float64), size)


def _scene(rng: Rng, kind: str, textures: Textures) -> tuple[list[Layer], tuple[Eye, Eye]]:
    base = kind
    if kind in ("moving", "night", "blur", "jpeg5", "haze", "roll", "zoom", "slant", "glass"):
        base = str(rng.choice(["facade_resolvable", "posters", "corridor", "floor"], p=[0.55, 0.25, 0.1, 0.1]))
    fov, roll = float(rng.uniform(48, 72)), float(rng.normal(0, 0.03))
    second_fov = fov * float(np.exp(rng.normal(0, 0.04)))
    second_roll = roll + float(rng.normal(0, 0.05))
    if kind == "roll":
        second_roll = float(rng.uniform(-np.pi, np.pi))
    if kind == "zoom":
        second_fov = max(18.0, fov / float(rng.uniform(1.6, 3.0)))
    n = rng.normal
    if base == "corridor":
        layers = corridor(rng, textures)
        z = float(rng.uniform(-22, -12))
        first = np.array([rng.uniform(-0.5, 0.5), rng.uniform(-1.8, -1.2), z])
        second = first + np.array([n(0, 0.3), n(0, 0.1), rng.uniform(0.3, 3.0) * rng.choice([-1, 1])])
        target = np.array([n(0, 1.0), -1.4, z + 10])
        aims = target, target + n(0, 0.6, 3)
    elif base == "floor":
        layers = [ground(rng, textures, plain=False, tile=float(rng.uniform(0.6, 2.5)), ppm=64, side=30.0)]
        layers += [
            standing(rng, textures, np.array([n(0, 3), 0, -15 + n(0, 3)]), float(rng.uniform(0.4, 1.5)))
            for _ in range(int(rng.integers(2, 7)))
        ]
        first = np.array([n(0, 1), rng.uniform(-2.6, -1.2), -20 + n(0, 1)])
        second = first + np.array([rng.uniform(-2, 2), n(0, 0.3), rng.uniform(-1.5, 1.5)])
        target = np.array([n(0, 1), 0, first[2] + rng.uniform(2.5, 6)])
        aims = target, target + np.array([n(0, 1), 0, n(0, 1)])
    else:
        if base in ("posters", "shelves"):
            layers = posters(rng, textures, shelves=base == "shelves")
            away, reach, eye_high, target_high = float(rng.uniform(2.5, 5)), 1.0, -1.6, -2.0
        else:
            layers = facade(rng, textures, resolvable=base != "facade_indistinguishable")
            away, reach, eye_high, target_high = float(rng.uniform(7, 17)), 3.0, -1.7, -4.5
        layers.append(ground(rng, textures, plain=True))
        slant = float(rng.uniform(0.9, 1.25)) if kind == "slant" else float(rng.uniform(0, 0.6))
        side = float(rng.choice([-1, 1]))
        centre = float(n(0, reach))
        first = np.array([centre + away * np.sin(side * slant * rng.uniform(0, 0.3)), eye_high, -away])
        other = side * slant * (1 if kind == "slant" else rng.uniform(0.2, 1))
        reach2 = away * float(np.exp(n(0, 0.15)))
        second = np.array(
            [centre + reach2 * np.sin(other) + n(0, reach / 3), eye_high + n(0, 0.2), -reach2 * np.cos(other)]
        )
        aims = (
            np.array([centre + n(0, reach / 2), target_high + n(0, 0.5), 0]),
            np.array([centre + n(0, reach / 2), target_high + n(0, 0.5), 0]),
        )
        for _ in range(int(rng.integers(0, 5))):
            z = -away * float(rng.uniform(0.1, 0.6))
            layers.append(
                standing(
                    rng, textures, np.array([centre + n(0, reach * 1.5), 0, z]), float(rng.uniform(0.08, 0.22)) * away
                )
            )
    if kind == "moving":
        middle = np.asarray(aims[0])
        for _ in range(int(rng.integers(2, 6))):
            share = float(rng.uniform(0.3, 0.7))
            at = first * (1 - share) + middle * share
            at[0] += n(0, 0.25) * abs(first[2] - middle[2])
            at[1] = min(0.0, at[1] + 0.3 * abs(first[2] - middle[2]) * share)
            layers.append(
                standing(
                    rng,
                    textures,
                    at,
                    float(rng.uniform(0.15, 0.35)) * np.linalg.norm(middle - first),
                    moves=0.2 * float(np.linalg.norm(middle - first)),
                )
            )
    if kind == "glass":  # a pane in front that mirrors another picture: lines that hide a part of every pixel pair
        pane = cv2.resize(_pick(rng, textures.paintings), (400, 400), interpolation=cv2.INTER_AREA)
        alpha = (rng.random((100, 100)) < 0.35).astype(np.uint8) * 255
        alpha = cv2.resize(alpha, (400, 400), interpolation=cv2.INTER_NEAREST)
        middle = first * 0.6 + np.asarray(aims[0]) * 0.4
        s = float(np.linalg.norm(np.asarray(aims[0]) - first)) * 0.35 / 400
        layers.append(
            Layer(
                np.dstack([pane, alpha]),
                middle - np.array([200 * s, 200 * s, 0]),
                np.array([s, 0, 0]),
                np.array([0, s, 0]),
                np.array([n(0, 40 * s), 0, 0]),
            )
        )
    eyes = (
        _eye(rng, first, aims[0], fov=fov, roll=roll),
        _eye(rng, second, aims[1], fov=second_fov, roll=second_roll),
    )
    return layers, eyes


def night(rng: Rng, image: Image) -> Image:
    """Few lamps, a high gain and the noise of a sensor."""
    h, w = image.shape[:2]
    y, x = np.mgrid[:h, :w].astype(np.float32)
    light = np.full((h, w), 0.03, np.float32)
    for _ in range(int(rng.integers(1, 4))):
        r2 = (x - rng.uniform(0, w)) ** 2 + (y - rng.uniform(0, h)) ** 2
        light += np.float32(rng.uniform(0.1, 0.5)) / (1 + r2 / np.float32((0.3 * w) ** 2))
    linear = (image / np.float32(255)) ** 2.2 * light[..., None]
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.sqrt(linear * 0.0008 + 2e-6)
    return (np.clip((linear + noise) * 3.0, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8)


def blurred(rng: Rng, image: Image, length: float) -> Image:
    """Blur along a line of so many pixels."""
    n = int(length) | 1
    kernel = np.zeros((n, n), np.float32)
    angle = rng.uniform(0, np.pi)
    d = np.array([np.cos(angle), np.sin(angle)]) * (n - 1) / 2
    middle = np.array([n // 2, n // 2])
    cv2.line(kernel, tuple((middle - d).round().astype(int)), tuple((middle + d).round().astype(int)), 1.0, 1)
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def compressed(image: Image, quality: int) -> Image:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def _photographed(rng: Rng, image: Image, kind: str, depth: np.ndarray) -> Image:
    out = np.clip(image * np.float32(np.exp(rng.normal(0, 0.12))), 0, 255)
    if kind == "haze":
        thick = np.exp(-np.nan_to_num(depth, posinf=100.0) / np.float32(rng.uniform(4, 12)))[..., None]
        out = out * thick + 200 * (1 - thick)
    out = np.clip(out + rng.normal(0, 2.0, out.shape), 0, 255).astype(np.uint8)
    if kind == "night":
        out = night(rng, out)
    if kind == "blur":
        out = blurred(rng, out, float(rng.uniform(5, 15)))
    return compressed(out, 5 if kind == "jpeg5" else int(rng.integers(75, 96)))


def _common(pair: LayeredPair) -> float:
    """Share of view 0 that view 1 shows too."""
    h, w = pair.seen[0].layer.shape
    x, y = np.meshgrid(np.arange(w), np.arange(h))
    xy = np.stack([x, y], -1).reshape(-1, 2).astype(np.float64)
    number = pair.seen[0].layer.ravel()
    return float((pair.shows(pair.true_place(xy, number), number) & (number >= 0)).mean())


def _coarse(eye: Eye, factor: int) -> Eye:
    """The same camera with so many times fewer pixels."""
    middle = (factor - 1) / 2
    to_coarse = np.array([[1 / factor, 0, -middle / factor], [0, 1 / factor, -middle / factor], [0, 0, 1.0]])
    return Eye(to_coarse @ eye.K, eye.rotation, eye.place, (eye.size[0] // factor, eye.size[1] // factor))


def _seen(layers: list[Layer], eyes: tuple[Eye, Eye], sky: Image, samples: int) -> LayeredPair:
    first, second = (look(layers, eye, second=k == 1, sky=sky, samples=samples) for k, eye in enumerate(eyes))
    return LayeredPair(layers, eyes, (first, second))


def make_pair(textures: Textures, part: str, kind: str, seed: int) -> LayeredPair:
    """The pair of this part, kind and seed, of which the two views have between 0.15 and 0.97 in common."""
    for attempt in range(40):
        rng = np.random.default_rng((PARTS.index(part), KINDS.index(kind), seed, attempt))
        layers, eyes = _scene(rng, kind, textures)
        sky = np.linspace(rng.uniform(120, 220, 3), rng.uniform(160, 250, 3), 8)[:, None].repeat(8, 1).astype(np.uint8)
        rough = _seen(layers, (_coarse(eyes[0], 6), _coarse(eyes[1], 6)), sky, 1)
        if not 0.15 < _common(rough) < 0.97:
            continue
        pair = _seen(layers, eyes, sky, 2)
        shown = [replace(s, image=_photographed(rng, s.image, kind, s.depth)) for s in pair.seen]
        return LayeredPair(layers, eyes, (shown[0], shown[1]))
    raise ValueError(f"40 attempts gave no pair with enough in common: {part} {kind} {seed}; widen the kind")
