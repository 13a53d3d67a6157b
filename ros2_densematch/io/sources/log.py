"""What a source has to say: warnings, notes and counts."""

from __future__ import annotations

from collections.abc import Collection


class SourceLog:
    """Warnings and notes of a source. Events that repeat are counted and their first case is named."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.frames_dropped = 0
        self._warnings: list[str] = []
        self._events: dict[str, tuple[int, str]] = {}
        self._at_opening: dict[str, tuple[int, str]] | None = None

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def warn(self, text: str) -> None:
        if text not in self._warnings:
            self._warnings.append(text)

    def count(self, kind: str, detail: str) -> None:
        """One more event of this kind (a sentence's end, as "frames could not be decoded")."""
        number, first = self._events.get(kind, (0, detail))
        self._events[kind] = (number + 1, first)

    def drop_frame(self, kind: str, detail: str) -> None:
        self.frames_dropped += 1
        self.count(kind, detail)

    def restart(self) -> None:
        """The frames are read (again) from their start: forget what was counted while reading, not while opening."""
        if self._at_opening is None:
            self._at_opening = dict(self._events)
        self.frames_dropped = 0
        self._events = dict(self._at_opening)

    def unsaid(self, said: set[str], elsewhere: Collection[str] = ()) -> list[str]:
        """Warnings and the first event of each kind that were not said before.

        Args:
            said: what was said before; takes what is returned.
            elsewhere: lines that are said by somebody else; an event that stands in one of them is not returned.
        """
        lines = [(text, text) for text in self._warnings]
        lines += [(f"{kind}; the first: {first}", first) for kind, (_, first) in list(self._events.items())]
        fresh = [(line, event) for line, event in lines if line not in said]
        said.update(line for line, _ in fresh)
        return [line for line, event in fresh if not any(event in other for other in elsewhere)]

    @property
    def warnings(self) -> list[str]:
        return self._warnings + [f"{n} {kind}; the first: {first}" for kind, (n, first) in list(self._events.items())]
