"""Pictures of correspondences and dense warps, drawn with OpenCV so that a batch or a live topic can afford them."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Image
from ros2_densematch.geometry.correspondences import Correspondences, DenseWarp

GAP = 8  # pixels between the two images
BACKGROUND = 255
STACK_ABOVE = 4.5  # sum of the two aspect ratios (width / height) above which side by side would be too small
OUTLIER_RGB = (214, 69, 65)
_HATCH = 12  # pixels between the strokes of a mask
CAPTION_RGB = (31, 41, 55)
_STRIP, _MARGIN, _RAMP = 30, 8, 120  # pixels: height of a strip of text, space around it, length of the colour scale


def match_picture(
    reference: Image,
    query: Image,
    matches: Correspondences,
    inliers: NDArray[np.bool_] | None = None,
    *,
    max_lines: int = 120,
    width: int = 1280,
) -> Image:
    """Both images side by side, wide ones one above the other, with lines between matching points.

    Inliers are coloured by their score (blue is 0, green in between, yellow is 1), outliers are thin and red;
    `with_legend` says so below the picture. Where there are more than `max_lines`, the best-scored match of each cell
    of a grid over the reference is drawn, so that the lines cover the image instead of piling up on its strongest
    texture.

    Args:
        reference: uint8 (H0, W0, 3) RGB or (H0, W0) grey; may be smaller than `matches.reference_size`.
        query: the same for the query image.
        matches: pixels of the original images.
        inliers: bool (N,), or None where there was no estimate: all are then drawn as inliers.
        max_lines: at most about so many lines.
        width: width of the picture in pixels.

    Returns:
        uint8 (H, width, 3) RGB.
    """
    stacked = _aspect(reference) + _aspect(query) > STACK_ABOVE
    if stacked:
        sizes = [(width, max(round(width / _aspect(image)), 1)) for image in (reference, query)]
        offset = np.array([0, sizes[0][1] + GAP])
        canvas = np.full((sizes[0][1] + GAP + sizes[1][1], width, 3), BACKGROUND, np.uint8)
    else:
        left_width = round((width - GAP) * _aspect(reference) / (_aspect(reference) + _aspect(query)))
        height = max(round(left_width / _aspect(reference)), 1)
        sizes = [(left_width, height), (width - GAP - left_width, height)]
        offset = np.array([left_width + GAP, 0])
        canvas = np.full((height, width, 3), BACKGROUND, np.uint8)
    canvas[: sizes[0][1], : sizes[0][0]] = _fit(reference, *sizes[0])
    canvas[offset[1] : offset[1] + sizes[1][1], offset[0] : offset[0] + sizes[1][0]] = _fit(query, *sizes[1])
    if len(matches) == 0:
        return canvas

    a = _scaled(matches.reference_xy, matches.reference_size, sizes[0])
    b = _scaled(matches.query_xy, matches.query_size, sizes[1]) + offset
    good = np.ones(len(matches), np.bool_) if inliers is None else inliers
    lines = canvas.copy()
    bad_index = _thin(a, matches.score, np.flatnonzero(~good), max_lines // 4, *sizes[0])
    good_index = _thin(a, matches.score, np.flatnonzero(good), max_lines, *sizes[0])
    for i in bad_index:
        _line(lines, a[i], b[i], OUTLIER_RGB, 1)
    colours = _score_colours(matches.score)
    for i in good_index[np.argsort(matches.score[good_index], kind="stable")]:
        _line(lines, a[i], b[i], tuple(int(c) for c in colours[i]), max(round(width / 640), 1))
    canvas = cv2.addWeighted(lines, 0.65, canvas, 0.35, 0.0).astype(np.uint8)
    for i in good_index:
        for point in (a[i], b[i]):
            _dot(canvas, point, tuple(int(c) for c in colours[i]))
    return canvas


def motion_picture(
    query: Image,
    matches: Correspondences | None,
    inliers: NDArray[np.bool_] | None = None,
    *,
    max_lines: int = 150,
    width: int = 640,
) -> Image:
    """The query image with a trail for each match, from its place in the reference image to where it is now.

    Args:
        query: uint8 (H, W, 3) RGB or (H, W) grey.
        matches: pixels of the original images, or None.
        inliers: bool (N,): only these are drawn; None draws all.
        max_lines: at most about so many trails, the best of each part of the image.
        width: width of the picture in pixels.

    Returns:
        uint8 (H', width, 3) RGB.
    """
    size = width, max(round(width / _aspect(query)), 1)
    canvas = np.array(_fit(query, *size), np.uint8)
    if matches is None or len(matches) == 0:
        return canvas
    a = _scaled(matches.reference_xy, matches.reference_size, size)
    b = _scaled(matches.query_xy, matches.query_size, size)
    kept = np.arange(len(matches)) if inliers is None else np.flatnonzero(inliers)
    colours = _score_colours(matches.score)
    for i in _thin(b, matches.score, kept, max_lines, *size):
        colour = tuple(int(c) for c in colours[i])
        _line(canvas, a[i], b[i], colour, max(round(width / 640), 1))
        _dot(canvas, b[i], colour)
    return canvas


def with_mask(image: Image, tiles: NDArray[np.bool_] | None) -> Image:
    """The image, grey and hatched where the tiles (rows, columns) of a mask cover it.

    Args:
        image: uint8 (H, W, 3) RGB or (H, W) grey.
        tiles: True where it is covered; None leaves the image as it is.
    """
    if tiles is None:
        return image
    shown = np.array(_rgb(image), np.uint8)
    height, width = shown.shape[:2]
    covered = cv2.resize(tiles.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    row, column = np.indices((height, width))
    stroke = (row + column) % _HATCH < _HATCH // 4
    shown[covered] = shown[covered] // 2 + 64
    shown[covered & stroke] = OUTLIER_RGB
    return shown


def warp_picture(reference: Image, query: Image, warp: DenseWarp, *, width: int = 1280) -> Image:
    """Three panels: the reference, the query brought into the reference by the warp, the certainty.

    The middle panel fades to white where the certainty is low; the right panel shows certainty 0 to 1 in viridis.

    Args:
        reference: uint8 (H0, W0, 3) RGB or (H0, W0) grey; may be smaller than the original image.
        query: the same for the query image.
        warp: where each reference pixel lies in the query image.
        width: width of the picture in pixels.

    Returns:
        uint8 (H, width, 3) RGB.
    """
    panel_width = (width - 2 * GAP) // 3
    height = max(round(panel_width * warp.reference_size[1] / warp.reference_size[0]), 1)
    panel = (panel_width, height)
    xy = np.asarray(cv2.resize(warp.xy, panel, interpolation=cv2.INTER_LINEAR), np.float32)
    sized = np.asarray(cv2.resize(warp.certainty, panel, interpolation=cv2.INTER_LINEAR), np.float32)
    certainty = np.clip(np.nan_to_num(sized), 0.0, 1.0)
    shown = _rgb(query)
    points = _scaled(xy.reshape(-1, 2), warp.query_size, (shown.shape[1], shown.shape[0])).reshape(xy.shape)
    warped = cv2.remap(
        shown,
        np.nan_to_num(points[..., 0], nan=-1e4).astype(np.float32),
        np.nan_to_num(points[..., 1], nan=-1e4).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(255, 255, 255),
    )
    faded = warped * certainty[..., None] + BACKGROUND * (1.0 - certainty[..., None])
    canvas = np.full((height, 3 * panel_width + 2 * GAP, 3), BACKGROUND, np.uint8)
    for i, image in enumerate((_fit(reference, *panel), faded.astype(np.uint8), viridis(certainty))):
        canvas[:, i * (panel_width + GAP) : i * (panel_width + GAP) + panel_width] = image
    return canvas


def with_legend(picture: Image, *, outliers: bool = True) -> Image:
    """A picture of matches with a strip below it that says what the colours mean.

    Args:
        picture: uint8 (H, W, 3) RGB.
        outliers: whether matches that do not agree are drawn too.
    """
    from PIL import Image as PilImage
    from PIL import ImageDraw

    strip = PilImage.new("RGB", (picture.shape[1], _STRIP), (BACKGROUND,) * 3)
    draw, font, middle = ImageDraw.Draw(strip), _font(14), _STRIP // 2
    at = float(_MARGIN)
    for text in ("score 0", "1"):
        draw.text((at, middle), text, fill=CAPTION_RGB, font=font, anchor="lm")
        at += draw.textlength(text, font=font) + _MARGIN
        if text != "1":
            ramp = _score_colours(np.linspace(0.0, 1.0, _RAMP, dtype=np.float32))
            strip.paste(PilImage.fromarray(np.repeat(ramp[None], 12, 0)), (round(at), middle - 6))
            at += _RAMP + _MARGIN
    if outliers:
        at += 2 * _MARGIN
        draw.line((at, middle, at + 30, middle), fill=OUTLIER_RGB, width=2)
        text = "does not agree with the geometry"
        draw.text((at + 30 + _MARGIN, middle), text, fill=CAPTION_RGB, font=font, anchor="lm")
    return np.concatenate([picture, np.asarray(strip, np.uint8)], 0)


def with_caption(picture: Image, text: str) -> Image:
    """The picture with one line of text on a white strip below it.

    Args:
        picture: uint8 (H, W, 3) RGB.
        text: cut where it is longer than the picture is wide.
    """
    from PIL import Image as PilImage
    from PIL import ImageDraw

    strip = PilImage.new("RGB", (picture.shape[1], _STRIP), (BACKGROUND,) * 3)
    draw, font = ImageDraw.Draw(strip), _font(16)
    while text and draw.textlength(text, font=font) > picture.shape[1] - 2 * _MARGIN:
        text = text[:-2].rstrip() + "…" if len(text) > 2 else ""
    draw.text((_MARGIN, _STRIP // 2), text, fill=CAPTION_RGB, font=font, anchor="lm")
    return np.concatenate([picture, np.asarray(strip, np.uint8)], 0)


def viridis(value: NDArray[np.floating]) -> Image:
    """Colours of values in [0, 1]: the same shape with a last axis of 3, uint8 RGB."""
    level = np.clip(np.nan_to_num(value) * 255.0, 0.0, 255.0).astype(np.uint8)
    colours = np.asarray(cv2.applyColorMap(level.reshape(-1, 1), cv2.COLORMAP_VIRIDIS), np.uint8)[:, 0, ::-1]
    return np.ascontiguousarray(colours.reshape(*level.shape, 3), np.uint8)


def smaller(image: Image, longest: int = 640) -> Image:
    """The image as RGB with its longer side at most `longest` pixels: what is kept in memory for later pictures."""
    scale = longest / max(image.shape[:2])
    if scale >= 1.0:
        return np.array(_rgb(image), np.uint8)
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    return _rgb(np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8))


def _score_colours(score: NDArray[np.float32]) -> Image:
    return viridis(0.25 + 0.75 * score)  # the darkest quarter of the map vanishes on dark images


@cache
def _font(size: int) -> Any:
    from PIL import ImageFont

    # the font comes with matplotlib, whose import takes longer than the whole picture
    package = find_spec("matplotlib")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("pictures need the fonts of matplotlib: pip install matplotlib", name="matplotlib")
    return ImageFont.truetype(str(Path(package.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"), size)


def _aspect(image: Image) -> float:
    return float(image.shape[1] / image.shape[0])


def _rgb(image: Image) -> Image:
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def _fit(image: Image, width: int, height: int) -> Image:
    shrinking = width < image.shape[1]
    method = cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC
    return _rgb(np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8))


def _scaled(xy: NDArray[np.float32], size: tuple[int, int], shown: tuple[int, int]) -> NDArray[np.float64]:
    """Pixels of an image of one size (width, height) as pixels of the shown one: half-pixel rule."""
    scale = np.array(shown, np.float64) / np.array(size, np.float64)
    return (xy.astype(np.float64) + 0.5) * scale - 0.5


def _thin(
    xy: NDArray[np.float64], score: NDArray[np.float32], index: NDArray[np.intp], most: int, width: int, height: int
) -> NDArray[np.intp]:
    """At most about `most` of the indices: the best one of each cell of a grid of that many cells."""
    if len(index) <= most:
        return index
    cell = max(np.sqrt(width * height / most), 1.0)
    key = (xy[index, 1] // cell).astype(np.int64) * 100_000 + (xy[index, 0] // cell).astype(np.int64)
    order = np.argsort(-score[index], kind="stable")
    _, first = np.unique(key[order], return_index=True)
    best: NDArray[np.intp] = index[order[first]]
    return best


SUBPIXEL_BITS = 4


def _fixed(point: NDArray[np.float64]) -> tuple[int, int]:
    x, y = np.round(np.clip(point, -1e4, 1e4) * 2**SUBPIXEL_BITS)
    return int(x), int(y)


def _line(
    canvas: Image, a: NDArray[np.float64], b: NDArray[np.float64], colour: tuple[int, ...], thickness: int
) -> None:
    if np.isfinite(a).all() and np.isfinite(b).all():
        cv2.line(canvas, _fixed(a), _fixed(b), colour, thickness, cv2.LINE_AA, SUBPIXEL_BITS)


def _dot(canvas: Image, point: NDArray[np.float64], colour: tuple[int, ...]) -> None:
    if np.isfinite(point).all():
        cv2.circle(canvas, _fixed(point), 3 * 2**SUBPIXEL_BITS, (20, 20, 20), -1, cv2.LINE_AA, SUBPIXEL_BITS)
        cv2.circle(canvas, _fixed(point), 2 * 2**SUBPIXEL_BITS, colour, -1, cv2.LINE_AA, SUBPIXEL_BITS)
