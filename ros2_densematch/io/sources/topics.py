"""Which topic of a bag is what, found by type where the user does not say it."""

from __future__ import annotations

import re
from typing import Any

from ros2_densematch.io.sources.camera_infos import CameraInfos
from ros2_densematch.io.sources.log import SourceLog
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.io.sources.records import BagError, Records
from ros2_densematch.io.sources.stamps import stamp_of
from ros2_densematch.messages.image import is_depth, may_be_depth

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
# Images and videos of other makers, which are named with the way out.
_OTHER_IMAGES = re.compile(r"(Compressed|Raw)?(Image|Video)|FFMPEGPacket|H26[45]|VideoFrame", re.IGNORECASE)
_REMEDY = "record or convert them as sensor_msgs/msg/CompressedImage (jpeg, png) or sensor_msgs/msg/Image"
_DEPTH_NAME = re.compile(r"depth|disparity|range", re.IGNORECASE)
_TRANSPORTS = ("/compressedDepth", "/compressed")
_TRUTH = re.compile(r"ground_?truth|(^|[/_])gt([/_]|$)|mocap|vicon|optitrack", re.IGNORECASE)


def image_topic(records: Records, options: SourceOptions, log: SourceLog) -> str:
    """The topic of the images: the named one; otherwise one with CameraInfo first, then in alphabetical order.

    Raises:
        BagError: there is none; the message lists the bag's topics.
    """
    if options.image_topic is not None:
        return named_topic(records, options.image_topic, IMAGE_TYPES, "--image-topic", log)
    found = [t.name for t in records.topics.values() if t.type in IMAGE_TYPES and not _holds_depth(records, t.name)]
    filled = [name for name in found if records.topics[name].count != 0]
    found = filled or ([] if records.warnings else found)
    if not found:
        raise BagError(_no_images(records))
    # 16-bit grey values may be depth; a topic's name tells more than its place in the alphabet.
    doubtful = {name for name in found if _may_hold_depth(records, name)}
    found.sort(key=lambda name: (name in doubtful, camera_info_topic(records, name) is None, name))
    if found[0] in doubtful and _DEPTH_NAME.search(found[0]):
        log.warn(
            f"{found[0]} has 16-bit grey images and a name like a depth topic: if it is depth, give it with "
            f"--depth-topic"
        )
    if len(found) > 1:
        log.note(f"images are read from {found[0]} (choose another with --image-topic: {', '.join(found[1:])})")
    else:
        log.note(f"images are read from {found[0]}")
    return found[0]


def named_topic(records: Records, name: str, types: tuple[str, ...], option: str, log: SourceLog) -> str:
    """A topic that the user named, also without its leading slash or its image transport.

    Raises:
        BagError: the bag has no such topic, or it has another type.
    """
    for candidate in (name, f"/{name}", *(f"{name}{transport}" for transport in _TRANSPORTS)):
        topic = records.topics.get(candidate)
        if topic is None:
            continue
        if topic.type not in types or topic.encoding not in ("cdr", "ros1"):
            kinds = " or ".join(types)
            encoding = "" if topic.encoding in ("cdr", "ros1") else f" in {topic.encoding or 'no'} encoding"
            remedy = f": {_REMEDY}" if types is IMAGE_TYPES and _OTHER_IMAGES.search(topic.type) else ""
            raise BagError(f"{option} {name}: the topic's type is {topic.type}{encoding}, it must be {kinds}{remedy}")
        if candidate != name:
            log.note(f"{option} {name} is read from {candidate}")
        return candidate
    raise BagError(f"{option} {name}: {records.path} has no such topic; its topics: {records.describe_topics()}")


def camera_info_topic(records: Records, image: str) -> str | None:
    """The CameraInfo that belongs to an image topic by its name: `camera_info` beside it (image_transport's rule)."""
    base = image
    for transport in _TRANSPORTS:
        base = base.removesuffix(transport)
    for candidate in (f"{base.rpartition('/')[0]}/camera_info", f"{base}/camera_info"):
        topic = records.topics.get(candidate)
        if topic is not None and topic.type == CAMERA_INFO and topic.count != 0:
            return candidate
    return None


