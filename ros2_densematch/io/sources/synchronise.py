"""Putting messages of several topics together by their time, while they stream by."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

# How many images may wait for their companions at once: the bound on memory when a companion topic stops.
MAX_WAITING = 30
# A companion's stamp farther ahead than this says nothing about what is still to come (an outlier).
_AHEAD_NS = 2_000_000_000


@dataclass(frozen=True)
class Stamped:
    """A message of one of the synchronised topics, with its time, its time of recording, and whether its header says
    the former."""

    topic: str
    stamp_ns: int
    message: Any
    recorded_ns: int = 0
    stamped: bool = True


class Pairing:
    """Whether a message of a companion topic comes with every image, with its stamp, as far as is known: only then it
    is worth while to wait for it. A CameraInfo may be sent once, or at a rate of its own."""

    def __init__(self) -> None:
        self.expected = True
        self._images: deque[int] = deque(maxlen=2 * MAX_WAITING)

    def image(self, stamp_ns: int, *, found: bool) -> None:
        """An image is let go, with or without its message."""
        self.expected = found
        self._images.append(stamp_ns)

    def message(self, stamp_ns: int) -> None:
        """A message has come; that of an image let go before says that they come with the images, though late."""
        self.expected = self.expected or stamp_ns in self._images


@dataclass
class _Companion:
    tolerance_ns: int
    pairing: Pairing | None = None
    recent: deque[Stamped] = field(default_factory=lambda: deque(maxlen=2 * MAX_WAITING))

    def settled(self, stamp_ns: int) -> bool:
        """Whether nothing nearer to this time is to be expected."""
        if self.pairing is not None and not self.pairing.expected:
            return True
        return any(0 <= item.stamp_ns - stamp_ns <= _AHEAD_NS for item in self.recent)

    def take(self, item: Stamped) -> None:
        self.recent.append(item)
        if self.pairing is not None:
            self.pairing.message(item.stamp_ns)

    def release(self, image: Stamped) -> Stamped | None:
        """What goes with an image that waits no longer."""
        found = self.nearest(image)
        if self.pairing is not None:
            self.pairing.image(image.stamp_ns, found=found is not None)
        self.forget_before(image.stamp_ns)
        return found

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
    stream: Iterable[Stamped], main: str, tolerances_ns: dict[str, int], pairs: Collection[str] = ()
) -> Iterator[tuple[Stamped, dict[str, Stamped]]]:
    """Each message of the main topic, in its order, with the message nearest in time of every companion topic.

    Args:
        stream: messages of all these topics in the order of recording.
        main: the topic that sets the pace.
        tolerances_ns: companion topic -> largest difference in time.
        pairs: companion topics that are waited for only while one of their messages comes with every image.

    Yields:
        (main message, {companion topic: message}), without the companions that have none close enough.
    """
    companions = {
        topic: _Companion(tolerance, Pairing() if topic in pairs else None)
        for topic, tolerance in tolerances_ns.items()
    }
    waiting: deque[Stamped] = deque()

    def release() -> tuple[Stamped, dict[str, Stamped]]:
        image = waiting.popleft()
        found = {topic: companion.release(image) for topic, companion in companions.items()}
        return image, {topic: item for topic, item in found.items() if item is not None}

    for item in stream:
        if item.topic == main:
            waiting.append(item)
        else:
            companions[item.topic].take(item)
        while waiting and (
            len(waiting) > MAX_WAITING or all(c.settled(waiting[0].stamp_ns) for c in companions.values())
        ):
            yield release()
    while waiting:
        yield release()
