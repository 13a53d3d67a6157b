"""The one decoder of ROS images: strict, the same for bags and live topics.

Messages are read by attribute (`encoding`, `data`, ...), so rosbags, rclpy and ROS 1 messages all work. Whatever the
bytes are, the result is an image of the announced size or an `ImageDecodeError`; nothing else.
"""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Depth, Image
from ros2_densematch.files.exif import read_exif
from ros2_densematch.geometry.orientation import back, turned_picture
from ros2_densematch.messages.compressed import (
    MAX_PIXELS,
    MAX_SIDE,
    decode_compressed,
    decode_compressed_depth,
    decode_file,
)
from ros2_densematch.messages.errors import ImageDecodeError

__all__ = [
    "IMAGE_ENCODINGS",
    "ImageDecodeError",
    "decode_depth",
    "decode_image",
    "decode_image_bytes",
    "is_depth",
    "may_be_depth",
]


_DIRECT = {"mono8": 1, "8UC1": 1, "8UC3": 3, "rgb8": 3, "bgr8": 3, "8UC4": 4, "rgba8": 4, "bgra8": 4}
_TO_RGB = {
    "8UC3": cv2.COLOR_BGR2RGB,
    "bgr8": cv2.COLOR_BGR2RGB,
    "8UC4": cv2.COLOR_BGRA2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
}
# With 16 bits a channel: number of channels, and whether blue comes first.
_DEEP = {"mono16": (1, False), "rgb16": (3, False), "bgr16": (3, True), "rgba16": (4, False), "bgra16": (4, True)}
# OpenCV's "BayerRGGB" constants name the 2x2 block from the top-left pixel, as ROS does (its "BayerBG" ones do not).
_BAYER = {
    "bayer_rggb8": cv2.COLOR_BayerRGGB2RGB,
    "bayer_bggr8": cv2.COLOR_BayerBGGR2RGB,
    "bayer_gbrg8": cv2.COLOR_BayerGBRG2RGB,
    "bayer_grbg8": cv2.COLOR_BayerGRBG2RGB,
}
_YUV422 = {
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
    "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUY2,
    "yuyv": cv2.COLOR_YUV2RGB_YUY2,
}
_YUV420 = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}
_BAYER16 = {f"{name[:-1]}16": code for name, code in _BAYER.items()}
_DEPTH = {"16UC1": 2, "32FC1": 4}
# Some cameras send depth in millimetres as grey values: that is known where the topic is named as depth.
_NAMED_DEPTH = {**_DEPTH, "mono16": 2}
IMAGE_ENCODINGS = (*_DIRECT, *_DEEP, *_BAYER, *_BAYER16, *_YUV422, *_YUV420)


def is_depth(msg: Any) -> bool:
    """True for a depth image (16UC1 or 32FC1, raw or compressedDepth), judged by its encoding."""
    if hasattr(msg, "encoding"):
        return str(msg.encoding) in _DEPTH
    return "compressedDepth" in str(msg.format) or str(msg.format).split(";")[0].strip() in _DEPTH


def may_be_depth(msg: Any) -> bool:
    """True where 16-bit grey values may be depth in millimetres: the encoding does not tell."""
    if hasattr(msg, "encoding"):
        return str(msg.encoding) == "mono16"
    return str(msg.format).split(";")[0].strip() == "mono16"


def decode_image(msg: Any) -> Image:
    """The picture of a sensor_msgs Image or CompressedImage.

    Args:
        msg: Image with one of `IMAGE_ENCODINGS`, or CompressedImage with jpeg or png.

    Returns:
        uint8, RGB (H, W, 3) or grey (H, W), always a copy. `8UC3` is taken as BGR, OpenCV's order. Alpha is dropped;
        16-bit grey is normalised by local contrast, so that 10, 12 and 14-bit cameras and thermal imagers keep theirs;
        16-bit colour is stretched from its 0.5 and 99.5 percentiles to 0..255.

    Raises:
        ImageDecodeError: the message's header contradicts its payload or its encoding is not supported.
    """
    if not hasattr(msg, "encoding"):
        return uint8_rgb(decode_compressed(msg))
    encoding = str(msg.encoding)
    if encoding in _DEPTH:
        raise ImageDecodeError(
            encoding,
            "this is a depth image",
            "give its topic as the depth topic (depth:= of the launch file, --depth-topic); 16-bit grey images are "
            "mono16",
        )
    if encoding in _DIRECT:
        channels = _DIRECT[encoding]
        rows = _rows(msg, encoding, channels)
        if channels == 1:
            return np.array(rows)
        pixels = rows.reshape(rows.shape[0], -1, channels)
        if encoding == "rgb8":
            return np.array(pixels)
        return _rgb(cv2.cvtColor(pixels, _TO_RGB[encoding]))
    if encoding in _DEEP:
        channels, blue_first = _DEEP[encoding]
        values = _rows(msg, encoding, 2 * channels).copy().view(_type(msg, "u2"))
        if channels == 1:
            return _local_contrast(values)
        values = values.reshape(values.shape[0], -1, channels)
        return _stretch(values[:, :, 2::-1] if blue_first else values[:, :, :3])
    if encoding in _BAYER16:
        values = _rows(msg, encoding, 2).copy().view(_type(msg, "u2")).astype(np.uint16)
        _need_even(msg, encoding)
        return _stretch(np.asarray(cv2.cvtColor(values, _BAYER16[encoding])))
    if encoding in _BAYER:
        rows = _rows(msg, encoding, 1)
        _need_even(msg, encoding)
        return _rgb(cv2.cvtColor(rows.copy(), _BAYER[encoding]))
    if encoding in _YUV422:
        rows = _rows(msg, encoding, 2)
        _need_even(msg, encoding, height=False)
        return _rgb(cv2.cvtColor(rows.reshape(rows.shape[0], -1, 2), _YUV422[encoding]))
    if encoding in _YUV420:
        # One plane of luma, then half as many rows of interleaved chroma.
        rows = _rows(msg, encoding, 1, planes=(3, 2))
        _need_even(msg, encoding)
        return _rgb(cv2.cvtColor(rows.copy(), _YUV420[encoding]))
    raise ImageDecodeError(
        encoding, "encoding not supported", f"republish as one of {', '.join(IMAGE_ENCODINGS)}, jpeg or png"
    )


