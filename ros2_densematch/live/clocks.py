"""Whether what belongs to the images is stamped by the same clock: otherwise nothing of it meets an image."""

from __future__ import annotations

from ros2_densematch.live.topics import IMAGE

_APART_S = 1.0  # stamps that differ by more, of messages that arrive together, are of two clocks
_TOGETHER_S = 2.0  # messages that arrive within this time are compared
_AGAIN = 5  # so many in a row: one late message says nothing


class Clocks:
    """Compares the stamps of inputs with those of the images, by when they arrive."""

    def __init__(self) -> None:
        self._image: tuple[int, float] | None = None
        self._apart: dict[str, list[float]] = {}

    def heard(self, name: str, stamp_ns: int, arrival_s: float) -> None:
        """Takes a message.

        Args:
            name: input, as in `topics.SUBSCRIBED`.
            stamp_ns: its stamp.
            arrival_s: when it arrived, of any clock that does not go back.
        """
        if name == IMAGE:
            self._image = stamp_ns, arrival_s
            return
        if self._image is None or arrival_s - self._image[1] > _TOGETHER_S:
            return
        apart = (stamp_ns - self._image[0]) * 1e-9 - (arrival_s - self._image[1])
        self._apart[name] = [*self._apart.get(name, []), apart][-_AGAIN:]

    def problem(self, name: str) -> str:
        """Why an input cannot meet the images, in words with the remedy; "" where it can."""
        apart = self._apart.get(name, [])
        if len(apart) < _AGAIN or min(abs(seconds) for seconds in apart) < _APART_S:
            return ""
        middle = sorted(apart)[len(apart) // 2]
        side = "ahead of" if middle > 0 else "behind"
        return (
            f"{name} is not used: its stamps are {abs(middle):.1f} s {side} those of the images that arrive with it: "
            f"stamp both with one clock"
        )
