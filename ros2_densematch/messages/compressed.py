"""JPEG, PNG and compressedDepth data of sensor_msgs CompressedImage."""

from __future__ import annotations

import re
import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.messages.errors import ImageDecodeError

MAX_SIDE = 16384
MAX_PIXELS = 1 << 27
_VIDEO = re.compile(r"h\.?26[45]|hevc|avc|av1|vp[89]|ffmpeg|mpeg4", re.IGNORECASE)
_NO_VIDEO = "only jpeg and png are read: record the images as jpeg, or convert the stream to a video file (mp4)"
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]", re.DOTALL)
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
        remedy = "give its topic as the depth topic (depth:= of the launch file, --depth-topic)"
        raise ImageDecodeError(name, "this is a depth image", remedy)
    data = _as_bytes(msg.data, name)
    video = _VIDEO.search(name)
    if video is not None:
        raise ImageDecodeError(name, "this is a video stream, not an image", _NO_VIDEO)
    return decode_file(data, name or "CompressedImage", file=False)


def decode_file(data: bytes, name: str, *, file: bool = True) -> NDArray[Any]:
    """As `decode_compressed`, from the bytes of a jpeg or png file; `name` is used in errors, as that of a file or of a
    message's format."""
    if data.startswith(b"\xff\xd8"):
        size, end = _walk_jpeg(data, name, file=file)
        # What follows the end marker is not the picture's: padding, the video of a motion photo.
        data = data[:end]
    elif data.startswith(_PNG_MAGIC):
        size = _png_size(data, name, file=file)
    else:
        raise ImageDecodeError(name, *_what_else(data, file=file), file=file)
    width, height = size
    if width <= 0 or height <= 0 or max(size) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ImageDecodeError(
            name,
            f"the size is {width} x {height}",
            f"1 to {MAX_SIDE} pixels a side and {MAX_PIXELS} in all are read",
            file=file,
        )
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageDecodeError(
            name, f"OpenCV cannot decode it ({error.err})", "check the recording", file=file
        ) from None
    if image is None or image.shape[:2] != (height, width) or image.dtype not in (np.uint8, np.uint16):
        raise ImageDecodeError(name, "the data is damaged", "check the recording", file=file)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim == 3 and image.shape[2] not in (3, 4):
        raise ImageDecodeError(name, f"the image has {image.shape[2]} channels", "give 1, 3 or 4 channels", file=file)
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
        values = decode_file(data, name, file=False)
        if values.ndim != 2 or values.dtype != np.uint16:
            raise ImageDecodeError(name, "not a depth image", "give a topic with compressedDepth or 16-bit png images")
        return values
    if encoding not in ("16UC1", "mono16", "32FC1"):
        raise ImageDecodeError(name, f"depth of encoding {encoding!r} is not supported", "publish 16UC1 or 32FC1")
    if len(data) <= _DEPTH_HEADER.size:
        raise ImageDecodeError(name, f"the data has {len(data)} bytes", "the message is truncated: check the recording")
    _, a, b = _DEPTH_HEADER.unpack_from(data)
    body = data[_DEPTH_HEADER.size :]
    values = _decode_rvl(body, name) if "rvl" in name.lower() else decode_file(body, name, file=False)
    if values.ndim != 2 or values.dtype != np.uint16:
        raise ImageDecodeError(name, f"the depth is {values.dtype} {values.shape}", "it must be 16-bit grey")
    if encoding != "32FC1":
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
        raise ImageDecodeError(name, f"data is not a byte buffer ({error})", "check the publisher") from None


def _what_else(data: bytes, *, file: bool) -> tuple[str, str]:
    """What data is that is neither jpeg nor png, and the way out."""
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif"):
        return "this is a HEIC or AVIF picture", "convert it to jpeg or png (heif-convert, or the phone's settings)"
    if data[:4] == b"\0\0\0\1" or data[:3] == b"\0\0\1":
        return "this is a video stream (H.264 or H.265), not an image", _NO_VIDEO
    if not data:
        if file:
            return "the file is empty", "copy or record it again"
        return "the data is empty", "check the recording"
    start = f"the data starts with {data[:8].hex(' ')}"
    return start, "only jpeg and png are read" + ("" if file else ": republish as jpeg")


def _png_size(data: bytes, name: str, *, file: bool) -> tuple[int, int]:
    """Walk the chunks to the end (PNG specification, 5.3): OpenCV decodes a cut PNG without an error."""
    if len(data) < 24 or data[12:16] != b"IHDR":
        raise ImageDecodeError(name, "the png header is damaged", "check the recording", file=file)
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if kind == b"IEND" and at <= len(data):
            width, height = struct.unpack_from(">II", data, 16)
            return width, height
    raise ImageDecodeError(name, "the png data has no end", "it is truncated: check the recording", file=file)


def _walk_jpeg(data: bytes, name: str, *, file: bool) -> tuple[tuple[int, int], int]:
    """(width, height) and where the picture ends, from its marker segments (ITU T.81, B.1 and B.2).

    A cut JPEG decodes to an image with a grey lower part, so one without its end marker is refused. Segments are
    skipped by their length: the end marker of a thumbnail in them is not the picture's.
    """
    at, size = 2, None
    while at + 2 <= len(data):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker == 0xD9:
            if size is None:
                break
            return size, at + 2
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # no length follows
            at += 2
        elif at + 4 > len(data):
            break
        else:
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 9 <= len(data):
                height, width = struct.unpack_from(">HH", data, at + 5)
                size = width, height
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
            if marker == 0xDA:
                at = _end_of_scan(data, at)
    if size is None:
        raise ImageDecodeError(name, "the jpeg header is damaged", "check the recording", file=file)
    raise ImageDecodeError(name, "the jpeg data has no end marker", "it is truncated: check the recording", file=file)


def _end_of_scan(data: bytes, at: int) -> int:
    """The next marker behind entropy-coded data: FF 00 is a stuffed byte, FF D0 to D7 are restart markers."""
    found = _MARKER.search(data, at)
    return len(data) if found is None else found.start()


def _decode_rvl(data: bytes, name: str) -> NDArray[np.uint16]:
    """RVL (Wilson, "Fast Lossless Depth Image Compression", ISS 2017): runs of zeros and of deltas in 4-bit groups."""
    if len(data) < 8:
        raise ImageDecodeError(name, "the rvl data is too short", "the message is truncated: check the recording")
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
