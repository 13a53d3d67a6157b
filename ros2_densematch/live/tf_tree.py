"""Whether our transforms may be sent: a frame has one parent, and a transform has one author (REP 105)."""

from __future__ import annotations

import threading
from collections import deque

_REMEMBERED = 400  # of our own transforms, by their stamps


class Authorship:
    """Watches /tf and /tf_static for others that place a frame which we place. Heard in one thread, sent in another.

    Args:
        option: the parameter that asks for our transform, for messages.
        remedy: what to do when it is refused.
    """

    def __init__(self, option: str, remedy: str) -> None:
        self._option, self._remedy = option, remedy
        self._lock = threading.Lock()
        self._parents: dict[str, dict[str, str]] = {}  # child -> parent -> topic
        self._own: deque[tuple[str, str, int]] = deque(maxlen=_REMEMBERED)
        self.refused = ""  # why our transform is not sent any more; it stays so until the node is activated again

    def heard(self, parent: str, child: str, stamp_ns: int, topic: str) -> None:
        """Takes a transform of /tf or /tf_static."""
        parent, child = parent.lstrip("/"), child.lstrip("/")
        with self._lock:
            if (parent, child, stamp_ns) not in self._own:
                self._parents.setdefault(child, {})[parent] = topic

    def sent(self, parent: str, child: str, stamp_ns: int) -> None:
        """Notes one of our own, which comes back on /tf."""
        with self._lock:
            self._own.append((parent.lstrip("/"), child.lstrip("/"), stamp_ns))

    def may_send(self, parent: str, child: str) -> bool:
        """Whether our transform may be sent; once refused it stays refused, and `refused` says why."""
        if not self.refused:
            self.refused = self._conflict(parent.lstrip("/"), child.lstrip("/"))
        return not self.refused

    def _conflict(self, parent: str, child: str) -> str:
        with self._lock:
            others = dict(self._parents.get(child, {}))
        if not others:
            return ""
        other, topic = min(others.items())
        what = f"{child} already has the parent {other} on {topic}; a second parent, {parent}, would break the tree"
        if other == parent:
            what = f"another node already publishes {parent} -> {child} on {topic}"
        return f"{self._option} is refused: {what}; {self._remedy}"
