"""Strong photometric change for training crops: light, colour, shadow, blur, noise, compression.

The two images of a pair are changed independently, so that a descriptor learns what stays the same under another
light and another camera. Geometry is never touched: a pixel keeps its place.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ros2_densematch.arrays import Image

FloatImage = NDArray[np.float32]


class PhotometricConfig(BaseModel):
    """How often and how strongly each change is made; probabilities are for one image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strength: float = Field(
        1.0, ge=0.0, le=2.0, description="Every amplitude is multiplied by this; 0 switches all changes off."
    )
    light: float = Field(
        0.9, ge=0, le=1, description="The brightness, contrast and gamma are changed with this probability."
    )
    cast: float = Field(
        0.5, ge=0, le=1, description="A colour cast, one gain a channel, is added with this probability."
    )
    grey: float = Field(
        0.15, ge=0, le=1, description="The colour is removed, all of it or a part, with this probability."
    )
    shuffle: float = Field(0.03, ge=0, le=1, description="The channels are permuted with this probability.")
    shadow: float = Field(
        0.25, ge=0, le=1, description="A shadow, a polygon with a hard or soft edge, is cast with this probability."
    )
    gradient: float = Field(
        0.25, ge=0, le=1, description="The brightness changes linearly across the image with this probability."
    )
    highlight: float = Field(
        0.15,
        ge=0,
        le=1,
        description="A bright spot, as from a lamp on a glossy surface, is added with this probability.",
    )
    blur: float = Field(
        0.25,
        ge=0,
        le=1,
        description="The image is blurred, with a standard deviation of up to 1.6 px, with this probability.",
    )
    motion: float = Field(
        0.12, ge=0, le=1, description="The image is blurred along a line of up to 9 px with this probability."
    )
    resample: float = Field(
        0.15, ge=0, le=1, description="The image is made smaller (down to 0.4) and larger again with this probability."
    )
    noise: float = Field(
        0.4, ge=0, le=1, description="The shot and read noise of a sensor is added with this probability."
    )
    jpeg: float = Field(
        0.4, ge=0, le=1, description="The image is compressed as JPEG of quality 20 to 95 with this probability."
    )


