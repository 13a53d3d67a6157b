"""Positions out of a bag's satellite fixes (sensor_msgs/NavSatFix), as metres east, north and up of the first one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry.trajectory import Trajectory
from ros2_densematch.io.sources.records import BagError
from ros2_densematch.io.sources.stamps import stamp_of
from ros2_densematch.io.sources.storage import open_records

FIX_TYPE = "sensor_msgs/msg/NavSatFix"
# WGS 84: semi-major axis in metres and first eccentricity squared
_AXIS_M, _ECCENTRICITY_2 = 6_378_137.0, 6.694379990141e-3


@dataclass(frozen=True)
class Fixes:
    """What a satellite receiver said.

    Attributes:
        topic: of the messages.
        track: positions over time, with identity rotations; None where no message has a usable fix.
        left_out: in words, how many messages were not used and why; "" where all were.
    """

    topic: str
    track: Trajectory | None
    left_out: str


def read_fixes(path: Path, topic: str | None = None) -> Fixes | None:
    """The positions of a satellite receiver; None where the bag has no such topic.

    Local tangent plane of the WGS 84 ellipsoid at the first fix: to 1 cm over a kilometre. A receiver without a fix
    (status below 0) and fixes that are not finite are left out.

    Args:
        path: a bag.
        topic: of the fixes; None: the bag's only one.

    Raises:
        BagError: there is no such topic, it holds something else, or there are several and none was named.
    """
    records = open_records(path)
    found = [t.name for t in records.topics.values() if t.type == FIX_TYPE]
    if topic is not None and topic not in found:
        raise BagError(f"{path} has no satellite fixes on {topic}: {', '.join(found) or 'there are none'}")
    if topic is None and len(found) > 1:
        raise BagError(f"{path} has satellite fixes on {', '.join(found)}: choose one with --gps-topic")
    if not found:
        return None
    chosen = topic or found[0]
    rows: dict[int, tuple[float, float, float]] = {}
    damaged: list[str] = []
    why_not: Counter[str] = Counter()
    count = 0
    for count, record in enumerate(records.read([chosen]), 1):  # noqa: B007  (used after the loop)
        try:
            fix = records.decode(record)
        except BagError as error:
            damaged.append(str(error))
            why_not["damaged"] += 1
            continue
        values = (float(fix.latitude), float(fix.longitude), float(fix.altitude))
        stamp = stamp_of(fix, record.log_time_ns)
        if fix.status.status < 0:
            why_not["without a fix"] += 1
        elif not np.isfinite(values).all():
            why_not["not finite"] += 1
        elif stamp in rows:
            why_not["with the time stamp of another"] += 1
        else:
            rows[stamp] = values
    if damaged and not rows:
        raise BagError(f"{path}: none of the {count} fixes on {chosen} can be used ({damaged[0]})")
    reasons = ", ".join(f"{n} {why}" for why, n in why_not.items())
    left_out = f"{why_not.total()} of {count} messages are left out: {reasons}" if why_not else ""
    if not rows:
        return Fixes(chosen, None, left_out)
    stamps = np.array(sorted(rows), np.int64)
    T = np.tile(np.eye(4), (len(stamps), 1, 1))
    T[:, :3, 3] = east_north_up(np.array([rows[int(s)] for s in stamps]))
    return Fixes(chosen, Trajectory(stamps, T), left_out)


def east_north_up(fixes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Metres (N, 3) east, north and up of the first of (N, 3) latitudes and longitudes in degrees and altitudes in
    metres."""
    latitude, longitude = np.deg2rad(fixes[:, 0]), np.deg2rad(fixes[:, 1])
    normal = _AXIS_M / np.sqrt(1 - _ECCENTRICITY_2 * np.sin(latitude) ** 2)
    across = (normal + fixes[:, 2]) * np.cos(latitude)
    polar = (normal * (1 - _ECCENTRICITY_2) + fixes[:, 2]) * np.sin(latitude)
    earth = np.stack([across * np.cos(longitude), across * np.sin(longitude), polar], 1)
    (sp, cp), (sl, cl) = ((np.sin(v[0]), np.cos(v[0])) for v in (latitude, longitude))
    R = np.array([[-sl, cl, 0], [-sp * cl, -sp * sl, cp], [cp * cl, cp * sl, sp]])
    return np.asarray((earth - earth[0]) @ R.T, np.float64)
