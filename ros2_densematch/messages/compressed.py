"""JPEG, PNG and compressedDepth data of sensor_msgs CompressedImage."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.messages.errors import ImageDecodeError

MAX_SIDE = 16384
MAX_PIXELS = 1 << 27
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_DEPTH_HEADER = struct.Struct("<iff")


def decode_compressed(msg: Any) -> NDArray[Any]:
    """The image of a jpeg or png CompressedImage as stored: uint8 or uint16, grey (H, W) or BGR[A] (H, W, 3 or 4).

    The size is read from the file's header and checked before anything is decoded. EXIF orientation is not applied:
    the calibration belongs to the pixels as stored.

    Raises:
        ImageDecodeError: another format, damaged data, or a size beyond `MAX_SIDE` and `MAX_PIXELS`.
    """
    name = str(msg.format)
    if "compressedDepth" in name:
        raise ImageDecodeError(name, "this is a depth image", "name its topic with --depth-topic")
    return decode_file(_as_bytes(msg.data, name), name or "CompressedImage")


def decode_file(data: bytes, name: str) -> NDArray[Any]:
    """As `decode_compressed`, from the bytes of a jpeg or png file; `name` is used in errors."""
    if data.startswith(b"\xff\xd8"):
        size = _jpeg_size(data, name)
        # A cut JPEG decodes to an image with a grey lower part: refuse it. Some encoders pad after the end marker.
        if b"\xff\xd9" not in data[-4096:]:
            raise ImageDecodeError(name, "the jpeg data has no end marker", "the message was cut: check the recording")
    elif data.startswith(_PNG_MAGIC):
        size = _png_size(data, name)
    else:
        start = data[:8].hex(" ") or "nothing"
        raise ImageDecodeError(name, f"the data starts with {start}", "only jpeg and png are read: republish as jpeg")
    width, height = size
    if width <= 0 or height <= 0 or max(size) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ImageDecodeError(
            name, f"the size is {width} x {height}", f"1 to {MAX_SIDE} pixels a side and {MAX_PIXELS} in all are read"
        )
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageDecodeError(name, f"OpenCV cannot decode the data ({error.err})", "check the recording") from None
    if image is None or image.shape[:2] != (height, width) or image.dtype not in (np.uint8, np.uint16):
        raise ImageDecodeError(name, "the data is damaged", "check the recording")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim == 3 and image.shape[2] not in (3, 4):
        raise ImageDecodeError(name, f"the image has {image.shape[2]} channels", "publish 1, 3 or 4 channels")
    return np.asarray(image)


def decode_compressed_depth(msg: Any) -> NDArray[Any]:
    """A compressedDepth image (or plain 16-bit png) as uint16 millimetres or float32 metres, (H, W).

    The data is a 12-byte header (int32 kind, float32 A, float32 B), then a 16-bit png or RVL stream. For 32FC1 the
    values q are quantised inverse depth, depth = A / (q - B), q = 0 for unknown (compressed_depth_image_transport).

    Raises:
        ImageDecodeError: the data is damaged or is no depth image.
    """
    name = str(msg.format)
    data = _as_bytes(msg.data, name)
    encoding = name.split(";")[0].strip()
    if "compressedDepth" not in name:
        values = decode_file(data, name)
        if values.ndim != 2 or values.dtype != np.uint16:
            raise ImageDecodeError(name, "not a depth image", "name a topic with compressedDepth or 16-bit png images")
        return values
    if encoding not in ("16UC1", "32FC1"):
        raise ImageDecodeError(name, f"depth of encoding {encoding!r} is not supported", "publish 16UC1 or 32FC1")
    if len(data) <= _DEPTH_HEADER.size:
        raise ImageDecodeError(name, f"the data has {len(data)} bytes", "the message was cut: check the recording")
    _, a, b = _DEPTH_HEADER.unpack_from(data)
    body = data[_DEPTH_HEADER.size :]
    values = _decode_rvl(body, name) if "rvl" in name.lower() else decode_file(body, name)
    if values.ndim != 2 or values.dtype != np.uint16:
        raise ImageDecodeError(name, f"the depth is {values.dtype} {values.shape}", "it must be 16-bit grey")
    if encoding == "16UC1":
        return values
    if not (np.isfinite(a) and np.isfinite(b) and a > 0):
        raise ImageDecodeError(name, f"the quantisation is A={a}, B={b}", "the header is damaged: check the recording")
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        depth = np.float32(a) / (values.astype(np.float32) - np.float32(b))
    depth[values == 0] = np.nan
    return np.asarray(depth)


def _as_bytes(data: Any, name: str) -> bytes:
    try:
        return bytes(memoryview(data).cast("B")) if not isinstance(data, bytes) else data
    except (TypeError, ValueError) as error:
        raise ImageDecodeError(name, f"data is no byte buffer ({error})", "check the publisher") from None


def _png_size(data: bytes, name: str) -> tuple[int, int]:
    if len(data) < 24 or data[12:16] != b"IHDR":
        raise ImageDecodeError(name, "the png header is damaged", "check the recording")
    # OpenCV decodes a cut PNG without an error; its last chunk must be there.
    if b"IEND" not in data[-64:]:
        raise ImageDecodeError(name, "the png data has no end", "the message was cut: check the recording")
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _jpeg_size(data: bytes, name: str) -> tuple[int, int]:
    """Walk the marker segments to the frame header (ITU T.81, B.1 and B.2.2)."""
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        if marker in (0x01, *range(0xD0, 0xD8)):  # no length follows
            at += 2
            continue
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    raise ImageDecodeError(name, "the jpeg header is damaged", "check the recording")


def _decode_rvl(data: bytes, name: str) -> NDArray[np.uint16]:
    """RVL (Wilson, "Fast Lossless Depth Image Compression", ISS 2017): runs of zeros and of deltas in 4-bit groups."""
    if len(data) < 8:
        raise ImageDecodeError(name, "the rvl data is too short", "the message was cut: check the recording")
    width, height = struct.unpack_from("<II", data)
    total = width * height
    if min(width, height) == 0 or max(width, height) > MAX_SIDE or total > MAX_PIXELS:
        raise ImageDecodeError(name, f"the size is {width} x {height}", f"1 to {MAX_SIDE} pixels a side are read")
    words = np.frombuffer(data, "<u4", (len(data) - 8) // 4, 8)
    nibbles = ((words[:, None] >> np.arange(28, -1, -4, dtype=np.uint32)) & 0xF).ravel().astype(np.int64)
    last = np.flatnonzero(nibbles < 8)  # bit 3 says that the number goes on
    if last.size == 0:
        raise ImageDecodeError(name, "the rvl data is damaged", "check the recording")
    first = np.concatenate(([0], last[:-1] + 1))
    place = np.arange(last[-1] + 1) - np.repeat(first, last - first + 1)
    numbers = np.add.reduceat((nibbles[: last[-1] + 1] & 7) << np.minimum(3 * place, 60), first)
    at = pixel = 0
    where: list[tuple[int, int, int]] = []  # first pixel, first number, count
    while pixel < total:
        if at + 2 > numbers.size:
            break
        zeros, count = int(numbers[at]), int(numbers[at + 1])
        pixel += zeros
        at += 2
        if zeros < 0 or count < 0 or pixel + count > total or at + count > numbers.size or zeros + count == 0:
            raise ImageDecodeError(name, "the rvl data is damaged", "check the recording")
        where.append((pixel, at, count))
        pixel += count
        at += count
    if pixel != total:
        raise ImageDecodeError(name, f"the rvl data ends after {pixel} of {total} pixels", "check the recording")
    depth = np.zeros(total, np.int64)
    previous = 0
    for pixel, at, count in where:
        if count:
            coded = numbers[at : at + count]
            values = previous + np.cumsum((coded >> 1) ^ -(coded & 1))
            previous = int(values[-1])
            depth[pixel : pixel + count] = values
    if depth.min() < 0 or depth.max() > 0xFFFF:
        raise ImageDecodeError(name, "the rvl data is damaged", "check the recording")
    return depth.astype(np.uint16).reshape(height, width)
