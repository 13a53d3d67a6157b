"""What became of every image, counted; nothing disappears without a reason."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

_RATE_S = 5.0  # rates are those of the last seconds
_RATE_IMAGES = 2000
_KINDS = 50  # kinds of faults told apart, so that a stream of ever new ones cannot fill the memory


class Drop(str, Enum):
    """Why an image was not tracked. The value is the name in /diagnostics."""

    LOST = "lost_before_the_node"
    """The publisher sent it but it never arrived: the network lost it, or a newer one replaced it in the queue."""
    REPLACED = "replaced_by_a_newer_image"
    """A newer image arrived while this one waited: the matcher is slower than the camera."""
    MALFORMED = "could_not_be_decoded"
    """The message's header contradicts its payload, or its encoding is not supported."""
    OUT_OF_ORDER = "stamp_not_after_the_one_before"
    """Its stamp is not after the previous image's."""
    TOO_OLD = "older_than_max_image_age_s"
    """It was older than max_image_age_s when it arrived."""
    DISABLED = "disabled"
    """~/enable had switched the matcher off."""
    UNSUITABLE = "could_not_be_used"
    """It is too small, or differs in size from the mask."""
    FAILED = "failed"
    """The matcher raised an error, for example because GPU memory was short."""
    STOPPED = "left_at_shutdown"
    """It was waiting when the node was deactivated."""


@dataclass(frozen=True)
class Snapshot:
    """The counts at one moment.

    Attributes:
        received: images that arrived, including dropped ones, without LOST.
        processed: images that the tracker answered for.
        drops: number by reason, those above 0.
        first: the first case of each reason, in words.
        last: the latest case of each reason, in words.
        input_hz, output_hz: images that arrived and that were processed a second, over the last seconds.
        failures_in_a_row: FAILED since the last processed image.
    """

    received: int = 0
    processed: int = 0
    drops: dict[Drop, int] = field(default_factory=dict)
    first: dict[Drop, str] = field(default_factory=dict)
    last: dict[Drop, str] = field(default_factory=dict)
    input_hz: float = 0.0
    output_hz: float = 0.0
    failures_in_a_row: int = 0

    @property
    def dropped(self) -> int:
        """All images that were not processed."""
        return sum(self.drops.values())

    @property
    def refused(self) -> int:
        """Of the dropped ones, those that could not be decoded or used, or whose stamp went back."""
        return sum(self.drops.get(why, 0) for why in (Drop.MALFORMED, Drop.OUT_OF_ORDER, Drop.UNSUITABLE))


class Counters:
    """Counts from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arrivals: deque[int] = deque(maxlen=_RATE_IMAGES)
        self._answers: deque[int] = deque(maxlen=_RATE_IMAGES)
        self._received = self._processed = self._failures = 0
        self._drops: dict[Drop, int] = {}
        self._first: dict[Drop, str] = {}
        self._last: dict[Drop, str] = {}
        self._kinds: set[tuple[Drop, str]] = set()

    def receive(self, now_ns: int) -> int:
        """Counts an image that arrived; returns its number, from 0."""
        with self._lock:
            self._received += 1
            self._arrivals.append(now_ns)
            return self._received - 1

    def drop(self, why: Drop, detail: str = "", count: int = 1) -> bool:
        """Counts images that are not tracked; True when it is the first case of this reason, or the first of its kind:
        two cases are of one kind when only numbers outside quotation marks differ."""
        kind = (why, re.sub(r"'[^']*'|\d+", lambda found: found[0] if found[0][0] == "'" else "#", detail))
        with self._lock:
            self._drops[why] = self._drops.get(why, 0) + count
            self._first.setdefault(why, detail)
            self._last[why] = detail
            if why is Drop.FAILED:
                self._failures += 1
            first = self._drops[why] == count
            fresh = kind not in self._kinds and len(self._kinds) < _KINDS
            if fresh:
                self._kinds.add(kind)
            return first or fresh

    def process(self, now_ns: int) -> None:
        """Counts an image that the tracker answered for."""
        with self._lock:
            self._answers.append(now_ns)
            self._processed += 1
            self._failures = 0

    def snapshot(self, now_ns: int | None = None) -> Snapshot:
        """The counts now; `now_ns` is the time that `receive` and `process` are told, default `time.time_ns()`."""
        now = time.time_ns() if now_ns is None else now_ns
        with self._lock:
            return Snapshot(
                received=self._received,
                processed=self._processed,
                drops=dict(self._drops),
                first=dict(self._first),
                last=dict(self._last),
                input_hz=_rate(self._arrivals, now),
                output_hz=_rate(self._answers, now),
                failures_in_a_row=self._failures,
            )


def _rate(times_ns: Sequence[int], now_ns: int) -> float:
    """Events a second over the last `_RATE_S` seconds; 0 where nothing came in that time."""
    recent = [t for t in times_ns if 0 <= now_ns - t <= _RATE_S * 1e9]
    if len(recent) < 2:
        return 0.0
    # an interval without an event counts once it is longer than those between the events
    span = max(recent[-1] - recent[0], (now_ns - recent[0]) * (len(recent) - 1) // len(recent))
    return 1e9 * (len(recent) - 1) / span if span > 0 else 0.0


class SequenceGaps:
    """Finds gaps in the numbers that a publisher's messages carry.

    DDS numbers the messages of each publisher. A number below the last one is another publisher (or the same one,
    started again); a jump that would mean more than `LIMIT` messages is taken as one too.
    """

    LIMIT = 10_000

    def __init__(self) -> None:
        self._last: int | None = None

    def missed(self, number: int | None) -> int:
        """How many messages are missing before this one; `number` None or 0: the middleware does not tell."""
        if not number or number >= 2**63:
            return 0
        last, self._last = self._last, number
        if last is None or number <= last or number - last > self.LIMIT:
            return 0
        return number - last - 1
