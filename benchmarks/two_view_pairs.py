"""Rendered image pairs with exact truth for `two_view.py`: what a camera does to them, overlays, and moving things.

The views come from the open training scenes (`SceneRenderConfig` below); nothing of the measuring folders is used.
Everything about pair k follows from k, so that a figure can be had again. Matches are kept in a folder: the estimator
can then be tried in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64, Image
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.base import Matcher
from ros2_densematch.training.scenes.cache import SceneRenderConfig, fill_cache, group_path
from ros2_densematch.training.scenes.dressing import SceneLibrary

RENDERING = SceneRenderConfig(groups=200, views=3, width=512, height=384, seed=17)
DAMAGES = ("sharp", "out of focus", "motion blur", "jpeg", "dark")
OVERLAYS = ("hud", "body", "watermark", "dirt", "dots")
_PICTURE = ("stillness", "unchanged")  # what matches know of the pictures, where some stand still
_LEAST_PAIRS = 400  # in the list of pairs
_OVERLAY_SEEDS = 7919  # one overlay a pair: the same in both images


@dataclass(frozen=True)
class TwoViews:
    """Two images, the camera matrices that are true of them, T_query_from_reference (4, 4), and the scene's name."""

    image0: Image
    image1: Image
    K0: Float64
    K1: Float64
    T: Float64
    scene: str


def rendered_views(folder: Path, scenes: Path, settings: SceneRenderConfig = RENDERING) -> list[tuple[Path, int, int]]:
    """The group file and the two view numbers of every pair; groups that the folder lacks are rendered first.

    Fewer than 400 pairs are repeated in order: what is done to a pair follows from its place in the list.
    """
    library = SceneLibrary(scenes)
    fill_cache(folder, library, settings, on_group=lambda i, n: print(f"scene {i}/{n}", end="\r", flush=True))
    pairs = []
    for k in range(settings.groups):
        with np.load(group_path(folder, k)) as data:
            pairs += [(group_path(folder, k), int(i), int(j)) for i, j in data["pairs"]]
    return pairs * -(-_LEAST_PAIRS // len(pairs))


def read(path: Path, i: int, j: int) -> TwoViews:
    with np.load(path) as data:
        images = [np.ascontiguousarray(cv2.imdecode(data[f"image_{k}"], 1)[..., ::-1], np.uint8) for k in (i, j)]
        poses, K = data["T_world_from_camera"], data["K"]
        return TwoViews(*images, K[i], K[j], np.linalg.inv(poses[j]) @ poses[i], str(data["scene"]))


def damaged(image: Image, kind: str, rng: np.random.Generator) -> Image:
    """The image as a worse camera gives it."""
    if kind == "out of focus":
        return np.asarray(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(1.0, 2.5))), np.uint8)
    if kind == "motion blur":
        length, angle = float(rng.uniform(5, 13)), float(rng.uniform(0, np.pi))
        kernel = np.zeros((15, 15), np.float32)
        for s in np.linspace(-length / 2, length / 2, 61):
            kernel[round(7 + s * np.sin(angle)), round(7 + s * np.cos(angle))] += 1
        return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE), np.uint8)
    if kind == "jpeg":
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(12, 45))])
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    if kind == "dark":
        dark = image * rng.uniform(0.12, 0.35) + rng.normal(0, rng.uniform(2, 5), image.shape)
        return np.clip(np.rint(dark), 0, 255).astype(np.uint8)
    return image


