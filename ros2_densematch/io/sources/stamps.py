"""Times of images and messages, in nanoseconds."""

from __future__ import annotations

from typing import Any

# Message stamps hold seconds in 32 bits with a sign.
MAX_STAMP_NS = 2**31 * 10**9


def stamp_of(msg: Any, fallback_ns: int) -> int:
    """Time in the header in nanoseconds; the time of recording where there is none."""
    stamp = msg.header.stamp
    seconds = stamp.sec if hasattr(stamp, "sec") else stamp.secs
    nanoseconds = stamp.nanosec if hasattr(stamp, "nanosec") else stamp.nsecs
    return (int(seconds) * 10**9 + int(nanoseconds)) or fallback_ns
