"""Whether two topics of a recording were stamped by the same clock, with the recording's own clock as the witness."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

# (stamp in the header, time of recording) of some messages, in nanoseconds.
Times = Sequence[tuple[int, int]]

SAMPLE = 12  # messages of each topic are enough
# Transport and processing delay messages of one host by less.
SAME_CLOCK_S = {"depth": 0.3, "right images": 0.3, "odometry": 1.0, "ground truth": 1.0}
# From here on an offset is named: transport of large images and processing explain less.
_DOUBTFUL_S = 0.15
_FULL_SPEED = 0.2


def offset_between(images: Times, others: Times) -> float | None:
    """Seconds by which the stamps of `others` run ahead of those of `images`.

    A recording made while another was played slowly or fast has a clock of another rate; that is taken into account.

    Returns:
        The offset, or None where the clock of the recording says nothing (no messages, or it stands still).
    """
    if not images or not others:
        return None
    recorded = [r for _, r in images] + [r for _, r in others]
    if len(recorded) > 2 and len(set(recorded)) == 1:
        return None
    rate, origin = _rate(images), images[0][1]

    def at_origin(times: Times) -> float:
        return median(stamp - images[0][0] - rate * (time - origin) for stamp, time in times)

    return (at_origin(others) - at_origin(images)) * 1e-9


def other_clock(role: str, topic: str, option: str, images: Times, others: Times) -> str:
    """Why a topic is not used: its stamps are of another clock than those of the images; "" where they are not."""
    offset = offset_between(images, others)
    if offset is None or abs(offset) <= SAME_CLOCK_S[role]:
        return ""
    side = "ahead of" if offset > 0 else "behind"
    return (
        f"the stamps of {topic} are {abs(offset):.3f} s {side} those of the images by the clock of the recording: not "
        f"used; if another host's clock stamped them, give {option} {-offset:.3f}"
    )


def doubtful_clock(role: str, topic: str, option: str, images: Times, others: Times) -> str:
    """What speaks against the clock of a topic that is used all the same; "" where nothing does."""
    offset = offset_between(images, others)
    if offset is None or not _DOUBTFUL_S < abs(offset) <= SAME_CLOCK_S[role]:
        return ""
    side = "ahead of" if offset > 0 else "behind"
    return (
        f"{role}: the stamps of {topic} are {abs(offset):.3f} s {side} those of the images by the clock of the "
        f"recording: they are used unchanged; if another host's clock stamped them, give {option} {-offset:.3f}"
    )


def _rate(images: Times) -> float:
    """Seconds of the images' clock per second of the recording; 1 where the two are nearly alike."""
    slopes = [(b[0] - a[0]) / (b[1] - a[1]) for a, b in pairwise(images) if b[1] > a[1] and b[0] > a[0]]
    rate = median(slopes) if slopes else 1.0
    return 1.0 if abs(rate - 1.0) < _FULL_SPEED else rate
