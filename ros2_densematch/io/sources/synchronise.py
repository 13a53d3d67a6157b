"""Putting messages of several topics together by their time, while they stream by."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

# How long an image waits for its companions, in the time of the recording, and how many may wait at once: the bound
# on memory when a companion topic stops.
MAX_WAIT_NS = 1_000_000_000
MAX_WAITING = 30


@dataclass(frozen=True)
class Stamped:
    """A message of one of the synchronised topics; `index` is its number among those of the main topic."""

    topic: str
    stamp_ns: int
    message: Any
    index: int = -1


@dataclass
class _Companion:
    tolerance_ns: int
    recent: deque[Stamped] = field(default_factory=deque)

    def latest_ns(self) -> int | None:
        return self.recent[-1].stamp_ns if self.recent else None

    def nearest(self, stamp_ns: int) -> Any | None:
        best = min(self.recent, key=lambda item: abs(item.stamp_ns - stamp_ns), default=None)
        if best is None or abs(best.stamp_ns - stamp_ns) > self.tolerance_ns:
            return None
        return best.message

    def forget_before(self, stamp_ns: int) -> None:
        while len(self.recent) > 1 and self.recent[0].stamp_ns < stamp_ns - self.tolerance_ns:
            self.recent.popleft()
        while len(self.recent) > 2 * MAX_WAITING:
            self.recent.popleft()


def synchronise(
    stream: Iterable[Stamped], main: str, tolerances_ns: dict[str, int]
) -> Iterator[tuple[Stamped, dict[str, Any]]]:
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

    def release() -> tuple[Stamped, dict[str, Any]]:
        item = waiting.popleft()
        found = {topic: c.nearest(item.stamp_ns) for topic, c in companions.items()}
        for companion in companions.values():
            companion.forget_before(item.stamp_ns)
        return item, {topic: message for topic, message in found.items() if message is not None}

    newest = -(2**63)
    for item in stream:
        newest = max(newest, item.stamp_ns)
        if item.topic == main:
            waiting.append(item)
        else:
            companions[item.topic].recent.append(item)
        while waiting and (
            all((latest := c.latest_ns()) is not None and latest >= waiting[0].stamp_ns for c in companions.values())
            or newest > waiting[0].stamp_ns + MAX_WAIT_NS
            or len(waiting) > MAX_WAITING
        ):
            yield release()
    while waiting:
        yield release()