def decode_image_bytes(data: bytes, name: str) -> Image:
    """An image file's bytes as `decode_image` gives a message's: jpeg, png, and what else OpenCV reads.

    Args:
        data: the whole file.
        name: its name, for errors.

    Returns:
        The pixels as they are stored: an EXIF orientation is not applied.

    Raises:
        ImageDecodeError: the data is damaged or no image.
    """
    if data.startswith((b"\xff\xd8", b"\x89PNG")):
        return uint8_rgb(decode_file(data, name))
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    except cv2.error:
        image = None
    if image is None or image.dtype not in (np.uint8, np.uint16) or (image.ndim == 3 and image.shape[2] not in (3, 4)):
        if image is None and (b"ftyp" in data[:12] or not data):
            decode_file(data, name)  # says what it is
        what = "this is not an image" if image is None else "the image has neither 8 nor 16 bits a channel"
        raise ImageDecodeError(name, what, "give png, jpeg, bmp, tiff, webp or pgm files", file=True)
    return uint8_rgb(_as_stored(np.asarray(image), data))


def _as_stored(image: NDArray[Any], data: bytes) -> NDArray[Any]:
    """OpenCV turns TIFF files by their orientation, whatever it is told; here pixels are those that are stored."""
    if not data.startswith((b"II", b"MM")):
        return image
    return turned_picture(image, back(read_exif(io.BytesIO(data)).orientation))


def decode_depth(msg: Any) -> Depth:
    """The depth map of a sensor_msgs Image or CompressedImage.

    Args:
        msg: Image 16UC1 or mono16 (millimetres, REP 118) or 32FC1 (metres), or CompressedImage compressedDepth of these
            (png or rvl), or png with 16 bits.

    Returns:
        float32 (H, W), metres along the optical axis; NaN = unknown (0, negative, infinite or NaN in the message).

    Raises:
        ImageDecodeError: the message's header contradicts its payload or is no depth image.
    """
    if not hasattr(msg, "encoding"):
        return _metres(decode_compressed_depth(msg))
    encoding = str(msg.encoding)
    if encoding not in _NAMED_DEPTH:
        raise ImageDecodeError(encoding, "not a depth image", "give a topic with 16UC1 (mm) or 32FC1 (m) images")
    rows = _rows(msg, encoding, _NAMED_DEPTH[encoding]).copy()
    return _metres(rows.view(_type(msg, "f4" if encoding == "32FC1" else "u2")))


def _metres(values: NDArray[Any]) -> Depth:
    with np.errstate(invalid="ignore", over="ignore"):
        depth = values.astype(np.float32)
        if values.dtype.kind == "u":
            depth *= np.float32(0.001)
        depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
    return depth


def _type(msg: Any, code: str) -> np.dtype[Any]:
    if msg.is_bigendian not in (0, 1):
        raise ImageDecodeError(str(msg.encoding), f"is_bigendian is {msg.is_bigendian}", "it must be 0 or 1")
    return np.dtype((">" if msg.is_bigendian else "<") + code)


def _bytes(data: Any, encoding: str) -> NDArray[np.uint8]:
    try:
        array = np.frombuffer(data, np.uint8) if not isinstance(data, np.ndarray) else data
    except (TypeError, ValueError, BufferError) as error:
        raise ImageDecodeError(encoding, f"data is not a byte buffer ({error})", "check the publisher") from None
    if array.dtype != np.uint8 or array.ndim != 1:
        raise ImageDecodeError(encoding, f"data is {array.dtype} {array.shape}", "it must be uint8[]")
    return array


