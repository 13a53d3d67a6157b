"""How the node is doing, for /diagnostics: a level, one line, and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from ros2_densematch.live.core import MatcherCore
from ros2_densematch.live.counters import Drop
from ros2_densematch.live.memory import gpu_memory
from ros2_densematch.messages.conversions import header_message
from ros2_densematch.messages.typestore import message_class
from ros2_densematch.tracking.tracked_frame import Status, TrackedFrame

_FAILURES_THAT_ARE_AN_ERROR = 5


class Level(IntEnum):
    """Of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True)
class Report:
    """What /diagnostics says.

    Attributes:
        level: see `Level`.
        message: one line.
        values: name -> text.
    """

    level: Level
    message: str
    values: dict[str, str] = field(default_factory=dict)


def report(
    core: MatcherCore, last: TrackedFrame | None, complaints: list[str], state: str, remarks: Sequence[str] = ()
) -> Report:
    """The state of the node.

    Args:
        core: the node's core.
        last: the tracker's last answer.
        complaints: silent inputs and calibrations that cannot be used, one line each.
        state: lifecycle state: "active" or another.
        remarks: what of the inputs could not be used so far, and how often, one line each.
    """
    counts = core.counters.snapshot()
    values = {
        "state": state if core.enabled or state != "active" else "disabled",
        "matcher": "" if core.loaded is None else core.loaded.identity,
        "preset": core.configuration.preset,
        "device": "" if core.loaded is None else core.loaded.device,
        "input_hz": f"{counts.input_hz:.1f}",
        "output_hz": f"{counts.output_hz:.1f}",
        "images_received": str(counts.received),
        "images_processed": str(counts.processed),
        "images_dropped": str(counts.dropped),
    }
    for why in Drop:
        values[f"dropped.{why.value}"] = str(counts.drops.get(why, 0))
        if counts.last.get(why):
            values[f"dropped.{why.value}.last"] = counts.last[why]
    for stage, time in core.times.summary().items():
        for name in ("median", "mean", "max"):
            values[f"{stage}_ms.{name}"] = f"{getattr(time, name):.2f}"
    values["gpu_memory_mb"] = f"{gpu_memory() / 1e6:.0f}"
    if last is not None:
        values.update(status=str(last.status), reason=last.reason, scale=last.scale.name, inliers=str(last.num_inliers))
    for number, text in enumerate(complaints):
        values[f"complaint.{number}"] = text
    for number, text in enumerate(remarks):
        values[f"input.{number}"] = text
    level, message = _judgement(core, last, complaints, state)
    return Report(level, message, values)


def _judgement(core: MatcherCore, last: TrackedFrame | None, complaints: list[str], state: str) -> tuple[Level, str]:
    counts = core.counters.snapshot()
    if state != "active":
        return Level.OK, state
    if not core.enabled:
        return Level.OK, "disabled by ~/enable"
    if counts.failures_in_a_row >= _FAILURES_THAT_ARE_AN_ERROR:
        return Level.ERROR, f"the last {counts.failures_in_a_row} images failed: {counts.last[Drop.FAILED]}"
    if complaints:
        return (Level.STALE if any("no data" in c for c in complaints) else Level.WARN), complaints[0]
    if last is None:
        return Level.STALE, "waiting for the first image"
    if last.status in (Status.LOST, Status.REJECTED, Status.NO_CALIBRATION):
        return Level.WARN, last.reason
    return Level.OK, f"{last.status}: {last.num_inliers} inliers"


def diagnostic_message(found: Report, *, stamp_ns: int, name: str, hardware: str) -> Any:
    """diagnostic_msgs/DiagnosticArray with one status."""
    pair = message_class("diagnostic_msgs/msg/KeyValue")
    status = message_class("diagnostic_msgs/msg/DiagnosticStatus")(
        level=int(found.level),
        name=name,
        message=found.message,
        hardware_id=hardware,
        values=[pair(key=key, value=value) for key, value in found.values.items()],
    )
    return message_class("diagnostic_msgs/msg/DiagnosticArray")(header=header_message(stamp_ns, ""), status=[status])
