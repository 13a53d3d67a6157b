"""Time stamps out of the names of image files: the unit, from seconds to nanoseconds, is told by plausibility."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ros2_densematch.io.sources.stamps import MAX_STAMP_NS

_UNITS = {"seconds": 10**9, "milliseconds": 10**6, "microseconds": 10**3, "nanoseconds": 1}
# Cameras with clocks have recorded from 1990 on, and stamps end in 2038.
_EARLIEST_NS = 631_152_000 * 10**9
# One number with enough digits, with or without decimals, and the same text before and behind it in all names.
_NAME = re.compile(r"(\D*?)(\d{9,19})(?:\.(\d{1,9}))?(\D*)")
_CLOCK_NS = re.compile(r"\d{16,19}")


def stamps_from_names(stems: Sequence[str]) -> tuple[list[int], str] | None:
    """The stamps of image files in nanoseconds and the unit of their names, or None where the names are no times.

    All names must be one number of the same unit, as `1403636579763555584` (EuRoC, nanoseconds), `1399381446204705`
    (RobotCar, microseconds), `1305031102.175304` (TUM, seconds) or `left_1403636579763`. The unit is the one that puts
    the times between 1990 and 2038. Whole numbers of 16 to 19 digits that no unit puts there are nanoseconds of another
    clock (time since a start).

    Args:
        stems: file names without folder and suffix.
    """
    matches = [_NAME.fullmatch(stem) for stem in stems]
    found = [match for match in matches if match is not None]
    if not found or len(found) != len(matches) or len({(match[1], match[4]) for match in found}) != 1:
        return None
    for unit, factor in _UNITS.items():
        stamps = [_scaled(match[2], match[3] or "", factor) for match in found]
        if all(_EARLIEST_NS <= stamp < MAX_STAMP_NS for stamp in stamps):
            return stamps, unit
    plain = all(_CLOCK_NS.fullmatch(match[2]) and match[3] is None for match in found)
    stamps = [int(match[2]) for match in found]
    return (stamps, "nanoseconds") if plain and max(stamps) < MAX_STAMP_NS else None


def _scaled(whole: str, decimals: str, factor: int) -> int:
    """Nanoseconds of a number, exactly."""
    return int(whole) * factor + int(decimals.ljust(9, "0")) * factor // 10**9