def camera_infos(
    records: Records, image: str, frame_id: str, named: str | None, options: SourceOptions, log: SourceLog
) -> CameraInfos | str:
    """The calibrations of an image topic, read up to the first usable one, or why there is none.

    Args:
        records: the bag.
        image: the image topic.
        frame_id: the frame in its headers.
        named: the CameraInfo topic that the user named, or None.
        options: for `rectified`.
        log: takes warnings and notes.
    """
    if named is not None:
        topic: str | None = named_topic(records, named, (CAMERA_INFO,), "--camera-info-topic", log)
    else:
        topic = camera_info_topic(records, image) or _camera_info_of_frame(records, frame_id, log)
    if topic is None:
        return f"{image} has no calibration ({_other_infos(records)})"
    infos = CameraInfos(topic, image, options.rectified, log)
    passed_over = 0
    why = ""
    for record in records.read([topic]):
        try:
            message = records.decode(record)
        except BagError as error:
            why = str(error)
            continue
        if infos.add(message, stamp_of(message, record.log_time_ns)):
            if passed_over:
                log.warn(
                    f"the first {passed_over} CameraInfo on {topic} cannot be used ({why}): the first usable one, at "
                    f"{stamp_of(message, record.log_time_ns) * 1e-9:.3f} s, is used for the images before it"
                )
            infos.restart()
            return infos
        passed_over += 1
        why = infos.unusable
    if not passed_over:
        return f"{topic} contains no readable message, so {image} has no calibration"
    return f"none of the {passed_over} CameraInfo on {topic} can be used ({why})"


def _other_infos(records: Records) -> str:
    """Why no CameraInfo goes with the images."""
    named = []
    for topic in sorted(t.name for t in records.topics.values() if t.type == CAMERA_INFO):
        msg = first_message(records, topic)
        named.append(f"{topic} {'is empty' if msg is None else f'of frame {msg.header.frame_id!r}'}")
    if not named:
        return "no CameraInfo in the bag"
    return f"no CameraInfo matches its name or frame: {', '.join(named)}"


def _no_images(records: Records) -> str:
    """Why no image topic was found, with what is there instead and the way out."""
    if records.warnings:
        return (
            f"the readable part of {records.path} contains no image ({'; '.join(records.warnings)}); topics: "
            f"{records.describe_topics()}"
        )
    text = (
        f"{records.path} has no topic with images (sensor_msgs Image or CompressedImage); "
        f"its topics: {records.describe_topics()}"
    )
    depth = [t.name for t in records.topics.values() if t.type in IMAGE_TYPES and _holds_depth(records, t.name)]
    if depth:
        return (
            f"{records.path} has no image topic: {', '.join(depth)} contains depth images; its topics: "
            f"{records.describe_topics()}"
        )
    others = [t for t in records.topics.values() if t.type not in IMAGE_TYPES and _OTHER_IMAGES.search(t.type)]
    if others:
        names = ", ".join(
            f"{t.name} ({t.type}{'' if t.encoding in ('cdr', 'ros1') else ', ' + t.encoding})" for t in others
        )
        text += f". Not read: {names}: {_REMEDY}"
    return text


def ground_truth_topics(records: Records, pose_types: tuple[str, ...]) -> list[str]:
    """Topics of poses whose name says that they are true, in alphabetical order."""
    return sorted(t.name for t in records.topics.values() if t.type in pose_types and _TRUTH.search(t.name))


def first_message(records: Records, topic: str) -> Any | None:
    """The first message of a topic that can be read, or None."""
    for record in records.read([topic]):
        try:
            return records.decode(record)
        except BagError:
            continue
    return None


def _holds_depth(records: Records, topic: str) -> bool:
    if topic.endswith("/compressedDepth"):
        return True
    msg = first_message(records, topic)
    return msg is not None and is_depth(msg)


def _may_hold_depth(records: Records, topic: str) -> bool:
    msg = first_message(records, topic)
    return msg is not None and may_be_depth(msg)


def _camera_info_of_frame(records: Records, frame_id: str, log: SourceLog) -> str | None:
    """Where no name fits: the one CameraInfo of the images' frame."""
    if not frame_id:
        return None
    found = []
    for topic in sorted(t.name for t in records.topics.values() if t.type == CAMERA_INFO):
        msg = first_message(records, topic)
        if msg is not None and str(msg.header.frame_id) == frame_id:
            found.append(topic)
    if len(found) == 1:
        log.note(f"the calibration is read from {found[0]}, whose frame {frame_id} is that of the images")
        return found[0]
    return None
