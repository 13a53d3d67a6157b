"""Reading ahead and writing behind a loop: one thread each, bounded queues, the order kept, errors in their place.

What the loop does stays in its own thread and sees the same items in the same order; so it gives the same results.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from queue import Empty, Full, Queue
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")

AHEAD, BEHIND = 4, 8  # items waiting at most: they hold images
_POLL_S = 0.2


class ReadAhead(Generic[T]):
    """Iterates in a thread over what is asked for later; used as a context manager.

    An error of the iteration is raised where its item would have come, after all items before it.

    Args:
        items: what to iterate over; closed in that thread when the context ends.
        depth: items waiting at most.
    """

    def __init__(self, items: Iterable[T], depth: int = AHEAD):
        self._items = items
        self._queue: Queue[tuple[str, Any]] = Queue(depth)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, name="read ahead", daemon=True)

    def __enter__(self) -> Iterator[T]:
        self._thread.start()
        return self._given()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _given(self) -> Iterator[T]:
        while True:
            kind, value = self._queue.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value

    def _read(self) -> None:
        try:
            iterator = iter(self._items)
            closer: Any = closing(iterator) if hasattr(iterator, "close") else nullcontext()
            with closer:
                for item in iterator:
                    if not self._hand("item", item):
                        return
        except BaseException as error:  # noqa: BLE001  (raised in the loop's thread)
            self._hand("error", error)
            return
        self._hand("end", None)

    def _hand(self, kind: str, value: Any) -> bool:
        """Whether it was taken into the queue; not any more once the context has ended."""
        while not self._ended.is_set():
            try:
                self._queue.put((kind, value), timeout=_POLL_S)
            except Full:
                continue
            return True
        return False


class WriteBehind(Generic[T]):
    """Calls a function for each item in a thread, in their order; used as a context manager, which waits for the rest.

    After the first error nothing more is written. It is raised by the next `put`, or when the context ends; it came
    before whatever ended the context.

    Args:
        write: called with each item.
        depth: items waiting at most.
    """

    def __init__(self, write: Callable[[T], None], depth: int = BEHIND):
        self._write = write
        self._queue: Queue[tuple[bool, Any]] = Queue(depth)
        self._error: BaseException | None = None
        self._dropped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="write behind", daemon=True)

    def put(self, item: T) -> None:
        """Hands an item over; waits while too many are waiting."""
        while self._error is None:
            try:
                self._queue.put((True, item), timeout=_POLL_S)
            except Full:
                continue
            return
        raise self._error

    def __enter__(self) -> WriteBehind[T]:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, Exception):  # a second Ctrl-C: at once
            self._dropped.set()
        while self._thread.is_alive():
            try:
                self._queue.put((False, None), timeout=_POLL_S)
            except Full:
                continue
            break
        self._thread.join()
        if self._error is not None and self._error is not error:
            raise self._error

    def _run(self) -> None:
        while True:
            try:
                more, item = self._queue.get(timeout=_POLL_S)
            except Empty:
                continue
            if not more or self._dropped.is_set():
                return
            try:
                self._write(item)
            except BaseException as error:  # noqa: BLE001  (raised in the loop's thread)
                self._error = error
                return
