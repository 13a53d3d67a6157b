"""Approximate time synchronisation of live messages: an image and what belongs to it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from ros2_densematch.io.sources.synchronise import Pairing

MAX_WAITING = 8  # images that may wait for their companions at once
_MAX_RECENT = 60  # messages kept of each companion
_SILENT_NS = 2_000_000_000  # a companion that sent nothing for so long, while images came, is not waited for


@dataclass(frozen=True)
class Bundle:
    """An image message with the messages nearest in time of the companions that have one.

    Attributes:
        stamp_ns: of the image.
        message: the image message.
        companions: name -> message.
        arrival_ns: when the image arrived.
        number: of the image, from 0.
    """

    stamp_ns: int
    message: Any
    companions: dict[str, Any]
    arrival_ns: int
    number: int


@dataclass
class _Companion:
    tolerance_ns: int
    until_after: bool
    pairing: Pairing | None = None
    recent: deque[tuple[int, Any]] = field(default_factory=lambda: deque(maxlen=_MAX_RECENT))
    is_offered: bool = False  # somebody publishes it
    missed_ns: int | None = None  # arrival of the first image that went without it since its last message

    def heard(self) -> None:
        self.is_offered, self.missed_ns = True, None

    def take(self, stamp_ns: int, message: Any) -> None:
        if self.recent and stamp_ns < self.recent[-1][0] - 10**9:
            self.recent.clear()  # its clock was set back
        self.recent.append((stamp_ns, message))
        self.heard()
        if self.pairing is not None:
            self.pairing.message(stamp_ns)

    def release(self, stamp_ns: int, arrival_ns: int) -> tuple[int, Any] | None:
        """What goes with an image that waits no longer."""
        found = self.nearest(stamp_ns)
        if found is None and self.missed_ns is None:
            self.missed_ns = arrival_ns
        if self.pairing is not None:
            self.pairing.image(stamp_ns, found=found is not None)
        return found

    def nearest(self, stamp_ns: int) -> tuple[int, Any] | None:
        best = min(self.recent, key=lambda item: abs(item[0] - stamp_ns), default=None)
        return None if best is None or abs(best[0] - stamp_ns) > self.tolerance_ns else best

    def settled(self, stamp_ns: int, now_ns: int) -> bool:
        """Whether waiting longer cannot or need not give a better message for this time."""
        if not self.is_offered or (self.missed_ns is not None and now_ns - self.missed_ns > _SILENT_NS):
            return True
        if self.pairing is not None and not self.pairing.expected:
            return True
        if self.recent and max(stamp for stamp, _ in self.recent) >= stamp_ns:
            return True
        return not self.until_after and self.nearest(stamp_ns) is not None


class LiveSynchroniser:
    """Holds each image until its companions are there or the wait is over. Not thread-safe: one caller at a time.

    A companion that sends nothing, or has left images without it for 2 s, is not waited for; a pause in which no image
    comes either says nothing. Times `now_ns` come from any clock that does not go back.

    Args:
        wait_ns: how long an image may wait.
    """

    def __init__(self, wait_ns: int) -> None:
        self.wait_ns = wait_ns
        self._companions: dict[str, _Companion] = {}
        self._waiting: deque[Bundle] = deque()

    def expect(self, name: str, tolerance_ns: int, *, until_after: bool = False, pairs_only: bool = False) -> None:
        """Declares a companion, or changes its tolerance.

        Args:
            name: its name.
            tolerance_ns: largest difference in time to the image.
            until_after: wait for a message at or after the image's time even when one before it lies near enough
                (interpolation needs both sides).
            pairs_only: wait only while one comes with every image (`Pairing`).
        """
        known = self._companions.get(name)
        if known is None:
            self._companions[name] = _Companion(tolerance_ns, until_after, Pairing() if pairs_only else None)
        else:
            known.tolerance_ns = tolerance_ns

    def offered(self, name: str) -> None:
        """Somebody publishes this companion now: images wait for its first message too."""
        self._companions[name].heard()

    def not_offered(self) -> list[str]:
        """The companions that nobody is known to publish: no image waits for them."""
        return [name for name, companion in self._companions.items() if not companion.is_offered]

    @property
    def waiting(self) -> int:
        """Images that wait."""
        return len(self._waiting)

    def clear(self) -> int:
        """Forgets everything that waits; returns how many images that were."""
        count = len(self._waiting)
        self._waiting.clear()
        for companion in self._companions.values():
            companion.recent.clear()
        return count

    def companion(self, name: str, stamp_ns: int, message: Any, now_ns: int) -> list[Bundle]:
        """Takes a companion's message; returns the images that are complete now, oldest first."""
        self._companions[name].take(stamp_ns, message)
        return self.release(now_ns)

    def image(self, stamp_ns: int, message: Any, *, arrival_ns: int, number: int, now_ns: int) -> list[Bundle]:
        """Takes an image; returns the images that are complete now, oldest first."""
        self._waiting.append(Bundle(stamp_ns, message, {}, arrival_ns, number))
        return self.release(now_ns)

    def release(self, now_ns: int) -> list[Bundle]:
        """The images that are complete or have waited long enough, oldest first; to be called now and then."""
        ready: list[Bundle] = []
        while self._waiting:
            first = self._waiting[0]
            patient = now_ns - first.arrival_ns < self.wait_ns and len(self._waiting) <= MAX_WAITING
            if patient and not all(c.settled(first.stamp_ns, now_ns) for c in self._companions.values()):
                break
            self._waiting.popleft()
            found = {name: c.release(first.stamp_ns, first.arrival_ns) for name, c in self._companions.items()}
            messages = {name: item[1] for name, item in found.items() if item is not None}
            ready.append(Bundle(first.stamp_ns, first.message, messages, first.arrival_ns, first.number))
        return ready
