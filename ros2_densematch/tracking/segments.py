"""Stretches of trajectory and where the unit of length of each comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from ros2_densematch.geometry.relative_pose import Scale

# How much the unit of length changes from a keyframe to the next where nothing but the points that both see carries it:
# relative standard deviation. Chosen on rendered flights (benchmarks/odometry_covariance.py --unit --part fit).
_DRIFT = 0.01


class LengthSource(Enum):
    """What gives a segment its unit of length: the scale, and the relative standard deviation of the metre, or NaN."""

    NOTHING = (Scale.NONE, float("nan"))
    """The camera has only turned or hardly moved: no length is known."""
    FIRST_BASELINE = (Scale.UNIT, float("nan"))
    """One arbitrary unit: the median depth of the points when they were triangulated first."""
    ODOMETRY = (Scale.METRIC, 0.05)
    """The odometry's length of the first baseline; from there on the metre may drift."""
    DEPTH = (Scale.METRIC, 0.02)
    """Depth images or stereo pairs measure it again and again: the metre does not drift."""

    def __init__(self, scale: Scale, std: float) -> None:
        self.scale = scale
        self.std = std

    @property
    def may_drift(self) -> bool:
        """Whether there is a unit that may drift on the way."""
        return self in (LengthSource.FIRST_BASELINE, LengthSource.ODOMETRY)

    @property
    def drift(self) -> float:
        """Relative standard deviation of the change of the unit from a keyframe to the next."""
        return _DRIFT if self.may_drift else 0.0


@dataclass(frozen=True)
class Segments:
    """The segments so far. It never changes: each method returns another one.

    Attributes:
        current: number of the present one.
        count: of all that were begun; the number of the next one.
    """

    current: int = 0
    count: int = 1
    _sources: Mapping[int, LengthSource] = field(default_factory=dict)

    def source_of(self, segment: int) -> LengthSource:
        """Where the unit of a segment comes from."""
        return self._sources.get(segment, LengthSource.NOTHING)

    @property
    def source(self) -> LengthSource:
        """Where the unit of the present one comes from."""
        return self.source_of(self.current)

    @property
    def scale(self) -> Scale:
        """Of the present one."""
        return self.source.scale

    def with_source(self, source: LengthSource) -> Segments:
        """The present one gets its unit from there."""
        return replace(self, _sources={**self._sources, self.current: source})

    def entered(self, segment: int) -> Segments:
        """On in another segment, which was there before."""
        return replace(self, current=segment)

    def begun(self) -> Segments:
        """On in a new segment, of which no length is known."""
        return replace(self, current=self.count, count=self.count + 1)
