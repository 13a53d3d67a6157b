"""Putting messages of several topics together by their time, while they stream by."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

# How many images may wait for their companions at once: the bound on memory when a companion topic stops.
MAX_WAITING = 30
# A companion's stamp farther ahead than this says nothing about what is still to come (an outlier).
_AHEAD_NS = 2_000_000_000


@dataclass(frozen=True)
class Stamped:
    """A message of one of the synchronised topics, with its stamp and its time of recording."""

    topic: str
    stamp_ns: int
    message: Any
    recorded_ns: int = 0


@dataclass
class _Companion:
    tolerance_ns: int
    recent: deque[Stamped] = field(default_factory=lambda: deque(maxlen=2 * MAX_WAITING))

    def settled(self, stamp_ns: int) -> bool:
        """Whether nothing nearer to this time is to be expected."""
        return any(0 <= item.stamp_ns - stamp_ns <= _AHEAD_NS for item in self.recent)

    def nearest(self, image: Stamped) -> Stamped | None:
        """The nearest in time; of several, as in a bag played in a loop, the one recorded nearest to the image."""

        def distance(item: Stamped) -> tuple[int, int]:
            return abs(item.stamp_ns - image.stamp_ns), abs(item.recorded_ns - image.recorded_ns)

        best = min(self.recent, key=distance, default=None)
        return None if best is None or distance(best)[0] > self.tolerance_ns else best

    def forget_before(self, stamp_ns: int) -> None:
        while len(self.recent) > 1 and self.recent[0].stamp_ns < stamp_ns - self.tolerance_ns:
            self.recent.popleft()


def synchronise(
    stream: Iterable[Stamped], main: str, tolerances_ns: dict[str, int]
) -> Iterator[tuple[Stamped, dict[str, Stamped]]]:
    """Each message of the main topic, in its order, with the message nearest in time of every companion topic.

    Args:
        stream: messages of all these topics in the order of recording.
        main: the topic that sets the pace.
        tolerances_ns: companion topic -> largest difference in time.

    Yields:
        (main message, {companion topic: message}), without the companions that have none close enough.
    """
    companions = {topic: _Companion(tolerance) for topic, tolerance in tolerances_ns.items()}
    waiting: deque[Stamped] = deque()

    def release() -> tuple[Stamped, dict[str, Stamped]]:
        image = waiting.popleft()
        found = {topic: companion.nearest(image) for topic, companion in companions.items()}
        for companion in companions.values():
            companion.forget_before(image.stamp_ns)
        return image, {topic: item for topic, item in found.items() if item is not None}

    for item in stream:
        if item.topic == main:
            waiting.append(item)
        else:
            companions[item.topic].recent.append(item)
        while waiting and (
            len(waiting) > MAX_WAITING or all(c.settled(waiting[0].stamp_ns) for c in companions.values())
        ):
            yield release()
    while waiting:
        yield release()