def augment(image: Image, rng: np.random.Generator, config: PhotometricConfig | None = None) -> Image:
    """A photometrically changed copy of an image.

    Args:
        image: uint8 RGB (H, W, 3).
        rng: source of all randomness; the result depends on nothing else.
        config: which changes, how often, how strong.

    Returns:
        uint8 RGB (H, W, 3); the same pixel grid.
    """
    config = config or PhotometricConfig()
    if config.strength == 0:
        return np.array(image)
    chance = rng.random(12)
    out: FloatImage = image.astype(np.float32) * np.float32(1 / 255)
    if chance[0] < config.resample:
        out = _resample(out, rng, config.strength)
    if chance[1] < config.blur:
        sigma = float(rng.uniform(0.4, 1.6)) * config.strength
        out = cv2.GaussianBlur(out, (0, 0), sigma).astype(np.float32, copy=False)
    if chance[2] < config.motion:
        out = _motion_blur(out, rng, config.strength)
    if chance[3] < config.shadow:
        out *= _shadow(out.shape[:2], rng, config.strength)[..., None]
    if chance[4] < config.gradient:
        out *= _gradient(out.shape[:2], rng, config.strength)[..., None]
    if chance[5] < config.highlight:
        out += _highlight(out.shape[:2], rng, config.strength)[..., None]
    if chance[6] < config.cast:
        out *= np.exp(rng.normal(0, 0.12 * config.strength, 3)).astype(np.float32)
    if chance[7] < config.light:
        out = _light(out, rng, config.strength)
    if chance[8] < config.grey:
        grey = out @ np.array([0.299, 0.587, 0.114], np.float32)
        keep = np.float32(0 if rng.random() < 0.6 else rng.uniform(0, 0.6))
        out = out * keep + grey[..., None] * (1 - keep)
    if chance[9] < config.shuffle:
        out = np.ascontiguousarray(out[..., rng.permutation(3)])
    if chance[10] < config.noise:
        out = _noise(out, rng, config.strength)
    result: Image = (np.clip(out, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    if chance[11] < config.jpeg:
        quality = int(rng.uniform(95 - 75 * min(config.strength, 1.0), 95))
        encoded = cv2.imencode(".jpg", result, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        # The channel order does not matter: what goes in comes out in the same order.
        result = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return result


def _light(image: FloatImage, rng: np.random.Generator, strength: float) -> FloatImage:
    """Exposure as a gain, then contrast about the mean, then gamma."""
    gain, contrast, gamma = np.exp(rng.normal(0, [0.22 * strength, 0.20 * strength, 0.22 * strength]))
    # Clipped at three standard deviations: an all-black or all-white crop teaches nothing.
    gain, contrast, gamma = np.clip([gain, contrast, gamma], 0.4, 2.2)
    mean = float(image.mean()) * gain
    scale = np.float32(gain * contrast)
    out: FloatImage = image * scale
    out += np.float32(mean * (1 - contrast) + rng.normal(0, 0.05) * strength)
    np.clip(out, 1e-4, 1, out=out)
    return cv2.pow(out, float(gamma)).astype(np.float32, copy=False)


def _resample(image: FloatImage, rng: np.random.Generator, strength: float) -> FloatImage:
    height, width = image.shape[:2]
    scale = 1 - float(rng.uniform(0.2, 0.6)) * min(strength, 1.2)
    small = cv2.resize(image, (max(8, int(width * scale)), max(8, int(height * scale))), interpolation=cv2.INTER_AREA)
    back = cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC
    return cv2.resize(small, (width, height), interpolation=back).astype(np.float32, copy=False)


def _motion_blur(image: FloatImage, rng: np.random.Generator, strength: float) -> FloatImage:
    length = float(rng.uniform(3, 9)) * strength
    angle = float(rng.uniform(0, np.pi))
    size = 2 * int(np.ceil(length / 2)) + 1
    kernel = np.zeros((size, size), np.float32)
    centre = size // 2
    # Drawn with sub-pixel steps, symmetric about the centre: the blur must not shift the image.
    for step in np.linspace(-0.5, 0.5, 4 * size + 1) * (length - 1):
        x, y = centre + step * np.cos(angle), centre + step * np.sin(angle)
        x0, y0 = int(np.floor(x)), int(np.floor(y))
        for dy in (0, 1):
            for dx in (0, 1):
                if x0 + dx < size and y0 + dy < size:
                    kernel[y0 + dy, x0 + dx] += (1 - abs(x - x0 - dx)) * (1 - abs(y - y0 - dy))
    kernel /= kernel.sum()
    return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101).astype(np.float32, copy=False)


def _shadow(shape: tuple[int, ...], rng: np.random.Generator, strength: float) -> FloatImage:
    height, width = shape[:2]
    corners = int(rng.integers(3, 7))
    centre = rng.uniform(0, 1, 2) * [width, height]
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radii = rng.uniform(0.15, 0.8, corners) * max(width, height)
    polygon = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    mask = np.zeros((height, width), np.float32)
    cv2.fillPoly(mask, [polygon.round().astype(np.int32)], 1.0)
    if rng.random() < 0.7:
        # Box filter twice is a cheap soft edge at any width.
        width_px = 2 * int(rng.uniform(1, 14)) + 1
        mask = cv2.blur(cv2.blur(mask, (width_px, width_px)), (width_px, width_px)).astype(np.float32, copy=False)
    depth = min(0.9, float(rng.uniform(0.25, 0.7)) * strength)
    lit_inside = rng.random() < 0.3
    factor: FloatImage = 1 + np.float32(depth) * mask if lit_inside else 1 - np.float32(depth) * mask
    return factor.astype(np.float32, copy=False)


def _gradient(shape: tuple[int, ...], rng: np.random.Generator, strength: float) -> FloatImage:
    height, width = shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32) * np.float32(np.cos(angle))
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32) * np.float32(np.sin(angle))
    amplitude = min(1.6, float(rng.uniform(0.3, 1.2)) * strength)
    out: FloatImage = np.clip(1 + np.float32(amplitude) * (x[None, :] + y[:, None]), 0.1, None)
    return out


def _highlight(shape: tuple[int, ...], rng: np.random.Generator, strength: float) -> FloatImage:
    height, width = shape[:2]
    cx, cy = rng.uniform(0, width), rng.uniform(0, height)
    sx, sy = rng.uniform(0.03, 0.25, 2) * max(width, height)
    x = np.exp(-0.5 * ((np.arange(width) - cx) / sx) ** 2).astype(np.float32)
    y = np.exp(-0.5 * ((np.arange(height) - cy) / sy) ** 2).astype(np.float32)
    out: FloatImage = np.outer(y, x) * np.float32(rng.uniform(0.2, 0.8) * strength)
    return out.astype(np.float32, copy=False)


def _noise(image: FloatImage, rng: np.random.Generator, strength: float) -> FloatImage:
    """Shot noise (variance grows with brightness) plus read noise, sometimes the same in all channels."""
    read = float(rng.uniform(0.002, 0.03)) * strength
    shot = float(rng.uniform(0.0, 0.03)) * strength
    channels = 1 if rng.random() < 0.3 else 3
    # The sum of four uniform bytes is near enough to normal, and five times as fast to draw.
    drawn = rng.integers(0, 256, (4, *image.shape[:2], channels), dtype=np.uint8)
    noise = (drawn.sum(0, dtype=np.uint16).astype(np.float32) - np.float32(510)) * np.float32(1 / 147.8)
    sigma = np.sqrt(np.float32(read**2) + np.float32(shot**2) * np.clip(image, 0, 1))
    result: FloatImage = image + noise * sigma
    return result
