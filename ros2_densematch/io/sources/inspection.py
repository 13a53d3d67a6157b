"""What is in a bag: topics, clocks, gaps, calibrations, transforms and damage, from samples or from all of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import Any

from ros2_densematch.geometry.plausibility import calibration_doubts
from ros2_densematch.io.sources import topics
from ros2_densematch.io.sources.clocks import SAMPLE, offset_between
from ros2_densematch.io.sources.log import SourceLog
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.io.sources.pose_topics import TF_TYPES
from ros2_densematch.io.sources.records import BagError, Records
from ros2_densematch.io.sources.stamps import stamp_of
from ros2_densematch.io.sources.storage import open_records
from ros2_densematch.io.sources.timeline import StampLabel, TimeLine

_SAMPLED = 40  # messages of a topic in the quick form
# Gaps of so many periods are worth a line.
_GAP_PERIODS = 3.0


@dataclass(frozen=True)
class TopicFacts:
    """One topic.

    Attributes:
        name, type: as in the bag; encoding: "cdr", "ros1" or another serialisation.
        count: messages; None = not known from the index.
        looked_at: messages that the figures below are from.
        unreadable: how many of them are no messages of that type.
        rate_hz: one over the median time between two stamps; None below two stamps.
        largest_gap_s: longest time between two stamps.
        gaps: how many are longer than three periods.
        from_s, to_s: earliest and latest stamp, seconds.
        clock_offset_s: how far its stamps run ahead of the images', by the clock of the recording; None = unknown.
        without_stamp: messages whose header holds no time.
        time: what is decided about its stamps (steps of the clock, outliers, frozen stamps), one sentence each.
    """

    name: str
    type: str
    encoding: str
    count: int | None
    looked_at: int = 0
    unreadable: int = 0
    rate_hz: float | None = None
    largest_gap_s: float | None = None
    gaps: int = 0
    from_s: float | None = None
    to_s: float | None = None
    clock_offset_s: float | None = None
    without_stamp: int = 0
    time: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CalibrationFacts:
    """The calibration on one CameraInfo topic; `doubts` says why it is implausible or cannot be used."""

    topic: str
    size: tuple[int, int] | None = None
    K: list[float] | None = None
    distortion_model: str = ""
    frame_id: str = ""
    doubts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Inspection:
    """Everything that `densematch inspect` says.

    Attributes:
        path: the bag.
        full: whether all messages were read.
        image_topic: the one that a replay takes without being told, or "" with the reason in `damage`.
        topics, calibrations: in alphabetical order.
        transforms: "parent to child" of fixed ones, in the order of the bag.
        damage: what is wrong with the files, one sentence each.
    """

    path: str
    full: bool
    image_topic: str
    topics: list[TopicFacts]
    calibrations: list[CalibrationFacts]
    transforms: list[str]
    damage: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def inspect_bag(path: Path, *, full: bool = False) -> Inspection:
    """Looks at a bag.

    Args:
        path: as for a replay.
        full: read every message; otherwise the index and the first messages of each topic.

    Raises:
        BagError, FileNotFoundError: nothing can be read of it.
    """
    records = open_records(path)
    log = SourceLog()
    try:
        image = topics.image_topic(records, SourceOptions(), log)
    except BagError:
        image = ""
    reference = _times(records, image, SAMPLE) if image else []
    names = sorted(records.topics)
    facts = [_topic(records, name, reference if name != image else [], full=full) for name in names]
    kinds = {name: records.topics[name].type for name in names}
    calibrations = [_calibration(records, name) for name in names if kinds[name] == topics.CAMERA_INFO]
    return Inspection(
        str(path), full, image, facts, calibrations, _transforms(records, kinds), [*records.warnings, *log.warnings]
    )


def _times(records: Records, topic: str, most: int | None) -> list[tuple[int, int]]:
    """(stamp, time of recording) of the first messages that have a header."""
    found = []
    for record in islice(records.read([topic]), most):
        try:
            found.append((stamp_of(records.decode(record), record.log_time_ns), record.log_time_ns))
        except (BagError, AttributeError):
            continue
    return found


def _topic(records: Records, name: str, images: list[tuple[int, int]], *, full: bool) -> TopicFacts:
    topic = records.topics[name]
    line: TimeLine[int] = TimeLine()
    judged, stamps, recorded = [], [], []
    looked_at = unreadable = without = 0
    readable_kind = topic.encoding in ("cdr", "ros1")
    for record in islice(records.read([name]), None if full else _SAMPLED):
        looked_at += 1
        stamp = 0
        if readable_kind:
            try:
                stamp = stamp_of(records.decode(record), 0)
                without += stamp == 0
            except AttributeError:  # a type without a header
                pass
            except BagError:
                unreadable += 1
                continue
        stamps.append(stamp or record.log_time_ns)
        recorded.append(record.log_time_ns)
        judged += line.push(stamps[-1], record.log_time_ns, looked_at - 1)
    judged += line.finish()
    left_out = [j for j in judged if j.label is not StampLabel.USED]
    said = list(line.decisions)
    for label in dict.fromkeys(j.label for j in left_out):
        of_it = [j for j in left_out if j.label is label]
        said.append(f"{len(of_it)} {label.value}; the first: message {of_it[0].item} at {of_it[0].why}")
    used = [j.stamp_ns for j in judged if j.label is StampLabel.USED]
    steps = [b - a for a, b in pairwise(used) if b > a]
    period = median(steps) if steps else 0
    own = list(zip(stamps, recorded, strict=True))[:SAMPLE]
    return TopicFacts(
        name=name,
        type=topic.type,
        encoding=topic.encoding,
        count=looked_at if full else topic.count,
        looked_at=looked_at,
        unreadable=unreadable,
        rate_hz=1e9 / period if period else None,
        largest_gap_s=max(steps) * 1e-9 if steps else None,
        gaps=sum(step > _GAP_PERIODS * period for step in steps),
        from_s=min(used) * 1e-9 if used else None,
        to_s=max(used) * 1e-9 if used else None,
        clock_offset_s=offset_between(images, own),
        without_stamp=without,
        time=said,
    )


def _calibration(records: Records, name: str) -> CalibrationFacts:
    log = SourceLog()
    found = topics.camera_infos(records, name, "", name, SourceOptions(), log)
    if isinstance(found, str) or found.first is None:
        return CalibrationFacts(name, doubts=[str(found)])
    camera = found.first
    passed = [text for text in log.warnings if "cannot be used" in text]
    return CalibrationFacts(
        name,
        camera.size,
        [float(v) for v in camera.K.ravel()],
        camera.distortion_model,
        camera.frame_id,
        [*passed, *calibration_doubts(camera)],
    )


def _transforms(records: Records, kinds: dict[str, str]) -> list[str]:
    """The fixed transforms, without those of /tf."""
    found: list[str] = []
    names = [name for name, kind in kinds.items() if kind in TF_TYPES and name.endswith("tf_static")]
    for record in records.read(names):
        try:
            for item in records.decode(record).transforms:
                found.append(f"{str(item.header.frame_id).lstrip('/')} to {str(item.child_frame_id).lstrip('/')}")
        except BagError:
            continue
    return list(dict.fromkeys(found))