def overlaid(image: Image, kind: str, seed: int) -> Image:
    """The image with something that the camera carries along in front of every picture it takes."""
    rng = np.random.default_rng(_OVERLAY_SEEDS + seed)
    height, width = image.shape[:2]
    out = image.copy()
    if kind == "hud":
        _hud(out, rng)
    elif kind == "body":
        mask, paint = _body(height, width, rng)
        out[mask] = paint[mask]
    elif kind == "watermark":
        text = "".join(chr(int(c)) for c in rng.integers(65, 91, 6)) + " (c)"
        layer = np.zeros_like(out)
        for y in range(int(rng.integers(40, 80)), height, int(rng.integers(90, 130))):
            cv2.putText(layer, f"{text}  {text}", (int(rng.integers(-30, 20)), y), 0, 1.1, (255, 255, 255), 3, 16)
        out = cv2.addWeighted(out, 1.0, layer, float(rng.uniform(0.4, 0.8)), 0).astype(np.uint8)
    elif kind == "dirt":
        out = np.clip(out * _dirt(height, width, rng)[..., None], 0, 255).astype(np.uint8)
    elif kind == "dots":
        layer = np.zeros((height, width), np.float32)
        n = int(rng.integers(500, 1200))
        for x, y in rng.uniform([4, 4], [width - 4, height - 4], (n, 2)):
            cv2.circle(layer, (round(x * 16), round(y * 16)), round(16 * rng.uniform(0.7, 1.4)), 1.0, -1, 16, 4)
        out = np.clip(out + 120 * layer[..., None], 0, 255).astype(np.uint8)
    else:
        raise ValueError(f"unknown overlay {kind!r}: choose one of {', '.join(OVERLAYS)}")
    # Each image has noise of its own, which a printed overlay shares.
    noisy = out + np.random.default_rng((seed, int(image[::37, ::41].sum()))).normal(0, 1.5, out.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def _hud(out: Image, rng: np.random.Generator) -> None:
    height, width = out.shape[:2]
    white, green = (255, 255, 255), (40, 255, 60)
    size = float(rng.uniform(0.45, 0.75))
    for y in (22, 44, height - 34, height - 10):
        words = [f"{rng.choice(['ALT', 'SPD', 'HDG', 'LAT', 'BAT', 'REC', 'GAIN', 'VID'])} {rng.uniform(0, 300):.1f}"]
        words += [f"{rng.choice(['LON', 'ISO', 'EXP', 'TEMP', 'MODE'])} {rng.integers(1000)}" for _ in range(2)]
        cv2.putText(out, "  ".join(words), (int(rng.integers(5, 40)), y), 0, size, white, 2, 16)
    x, y = width // 2, height // 2
    half = int(rng.integers(20, 60))
    cv2.line(out, (x - half, y), (x + half, y), green, 1)
    cv2.line(out, (x, y - half), (x, y + half), green, 1)
    cv2.rectangle(out, (width // 4, height // 4), (3 * width // 4, 3 * height // 4), green, 1)


def _body(height: int, width: int, rng: np.random.Generator) -> tuple[NDArray[np.bool_], Image]:
    """A part of the robot at the lower rim or at one side: a polygon over 12 to 33 % of the image, textured."""
    share = float(rng.uniform(0.12, 0.33))
    mask = np.zeros((height, width), np.uint8)
    if rng.random() < 0.6:
        top = [height * (1 - share * float(rng.uniform(0.8, 1.2))) for _ in range(5)]
        line = np.stack([np.linspace(0, width, 5), top], 1)
        corners = np.concatenate([line, [[width, height], [0, height]]])
    else:
        side = [width * share * float(rng.uniform(0.8, 1.2)) for _ in range(5)]
        line = np.stack([side, np.linspace(0, height, 5)], 1)
        corners = np.concatenate([line, [[0, height], [0, 0]]])
        if rng.random() < 0.5:
            corners[:, 0] = width - corners[:, 0]
    cv2.fillPoly(mask, [np.rint(corners).astype(np.int32)], 1)
    coarse = rng.uniform(20, 235, (height // 8, width // 8, 3)).astype(np.float32)
    fine = rng.uniform(0, 255, (height // 3, width // 3, 3)).astype(np.float32)
    mix = float(rng.uniform(0.1, 0.5))
    paint = sum(
        weight * cv2.resize(layer, (width, height), interpolation=cv2.INTER_CUBIC)
        for weight, layer in ((1 - mix, coarse), (mix, fine))
    )
    return mask > 0, np.clip(paint, 0, 255).astype(np.uint8)


def _dirt(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Transmission of a dirty lens: drops and specks, out of focus."""
    layer = np.ones((height, width), np.float32)
    for _ in range(int(rng.integers(40, 120))):
        spot = np.zeros((height, width), np.float32)
        centre = rng.uniform([0, 0], [width, height])
        axes = rng.uniform(2, 14, 2)
        angle = float(rng.uniform(0, 180))
        cv2.ellipse(
            spot, np.rint(centre).astype(int).tolist(), np.rint(axes).astype(int).tolist(), angle, 0, 360, 1, -1
        )
        layer *= 1 - float(rng.uniform(0.25, 0.8)) * cv2.GaussianBlur(spot, (0, 0), float(rng.uniform(0.8, 2.0)))
    return layer


def with_moving_thing(
    views: TwoViews, texture: Image, share: float, rng: np.random.Generator, *, still: bool
) -> TwoViews:
    """Both images with a textured board in front that moves by itself and covers `share` of the first one.

    Args:
        still: the second image is the first one again: the camera stands and only the board moves.
    """
    height, width = views.image0.shape[:2]
    second, K1, T = (views.image0, views.K0, np.eye(4)) if still else (views.image1, views.K1, views.T)
    aspect = float(rng.uniform(0.8, 1.8))
    h = min(np.sqrt(share * width * height / aspect), 0.98 * height)
    w = min(share * width * height / h, 0.98 * width)
    left, top = float(rng.uniform(0, width - w)), float(rng.uniform(0, height - h))
    corners = np.array([[left, top], [left + w, top], [left + w, top + h], [left, top + h]], np.float64)
    depth = float(rng.uniform(2.0, 5.0))
    rays = np.concatenate([corners, np.ones((4, 1))], 1) @ np.linalg.inv(views.K0).T
    board = rays * depth
    slant = _rotation(rng.normal(0, 0.25, 3) * [1, 1, 0.1])
    centre = board.mean(0)
    board = (board - centre) @ slant.T + centre
    travel = rng.normal(0, 1, 3) * [1, 0.3, 0.5]
    travel *= float(rng.uniform(0.08, 0.35)) * depth / max(np.linalg.norm(travel), 1e-9)
    moved = (board - centre) @ _rotation(rng.normal(0, 0.08, 3)).T + centre + travel
    out0 = _pasted(views.image0, texture, board @ views.K0.T)
    out1 = _pasted(second, texture, moved @ K1.T)
    noise = rng.normal(0, 1.5, (2, *out0.shape))
    images = [
        np.clip(np.rint(image + n), 0, 255).astype(np.uint8) for image, n in zip((out0, out1), noise, strict=True)
    ]
    return TwoViews(*images, views.K0, K1, T, views.scene)


def _pasted(image: Image, texture: Image, projected: Float64) -> Image:
    corners = (projected[:, :2] / projected[:, 2:]).astype(np.float32)
    rows, columns = texture.shape[:2]
    source = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], np.float32)
    H = cv2.getPerspectiveTransform(source, corners)
    size = (image.shape[1], image.shape[0])
    board = cv2.warpPerspective(texture, H, size, flags=cv2.INTER_AREA)
    cover = cv2.warpPerspective(np.full((rows, columns), 255, np.uint8), H, size)[..., None] / np.float32(255)
    return np.asarray(np.rint(board * cover + image * (1 - cover)), np.uint8)


def _rotation(w: Float64) -> Float64:
    return np.asarray(cv2.Rodrigues(np.asarray(w, np.float64))[0], np.float64)


def kept_matches(
    folder: Path, name: str, matcher: Callable[[], Matcher], make: Callable[[], TwoViews]
) -> tuple[Correspondences, TwoViews]:
    """Matches of one pair, made once: later calls read the file. The images of the result are empty then."""
    path = folder / f"{name}.npz"
    if not path.exists():
        views, chosen = make(), matcher()
        m = chosen.match(chosen.encode(views.image0, reference=True), chosen.encode(views.image1), seed=0)
        assert m.precision is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part.npz")
        np.savez(
            partial,
            reference_xy=m.reference_xy,
            query_xy=m.query_xy,
            score=m.score,
            precision=m.precision,
            overlap=m.overlap,
            sizes=np.array([m.reference_size, m.query_size]),
            K=np.stack([views.K0, views.K1]),
            T=views.T,
            scene=views.scene,
            **{name: value for name in _PICTURE if (value := getattr(m, name)) is not None},
        )
        partial.replace(path)
    with np.load(path) as d:
        sizes = [(int(w), int(h)) for w, h in d["sizes"]]
        m = Correspondences(
            d["reference_xy"],
            d["query_xy"],
            d["score"],
            float(d["overlap"]),
            *sizes,
            precision=d["precision"],
            **{name: d[name] for name in _PICTURE if name in d},
        )
        nothing = np.zeros((0, 0, 3), np.uint8)
        return m, TwoViews(nothing, nothing, d["K"][0], d["K"][1], d["T"], str(d["scene"]))


def general(pairs: list[tuple[Path, int, int]], k: int) -> tuple[str, Callable[[], TwoViews]]:
    """Kind and views of pair k: every fifth one is sharp, the others have one of the damages in both images."""
    kind = DAMAGES[k % len(DAMAGES)]

    def make() -> TwoViews:
        views, rng = read(*pairs[k]), np.random.default_rng((1, k))
        images = [damaged(image, kind, rng) for image in (views.image0, views.image1)]
        return TwoViews(*images, views.K0, views.K1, views.T, views.scene)

    return kind, make


def with_overlay(pairs: list[tuple[Path, int, int]], k: int, *, related: bool) -> tuple[str, Callable[[], TwoViews]]:
    """Pair k with one overlay in both images; unrelated: the second image is of another scene."""
    kind = OVERLAYS[k % len(OVERLAYS)]

    def make() -> TwoViews:
        views = read(*pairs[k])
        second = views
        if not related:
            second = next(other for other in _others(pairs, k) if other.scene != views.scene)
        images = overlaid(views.image0, kind, k), overlaid(second.image1, kind, k)
        return TwoViews(*images, views.K0, second.K1, views.T, views.scene)

    return kind, make


def _others(pairs: list[tuple[Path, int, int]], k: int) -> Iterator[TwoViews]:
    for step in range(1, 400):
        yield read(*pairs[(k + 37 * step) % _LEAST_PAIRS])


def with_foreground(
    pairs: list[tuple[Path, int, int]], k: int, textures: list[Path], *, still: bool
) -> tuple[str, Callable[[], TwoViews]]:
    """Pair k with a board over 10 to 60 % of the image that moves by itself."""
    rng = np.random.default_rng((3, k))
    share = float(rng.uniform(0.1, 0.6))

    def make() -> TwoViews:
        texture = cv2.imread(str(textures[int(rng.integers(len(textures)))]), cv2.IMREAD_COLOR)
        texture = np.ascontiguousarray(
            cv2.resize(texture, (320, 240), interpolation=cv2.INTER_AREA)[..., ::-1], np.uint8
        )
        return with_moving_thing(read(*pairs[k]), texture, share, rng, still=still)

    return f"{int(share * 10) * 10} %", make


def standing(pairs: list[tuple[Path, int, int]], k: int) -> tuple[str, Callable[[], TwoViews]]:
    """Twice the first view of pair k, each with noise and the damage of its own: the camera has not moved."""
    kind = DAMAGES[k % len(DAMAGES)]

    def make() -> TwoViews:
        views, rng = read(*pairs[k]), np.random.default_rng((4, k))
        noise = rng.normal(0, 2.0, (2, *views.image0.shape))
        images = [np.clip(np.rint(damaged(views.image0, kind, rng) + n), 0, 255).astype(np.uint8) for n in noise]
        return TwoViews(*images, views.K0, views.K0, np.eye(4), views.scene)

    return kind, make
