"""What became of every input of a recording that was named or found: messages, used, and why the others were not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Account:
    """The account of one input.

    Attributes:
        role: what it is for: "images", "calibration", "depth", "right images", "odometry", "ground truth".
        name: its topic or file.
        messages: how many were read.
        used: how many images (for "images": how many of them) got something from it.
        unused: reason -> how many messages were not used because of it.
        first_ns, last_ns: the range of their stamps, or None.
        refused: why the whole input is not used; empty = it is.
        remedy: what to do when nothing of it is used.
        at_opening: its messages were all read when the source was opened.
        without_stamp: how many of its messages have no time in their header.
    """

    role: str
    name: str
    messages: int = 0
    used: int = 0
    unused: Counter[str] = field(default_factory=Counter)
    first_ns: int | None = None
    last_ns: int | None = None
    refused: str = ""
    remedy: str = ""
    at_opening: bool = False
    without_stamp: int = 0

    def seen(self, stamp_ns: int, *, stamped: bool = True) -> None:
        """One more message of this time, which its own header says, or not."""
        self.messages += 1
        self.without_stamp += not stamped
        self.first_ns = stamp_ns if self.first_ns is None else min(self.first_ns, stamp_ns)
        self.last_ns = stamp_ns if self.last_ns is None else max(self.last_ns, stamp_ns)

    def restart(self) -> None:
        """The images are read again from their start."""
        self.used = 0
        if self.at_opening:
            return
        self.messages = self.without_stamp = 0
        self.unused.clear()
        self.first_ns = self.last_ns = None

    def note(self) -> str:
        """What was decided about messages without a stamp; empty where all have one."""
        if not self.without_stamp:
            return ""
        return (
            f"{self.role}: {self.without_stamp} of {self.messages} messages on {self.name} have no stamp: their "
            f"recording times are used"
        )

    def facts(self) -> dict[str, Any]:
        """The entry of this input in summary.json."""
        return {
            "role": self.role,
            "name": self.name,
            "messages": self.messages,
            "used": self.used,
            "unused": [f"{count} {reason}" for reason, count in self.unused.most_common()],
            "from_s": None if self.first_ns is None else self.first_ns * 1e-9,
            "to_s": None if self.last_ns is None else self.last_ns * 1e-9,
            "refused": self.refused,
        }

    def problem(self, images: Account) -> str:
        """Why nothing of it is used, in one sentence; empty when something is, or when there was no image either."""
        if self.refused:
            return f"{self.role}: {self.refused}"
        if self.used or not images.used:
            return ""
        if not self.messages:
            return f"{self.role}: {self.name} contains no message in this part of the recording: not used"
        reasons = [f"{count} {reason}" for reason, count in self.unused.most_common()]
        if images.first_ns is not None and images.last_ns is not None and self._apart(images):
            reasons = [f"its times ({self._range()}) do not overlap those of the images ({images._range()})"]
        why = ", ".join(reasons) or "none is close enough in time to an image"
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.role}: no message on {self.name} is used ({self.messages} read): {why}{remedy}"

    def _apart(self, images: Account) -> bool:
        if None in (self.first_ns, self.last_ns, images.first_ns, images.last_ns):
            return False
        assert self.first_ns is not None and self.last_ns is not None  # noqa: PT018 - for the type checker
        assert images.first_ns is not None and images.last_ns is not None  # noqa: PT018
        return self.first_ns > images.last_ns or self.last_ns < images.first_ns

    def _range(self) -> str:
        assert self.first_ns is not None and self.last_ns is not None  # noqa: PT018
        return f"{self.first_ns * 1e-9:.3f} to {self.last_ns * 1e-9:.3f} s"
