"""Time stamps out of the names of image files: the unit, from seconds to nanoseconds, is told by plausibility."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise
from statistics import median

from ros2_densematch.io.sources.stamps import MAX_STAMP_NS

_UNITS = {"seconds": 10**9, "milliseconds": 10**6, "microseconds": 10**3, "nanoseconds": 1}
# Cameras with clocks have recorded from 1990 on, and stamps end in 2038.
_EARLIEST_NS = 631_152_000 * 10**9
# Numbers of a clock that counts from another origin: cameras take 500 pictures a second to one in two seconds.
_STEPS_NS = 2_000_000, 2_000_000_000
_FARTHEST_NS = 3_600_000_000_000  # pictures farther apart on average are no sequence where another unit makes it one
_CLOCK_DIGITS = 9
_POINT = re.compile(r"[._-]")
_DATE = re.compile(
    r"(?<!\d)((?:19|20)\d\d)[-_.]?(0[1-9]|1[0-2])[-_.]?([0-2]\d|3[01])[-_.T ]?"
    r"([01]\d|2[0-3])[-_.:]?([0-5]\d)[-_.:]?([0-5]\d)(?:[-_.]?(\d{1,9}))?(?!\d)"
)


@dataclass(frozen=True)
class NamedTimes:
    """The times that the names of image files say.

    Attributes:
        stamps_ns: of each file, in the order of the names; None for those whose name is of another form.
        unit: how the names say it, in words.
        numbered: whether the names count their files as well, before the time: then that is their order.
    """

    stamps_ns: list[int | None]
    unit: str
    numbered: bool = False


def stamps_from_names(stems: Sequence[str]) -> NamedTimes | None:
    """The times of image files, or None where their names are no times.

    Names of one form are compared: the same text around the same number of numbers, as `1403636579763555584` (EuRoC,
    nanoseconds), `1399381446204705` (RobotCar, microseconds), `1305031102.175304` (TUM, seconds),
    `cam0_1700000000_100000000` or `000012_1700000000100`. The unit is the one that puts the times between 1990 and
    2038; each name may have its own. Dates (`20240131_154501_123`) are taken as UTC. Larger numbers that no unit puts
    there are times of another clock where their steps are those of a camera in micro- or nanoseconds.
    More than half of the names must be of that form; the others have no time.

    Args:
        stems: file names without folder and suffix.
    """
    for read in (_dates, _numbers):
        found = _of_most(stems, read)
        if found is not None:
            return found
    return None


def kinds_of_names(stems: Sequence[str]) -> list[str]:
    """The texts around the numbers, where several forms of names each say times, as `left_` and `right_` do."""
    groups = defaultdict(list)
    for stem in stems:
        groups[_text(stem)].append(stem)
    return [text for text, group in groups.items() if len(group) > 1 and _numbers(group) is not None]


_Read = Callable[[Sequence[str]], "tuple[list[int], str, bool] | None"]


def _of_most(stems: Sequence[str], read: _Read) -> NamedTimes | None:
    """The times of the largest group of names of one form, where it is more than half of all."""
    groups = defaultdict(list)
    for i, stem in enumerate(stems):
        groups[_text(stem) if read is _numbers else bool(_DATE.search(stem))].append(i)
    chosen = max(groups.values(), key=len, default=[])
    if 2 * len(chosen) <= len(stems):
        return None
    found = read([stems[i] for i in chosen])
    if found is None:
        return None
    stamps: list[int | None] = [None] * len(stems)
    for i, stamp in zip(chosen, found[0], strict=True):
        stamps[i] = stamp
    return NamedTimes(stamps, *found[1:])


def _text(stem: str) -> str:
    return re.sub(r"\d+", "0", stem)


def _dates(stems: Sequence[str]) -> tuple[list[int], str, bool] | None:
    stamps = []
    for stem in stems:
        match = _DATE.search(stem)
        if match is None:
            return None
        *parts, decimals = match.groups()
        try:
            seconds = int(datetime(*(int(part) for part in parts), tzinfo=timezone.utc).timestamp())  # type: ignore[misc, arg-type]
        except ValueError:  # the 31st of February
            return None
        stamps.append(seconds * 10**9 + int((decimals or "").ljust(9, "0")))
    # Without decimals several pictures of one second cannot be told apart.
    return (stamps, "dates (UTC)", False) if len(set(stamps)) == len(stamps) else None


def _numbers(stems: Sequence[str]) -> tuple[list[int], str, bool] | None:
    """The times of names of one form, from the one of their numbers that says times."""
    rows = [re.findall(r"\d+|\D+", stem) for stem in stems]
    for place, word in enumerate(rows[0]):
        if not word.isdigit():
            continue
        wholes = [row[place] for row in rows]
        decimals = _decimals(rows, place)
        found, other = _by_calendar(wholes, decimals), _by_steps(wholes)
        if other is not None and (found is None or _step(found[0]) > _FARTHEST_NS):
            found = other
        if found is not None:
            numbered = any(len({row[i] for row in rows}) > 1 for i in range(place) if rows[0][i].isdigit())
            return *found, numbered
    return None


def _decimals(rows: list[list[str]], place: int) -> list[list[str]]:
    """What may stand behind the point of the seconds: fractions as written, and counts of nano- or microseconds whose
    leading zeros are missing."""
    if any(len(row) < place + 3 or not _POINT.fullmatch(row[place + 1]) for row in rows):
        return [[""] * len(rows)]
    written = [row[place + 2] for row in rows]
    longest = max(map(len, written))
    if longest > 9:
        return [[""] * len(rows)]
    ways = [written]
    if longest in (6, 9) and min(map(len, written)) < longest:
        ways.append([text.rjust(longest, "0") for text in written])
    return ways


def _by_calendar(wholes: list[str], decimals: list[list[str]]) -> tuple[list[int], str] | None:
    """The times between 1990 and 2038; of several readings of the decimals, the one of the most even steps."""
    factors = [_factor(whole) for whole in wholes]
    if None in factors:
        return None
    units = list(dict.fromkeys(unit for unit, factor in _UNITS.items() if factor in factors))
    if units != ["seconds"]:
        decimals = [[""] * len(wholes)]
    readings = [
        [
            int(whole) * factor + int(text.ljust(9, "0")) * factor // 10**9
            for whole, factor, text in zip(wholes, factors, way, strict=True)
            if factor is not None
        ]
        for way in decimals
    ]
    return min(readings, key=_unevenness), " and ".join(units)


def _factor(whole: str) -> int | None:
    """Nanoseconds in the unit that puts a number between 1990 and 2038."""
    if len(whole) > 19:
        return None
    return next((f for f in _UNITS.values() if _EARLIEST_NS <= int(whole) * f < MAX_STAMP_NS), None)


def _by_steps(wholes: list[str]) -> tuple[list[int], str] | None:
    """Times of a clock that counts from another origin, where one unit makes their steps those of a camera.

    Frame numbers have steps too small for that; zeros in front are theirs, but for the 19 digits of nanoseconds.
    """
    if any(not _CLOCK_DIGITS <= len(whole) <= 19 or (whole[0] == "0" and len(whole) < 19) for whole in wholes):
        return None
    values = [int(whole) for whole in wholes]
    for unit in ("nanoseconds", "microseconds"):
        stamps = [value * _UNITS[unit] for value in values]
        if _STEPS_NS[0] <= _step(stamps) < _STEPS_NS[1] and max(stamps) < MAX_STAMP_NS:
            return stamps, f"{unit} of a clock of its own"
    return None


def _step(stamps: list[int]) -> float:
    """The usual time between two pictures in nanoseconds; 0 where there is one only."""
    return median([b - a for a, b in pairwise(sorted(stamps))] or [0])


def _unevenness(stamps: list[int]) -> float:
    """How much the steps differ, relative to their mean."""
    steps = [abs(b - a) for a, b in pairwise(stamps)]
    return max(steps, default=0) / max(sum(steps) / max(len(steps), 1), 1.0)
