"""The decoder of ROS images: right pictures for every encoding, and one kind of error for everything else."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ros2_densematch.messages.image import (
    IMAGE_ENCODINGS,
    ImageDecodeError,
    decode_depth,
    decode_image,
    decode_image_bytes,
    is_depth,
)

BYTES_PER_PIXEL = {"mono16": 2, "8UC3": 3, "rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4} | dict.fromkeys(
    ("yuv422", "yuv422_yuy2", "uyvy", "yuyv", *(f"bayer_{name}16" for name in ("rggb", "bggr", "gbrg", "grbg"))), 2
)
BYTES_PER_PIXEL |= {"8UC4": 4, "rgb16": 6, "bgr16": 6, "rgba16": 8, "bgra16": 8}
RED, GREEN, BLUE = (200, 30, 40), (20, 180, 30), (30, 40, 190)


def raw(array: np.ndarray[Any, Any], encoding: str, *, padding: int = 0, bigendian: bool = False) -> Any:
    """An Image message of an array (H, W[, C]) with `padding` bytes behind every row."""
    height, width = array.shape[:2]
    rows = np.ascontiguousarray(array).view(np.uint8).reshape(height, -1)
    data = np.pad(rows, ((0, 0), (0, padding)), constant_values=7).ravel()
    return SimpleNamespace(
        width=width,
        height=height,
        step=rows.shape[1] + padding,
        encoding=encoding,
        is_bigendian=int(bigendian),
        data=data,
    )


def compressed(data: bytes, format: str = "jpeg") -> Any:
    return SimpleNamespace(format=format, data=np.frombuffer(data, np.uint8))


def picture(width: int = 16, height: int = 12) -> np.ndarray[Any, Any]:
    """RGB: a red, a green and a blue stripe."""
    image = np.zeros((height, width, 3), np.uint8)
    for i, colour in enumerate((RED, GREEN, BLUE)):
        image[:, i * width // 3 : (i + 1) * width // 3] = colour
    image[:, 3 * width // 3 :] = BLUE
    return image


def encoded(extension: str, image: np.ndarray[Any, Any]) -> bytes:
    return cv2.imencode(extension, image)[1].tobytes()


# --- every encoding gives the right colours ---------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "8UC3"])
def test_colour_comes_out_as_rgb(encoding: str, padding: int) -> None:
    rgb = picture()
    stored = rgb if encoding.startswith("rgb") else rgb[:, :, ::-1]
    if encoding.endswith("a8"):
        stored = np.dstack([stored, np.full(rgb.shape[:2], 9, np.uint8)])
    np.testing.assert_array_equal(decode_image(raw(stored, encoding, padding=padding)), rgb)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_comes_out_unchanged_and_as_a_copy(encoding: str) -> None:
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    message = raw(grey, encoding, padding=3)
    image = decode_image(message)
    np.testing.assert_array_equal(image, grey)
    message.data[:] = 0
    np.testing.assert_array_equal(image, grey)


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_give_the_colour_of_a_plain_scene(pattern: str) -> None:
    colour = dict(zip("rgb", RED, strict=True))
    block = np.array([colour[c] for c in pattern], np.uint8).reshape(2, 2)
    image = decode_image(raw(np.tile(block, (6, 8)), f"bayer_{pattern}8", padding=2))
    assert image.shape == (12, 16, 3)
    np.testing.assert_allclose(image[4:8, 4:12].reshape(-1, 3).mean(0), RED, atol=2)


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv"])
def test_yuv_422_gives_the_right_colours(encoding: str) -> None:
    y, v, u = cv2.cvtColor(np.array([[RED]], np.uint8), cv2.COLOR_RGB2YCrCb)[0, 0].astype(float)
    # ROS cameras send limited range (16..235), OpenCV's YCrCb is full range.
    y, u, v = (round(16 + y * 219 / 255), round(128 + (u - 128.0) * 224 / 255), round(128 + (v - 128.0) * 224 / 255))
    pair = [u, y, v, y] if encoding in ("yuv422", "uyvy") else [y, u, y, v]
    stored = np.tile(np.array(pair, np.uint8), (6, 4)).reshape(6, 8, 2)
    image = decode_image(raw(stored, encoding, padding=4))
    assert image.shape == (6, 8, 3)
    np.testing.assert_allclose(image.reshape(-1, 3).mean(0), RED, atol=4)


def test_nv12_has_half_as_many_chroma_rows() -> None:
    data = np.concatenate([np.full((8, 10), 128, np.uint8), np.tile(np.array([90, 200], np.uint8), (4, 5))])
    message = SimpleNamespace(width=10, height=8, step=10, encoding="nv12", is_bigendian=0, data=data.ravel())
    image = decode_image(message)
    assert image.shape == (8, 10, 3)
    assert image[0, 0, 0] > 200 > image[0, 0, 2]  # much red difference, little blue difference
    message.data = message.data[:-1]
    with pytest.raises(ImageDecodeError, match="nv12"):
        decode_image(message)


@pytest.mark.parametrize("bigendian", [False, True])
def test_16_bit_grey_is_normalised_by_local_contrast(bigendian: bool) -> None:
    """A hot object over 2 % of the image costs the rest no contrast; noise alone stays flat; the byte order counts."""
    g = np.random.default_rng(0)
    scene = 7200 + 80 * np.sin(np.arange(160) / 3.0) + g.normal(0, 2, (120, 160))
    hot = scene.copy()
    hot[50:70, 60:80] = 16000

    def decoded(values: np.ndarray) -> np.ndarray:
        return decode_image(raw(np.rint(values).astype(">u2" if bigendian else "<u2"), "mono16", bigendian=bigendian))

    plain, heated, noise = decoded(scene), decoded(hot), decoded(g.normal(8000, 3, (120, 160)))
    assert plain.dtype == np.uint8
    assert plain[:, :40].std() > 25
    np.testing.assert_allclose(heated[:, :30], plain[:, :30], atol=3)
    assert heated[60, 70] == 255
    assert noise.std() < 8


def test_jpeg_and_png_come_out_as_rgb_and_grey() -> None:
    bgr = np.ascontiguousarray(picture()[:, :, ::-1])
    np.testing.assert_array_equal(decode_image(compressed(encoded(".png", bgr), "png")), picture())
    jpeg = decode_image(compressed(encoded(".jpg", bgr), "bgr8; jpeg compressed bgr8"))
    np.testing.assert_allclose(jpeg[6, 2], RED, atol=30)
    assert decode_image(compressed(encoded(".jpg", bgr[:, :, 0]), "mono8; jpeg compressed ")).shape == (12, 16)
    wide = np.linspace(0, 4000, 192).reshape(12, 16).astype(np.uint16)
    assert decode_image(compressed(encoded(".png", wide), "mono16; png compressed ")).dtype == np.uint8


def test_image_files_of_other_kinds_are_read_too() -> None:
    bgr = np.ascontiguousarray(picture()[:, :, ::-1])
    np.testing.assert_array_equal(decode_image_bytes(encoded(".bmp", bgr), "a.bmp"), picture())
    with pytest.raises(ImageDecodeError, match=r"notes\.txt"):
        decode_image_bytes(b"not an image", "notes.txt")


# --- depth ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bigendian", [False, True])
def test_depth_is_in_metres_and_unknown_is_nan(bigendian: bool) -> None:
    order = ">" if bigendian else "<"
    millimetres = decode_depth(raw(np.array([[1500, 0]], f"{order}u2"), "16UC1", bigendian=bigendian))
    np.testing.assert_allclose(millimetres, [[1.5, np.nan]])
    metres = np.array([[1.5, np.nan, np.inf, -1.0, 0.0]], f"{order}f4")
    decoded = decode_depth(raw(metres, "32FC1", bigendian=bigendian))
    np.testing.assert_allclose(decoded, [[1.5, np.nan, np.nan, np.nan, np.nan]])
    assert decoded.dtype == np.float32


def test_compressed_depth_as_png_and_as_quantised_inverse_depth() -> None:
    header = struct.pack("<iff", 0, 0.0, 0.0)
    millimetres = np.array([[1500, 0], [65535, 1]], np.uint16)
    message = compressed(header + encoded(".png", millimetres), "16UC1; compressedDepth png")
    assert is_depth(message)
    np.testing.assert_allclose(decode_depth(message), [[1.5, np.nan], [65.535, 0.001]], rtol=1e-6)

    # compressed_depth_image_transport: q = A / depth + B, rounded
    depth, a, b = np.array([[0.5, 2.0], [7.5, np.nan]]), 100.0 * 101.0, 1.0 - 100.0 * 101.0 / 10.0
    q = np.nan_to_num(np.round(a / depth + b), nan=0).astype(np.uint16)
    message = compressed(struct.pack("<iff", 1, a, b) + encoded(".png", q), "32FC1; compressedDepth png")
    np.testing.assert_allclose(decode_depth(message), depth, rtol=0.01)


def rvl(depth: np.ndarray[Any, Any]) -> bytes:
    """The encoder of RVL, straight from its paper."""
    nibbles: list[int] = []

    def put(number: int) -> None:
        while True:
            part, number = number & 7, number >> 3
            nibbles.append(part | (8 if number else 0))
            if not number:
                return

    flat, at, previous = depth.ravel().astype(int), 0, 0
    while at < flat.size:
        zeros = 0
        while at + zeros < flat.size and flat[at + zeros] == 0:
            zeros += 1
        at += zeros
        count = 0
        while at + count < flat.size and flat[at + count] != 0:
            count += 1
        put(zeros)
        put(count)
        for value in flat[at : at + count]:
            delta = value - previous
            put((delta << 1) ^ (delta >> 31))
            previous = value
        at += count
    nibbles += [0] * (-len(nibbles) % 8)
    words = [int("".join(f"{n:x}" for n in nibbles[i : i + 8]), 16) for i in range(0, len(nibbles), 8)]
    return struct.pack("<II", depth.shape[1], depth.shape[0]) + struct.pack(f"<{len(words)}I", *words)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_rvl_depth_survives_the_way_there_and_back(width: int, height: int, seed: int, holes: float) -> None:
    rng = np.random.default_rng(seed)
    depth = rng.integers(1, 65536, (height, width)).astype(np.uint16)
    depth[rng.random((height, width)) < holes] = 0
    message = compressed(struct.pack("<iff", 0, 0, 0) + rvl(depth), "16UC1; compressedDepth rvl")
    np.testing.assert_allclose(np.nan_to_num(decode_depth(message)), depth * 0.001, rtol=1e-6)


@pytest.mark.parametrize("bigendian", [False, True])
@pytest.mark.parametrize("encoding", ["rgb16", "bgr16", "rgba16", "bgra16"])
def test_colour_of_16_bits_keeps_its_colours(encoding: str, bigendian: bool) -> None:
    rgb = picture().astype(np.uint16) * 100
    stored = rgb if encoding.startswith("rgb") else rgb[:, :, ::-1]
    if "a" in encoding:
        stored = np.dstack([stored, np.full(rgb.shape[:2], 65535, np.uint16)])
    got = decode_image(raw(stored.astype(">u2" if bigendian else "<u2"), encoding, bigendian=bigendian))
    expected = (picture().astype(float) - 20) * 255 / 180  # from the darkest to the brightest value of all channels
    np.testing.assert_allclose(got, np.clip(expected, 0, 255), atol=1.5)


@pytest.mark.parametrize("name", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_of_16_bits_equals_that_of_8(name: str) -> None:
    mosaic = np.random.default_rng(1).integers(0, 256, (12, 16)).astype(np.uint8)
    mosaic[0, 0], mosaic[-1, -1] = 0, 255
    eight = decode_image(raw(mosaic, f"bayer_{name}8")).astype(float)
    sixteen = decode_image(raw(mosaic.astype("<u2") * 16, f"bayer_{name}16")).astype(float)
    low, high = np.percentile(eight, (0.5, 99.5))
    np.testing.assert_allclose(sixteen, np.clip((eight - low) * 255 / (high - low), 0, 255), atol=2)


def test_nv21_is_nv12_with_the_other_order_of_colours() -> None:
    rgb = np.full((8, 8, 3), RED, np.uint8)
    i420 = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420).ravel()
    luma, u, v = i420[:64], i420[64:80], i420[80:]
    for encoding, pair in (("nv12", (u, v)), ("nv21", (v, u))):
        message = raw(np.zeros((8, 8), np.uint8), encoding)
        message.data = np.concatenate([luma, np.stack(pair, 1).ravel()])
        np.testing.assert_allclose(decode_image(message).astype(int), rgb, atol=4)


@pytest.mark.parametrize("bigendian", [False, True])
def test_grey_values_of_16_bits_named_as_depth_are_millimetres(bigendian: bool) -> None:
    values = np.array([[0, 1000, 2500]], np.uint16)
    depth = decode_depth(raw(values.astype(">u2" if bigendian else "<u2"), "mono16", bigendian=bigendian))
    np.testing.assert_allclose(depth, [[np.nan, 1.0, 2.5]])
    png = compressed(bytes(12) + encoded(".png", values), "mono16; compressedDepth png")
    np.testing.assert_allclose(decode_depth(png), [[np.nan, 1.0, 2.5]])


# --- where a picture ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize("tail", [bytes(6000), b"\0\0\0\x18ftypmp42" + bytes(20_000), b"\xff\xd9" * 9])
def test_what_follows_a_picture_does_not_matter(extension: str, tail: bytes) -> None:
    data = encoded(extension, picture(64, 48))
    np.testing.assert_array_equal(decode_image(compressed(data + tail)), decode_image(compressed(data)))


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize("padding", [0, 6000])
def test_a_cut_picture_is_refused_also_where_it_was_padded(extension: str, padding: int) -> None:
    data = encoded(extension, np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8))
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(ImageDecodeError, match="it is truncated"):
            decode_image(compressed(data[: int(share * len(data))] + bytes(padding)))


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_picture() -> None:
    thumbnail = encoded(".jpg", picture())
    data = encoded(".jpg", picture(64, 48))
    exif = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = data[:2] + exif + data[2:]
    np.testing.assert_array_equal(decode_image(compressed(whole)), decode_image(compressed(data)))
    with pytest.raises(ImageDecodeError, match="it is truncated"):
        decode_image(compressed(whole[:-40]))


def test_progressive_jpeg_with_several_scans_is_read() -> None:
    image = picture(64, 48)
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2])[1].tobytes()
    assert data.count(b"\xff\xda") > 1
    assert decode_image(compressed(data + bytes(100))).shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("data", "format", "words"),
    [
        (b"\0\0\0\x18ftypheic" + bytes(50), "jpeg", "HEIC"),
        (b"\0\0\0\x01\x67" + bytes(50), "", "video stream"),
        (b"\0\0\0\x01\x67" + bytes(50), "h264", "video stream"),
        (b"", "jpeg", "empty"),
    ],
)
def test_other_formats_are_named_with_a_remedy(data: bytes, format: str, words: str) -> None:
    with pytest.raises(ImageDecodeError, match=words) as caught:
        decode_image(compressed(data, format))
    assert caught.value.remedy


def test_a_file_is_named_as_a_file() -> None:
    with pytest.raises(ImageDecodeError) as caught:
        decode_image_bytes(b"no picture", "notes.jpg")
    assert str(caught.value).startswith("notes.jpg: this is not an image; give png")


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["nv24", "bayer_rggb32", "rgb32", "64FC1", "", "jpeg", "32SC1"])
def test_other_encodings_are_refused_by_name_with_the_remedy(encoding: str) -> None:
    with pytest.raises(ImageDecodeError) as caught:
        decode_image(raw(np.zeros((4, 4), np.uint8), encoding))
    assert caught.value.encoding == encoding
    assert repr(encoding) in str(caught.value)
    assert "republish as" in caught.value.remedy


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"width": 0}, "0 x 6"),
        ({"height": -1}, "8 x -1"),
        ({"width": 1 << 20, "step": 1 << 20}, "1048576 x 6"),
        ({"step": 7}, "step is 7"),
        ({"data": np.zeros(40, np.uint8)}, "40 bytes"),
        ({"data": np.zeros(48, np.float32)}, "float32"),
        ({"data": "text"}, "not a byte buffer"),
        ({"width": None}, "not a number"),
    ],
)
def test_a_message_that_breaks_its_announcement_is_refused(change: dict[str, Any], problem: str) -> None:
    message = raw(np.zeros((6, 8), np.uint8), "mono8")
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(ImageDecodeError, match=problem):
        decode_image(message)


def test_pictures_and_depth_are_not_mixed_up() -> None:
    with pytest.raises(ImageDecodeError, match="--depth-topic"):
        decode_image(raw(np.zeros((4, 4), np.uint16), "16UC1"))
    with pytest.raises(ImageDecodeError, match="--depth-topic"):
        decode_image(compressed(b"", "16UC1; compressedDepth png"))
    with pytest.raises(ImageDecodeError, match="not a depth image"):
        decode_depth(raw(np.zeros((4, 4), np.uint8), "mono8"))


def test_a_wrong_byte_order_flag_is_refused() -> None:
    message = raw(np.zeros((4, 4), np.uint16), "16UC1")
    message.is_bigendian = 2
    with pytest.raises(ImageDecodeError, match="is_bigendian is 2"):
        decode_depth(message)


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_a_cut_file_is_refused_and_not_shown_half_grey(extension: str) -> None:
    data = encoded(extension, np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8))
    for keep in (0, 1, 10, 30, len(data) // 2, len(data) - 12):
        with pytest.raises(ImageDecodeError):
            decode_image(compressed(data[:keep], extension[1:]))


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    bomb = bytearray(encoded(".png", np.zeros((4, 4), np.uint8)))
    bomb[16:24] = struct.pack(">II", 200_000, 200_000)
    with pytest.raises(ImageDecodeError, match="200000 x 200000"):
        decode_image(compressed(bytes(bomb), "png"))


# --- properties -------------------------------------------------------------------------------------------------------


@settings(max_examples=400, deadline=None)
@given(
    encoding=st.sampled_from([*IMAGE_ENCODINGS, "16UC1", "32FC1", "rgb16", "nv21"]),
    width=st.integers(-1, 24),
    height=st.integers(-1, 24),
    step=st.integers(-3, 8),
    missing=st.integers(-4, 60),
    bigendian=st.integers(0, 2),
    seed=st.integers(0, 2**16),
)
def test_any_message_gives_an_image_of_its_size_or_the_one_error(
    encoding: str, width: int, height: int, step: int, missing: int, bigendian: int, seed: int
) -> None:
    full = max(width, 0) * BYTES_PER_PIXEL.get(encoding, 1) + step
    size = max(0, full * max(height, 0) * (3 if encoding == "nv12" else 2) // 2 - missing)
    data = np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8)
    message = SimpleNamespace(
        width=width, height=height, step=full, encoding=encoding, is_bigendian=bigendian, data=data
    )
    for decode, kind in ((decode_image, np.uint8), (decode_depth, np.float32)):
        try:
            image = decode(message)
        except ImageDecodeError:
            continue
        assert image.shape[:2] == (height, width)
        assert image.dtype == kind
        assert image.ndim == 2 or image.shape[2] == 3
        assert step >= 0


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    extension=st.sampled_from([".jpg", ".png"]),
    changes=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 400),
    depth=st.booleans(),
)
def test_any_damaged_file_gives_an_image_or_the_one_error(
    extension: str, changes: list[tuple[int, int]], cut: int, depth: bool
) -> None:
    data = bytearray(encoded(extension, picture(24, 18)[:, :, ::-1]))
    for at, value in changes:
        data[at % len(data)] = value
    data = data[: max(len(data) - cut, 0)] if cut > 200 else data
    message = compressed(bytes(data), "16UC1; compressedDepth png" if depth else extension[1:])
    try:
        image = (decode_depth if depth else decode_image)(message)
    except ImageDecodeError:
        return
    assert image.dtype == (np.float32 if depth else np.uint8)
    assert image.size > 0


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["16UC1; compressedDepth rvl", "32FC1; compressedDepth", "png", ""]))
def test_any_bytes_give_an_image_or_the_one_error(data: bytes, format: str) -> None:
    for decode in (decode_image, decode_depth):
        with_header = compressed(struct.pack("<II", 5, 4) + data, format)
        try:
            image = decode(with_header)
        except ImageDecodeError:
            continue
        assert image.size > 0