def _rows(msg: Any, encoding: str, bytes_per_pixel: int, planes: tuple[int, int] = (1, 1)) -> NDArray[np.uint8]:
    """The rows without their padding, (H * planes[0] / planes[1], W * bytes_per_pixel), after all size checks."""
    try:
        width, height, step = int(msg.width), int(msg.height), int(msg.step)
    except (TypeError, ValueError) as error:
        raise ImageDecodeError(
            encoding, f"width, height or step is not a number ({error})", "check the publisher"
        ) from None
    if width <= 0 or height <= 0:
        raise ImageDecodeError(encoding, f"the size is {width} x {height}", "check the publisher: both must be above 0")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ImageDecodeError(
            encoding,
            f"the size is {width} x {height}",
            f"at most {MAX_SIDE} pixels a side and {MAX_PIXELS} in all are read: publish a smaller image",
        )
    used = width * bytes_per_pixel
    if step < used:
        raise ImageDecodeError(
            encoding, f"step is {step} for {width} pixels", f"it must be at least {used}: fix the publisher's step"
        )
    rows = height * planes[0] // planes[1]
    data = _bytes(msg.data, encoding)
    # Some drivers leave the padding of the last row out; every pixel is there, so that is accepted.
    if data.size < step * (rows - 1) + used:
        raise ImageDecodeError(
            encoding,
            f"data has {data.size} bytes for {rows} rows of {step}",
            "the message is truncated: check the publisher or the recording",
        )
    return np.lib.stride_tricks.as_strided(
        data, (rows, used), (step * data.strides[0], data.strides[0]), writeable=False
    )


def _need_even(msg: Any, encoding: str, *, height: bool = True) -> None:
    if msg.width % 2 or (height and msg.height % 2):
        raise ImageDecodeError(
            encoding, f"the size is {msg.width} x {msg.height}", "this encoding stores blocks of 2: sizes must be even"
        )


def uint8_rgb(image: NDArray[Any]) -> Image:
    """Grey (H, W) or BGR[A] (H, W, 3 or 4) as OpenCV gives it, 8 or 16 bits, as grey or RGB of 8 bits."""
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.dtype == np.uint16:
        image = _local_contrast(image) if image.ndim == 2 else _stretch(image[:, :, :3])
    if image.ndim == 2:
        return np.ascontiguousarray(image, dtype=np.uint8)
    # Several times as fast as turning the last axis round in NumPy.
    code = cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image, dtype=np.uint8), code))


def _stretch(values: NDArray[Any]) -> Image:
    low, high = np.percentile(values, (0.5, 99.5))
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255.0 / max(high - low, 1.0))
    return np.asarray(np.clip(np.rint(scaled), 0, 255), np.uint8)


def _local_contrast(values: NDArray[Any]) -> Image:
    """16-bit grey by local contrast: deviation from the mean of the surroundings over their standard deviation, which
    counts as at least six times the noise, so that noise alone stays flat. What lies far outside the rest, as a hot
    object in a thermal image, saturates and has no part in its surroundings' mean and contrast."""
    x = values.astype(np.float32)
    noise = _noise(x)
    low, middle, high = np.percentile(x, (25, 50, 75))
    usual = (np.abs(x - middle) <= max(4.0 * (high - low), 10.0 * noise)).astype(np.float32)
    sigma = max(x.shape) / 24

    def mean(of: NDArray[np.float32]) -> NDArray[np.float32]:
        blurred = cv2.GaussianBlur(of * usual, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
        weight = cv2.GaussianBlur(usual, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
        return np.asarray(blurred / np.maximum(weight, 1e-3), np.float32)

    deviation = x - mean(x - np.float32(middle)) - np.float32(middle)
    contrast = np.sqrt(np.maximum(mean(deviation * deviation), 0.0))
    scaled = 128.0 + 40.0 * deviation / np.maximum(contrast, 6.0 * noise)
    return np.asarray(np.clip(np.rint(scaled), 0, 255), np.uint8)


def _noise(x: NDArray[np.float32]) -> float:
    """Standard deviation of the noise of a grey image (H, W), by Immerkaer's operator, which edges and ramps do not
    excite (CVIU 1996); of the lower three fifths of its values, which texture does not reach. Their mean, unlike a
    median, does not jump where a camera gives every sixth or sixteenth value only."""
    if min(x.shape) < 3:
        return 0.3
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6.0
    size = np.abs(cv2.filter2D(x, -1, kernel)[1:-1, 1:-1]).ravel()
    count = max(int(0.6 * len(size)), 1)
    low = np.partition(size, count - 1)[:count]
    return max(float(low.mean()) / 0.3966, 0.3)  # 0.3966: the same mean of |N(0, 1)|


def _rgb(image: Any) -> Image:
    return np.ascontiguousarray(image, dtype=np.uint8)
