"""Why an input is silent, in words: what a person would find out with `ros2 topic info -v`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ros2_densematch.live.topics import Qos

_SILENT = "no data on "
_STOCK_RMEM = 212_992  # bytes, the kernel's default for net.core.rmem_max
_RMEM = Path("/proc/sys/net/core/rmem_max")


@dataclass(frozen=True)
class Publisher:
    """One publisher of a topic as the graph shows it.

    Attributes:
        node: full name of its node.
        type: message type, as sensor_msgs/msg/Image.
        reliable, transient_local: its quality of service.
    """

    node: str
    type: str
    reliable: bool
    transient_local: bool


def mismatch(topic_type: str, qos: Qos, publisher: Publisher) -> str:
    """Why a publisher's messages cannot reach a subscription of this type and quality; "" where they can."""
    if publisher.type != topic_type:
        return f"{publisher.node} publishes {publisher.type}, this node wants {topic_type}"
    if qos.reliability == "reliable" and not publisher.reliable:
        return f"{publisher.node} publishes best effort, this node asks for reliable: incompatible QoS"
    if qos.transient_local and not publisher.transient_local:
        return f"{publisher.node} publishes volatile, this node asks for transient local: incompatible QoS"
    return ""


def silence(
    topic: str,
    topic_type: str,
    qos: Qos,
    publishers: Sequence[Publisher],
    seconds: float,
    *,
    ever: bool,
    other_form: tuple[str, str] | None = None,
    similar: Sequence[str] = (),
    large: bool = False,
    rmem_max: int | None = None,
) -> str:
    """One line that names a silent topic, who publishes it, and the likely cause with its remedy.

    Args:
        topic: resolved name.
        topic_type, qos: of the subscription.
        publishers: those that the graph shows.
        seconds: how long nothing came.
        ever: whether something came before.
        other_form: topic where somebody publishes the same images raw or compressed, and the argument that takes them.
        similar: topics of the same type, for a wrong name.
        large: messages of hundreds of kilobytes, which best effort over UDP loses.
        rmem_max: the kernel's limit on receive buffers in bytes, None = not known.
    """
    begin = f"{_SILENT}{topic} for {seconds:.0f} s"
    if not publishers:
        if other_form is not None:
            return f"{begin}: nobody publishes it, but {other_form[0]} is published: {other_form[1]}"
        if ever:
            return f"{begin}: its publisher is gone; is the camera driver still running?"
        there = f"; topics of this type: {', '.join(sorted(similar))}" if similar else ""
        return f"{begin}: nobody publishes it; remap it (--ros-args -r {topic}:=NAME) or start its publisher{there}"
    problems = [text for p in publishers if (text := mismatch(topic_type, qos, p))]
    if len(problems) == len(publishers):
        return f"{begin}: {'; '.join(problems)}"
    names = ", ".join(sorted(p.node for p in publishers if not mismatch(topic_type, qos, p)))
    causes = []
    if large and qos.reliability == "best_effort":
        causes.append("large best-effort images are lost in transit (try image_reliability:=reliable or compressed)")
        if rmem_max is not None and rmem_max <= _STOCK_RMEM:
            causes.append(f"net.core.rmem_max is {rmem_max} (sudo sysctl -w net.core.rmem_max=26214400)")
    causes.append("it is paused, or runs on another machine whose traffic does not arrive")
    return f"{begin}, though {names} publishes it: {'; or '.join(causes)}; check with: ros2 topic hz {topic}"


def twins(own: str, nodes: Sequence[str]) -> str:
    """One line where several nodes have this node's full name; "" where none has.

    Args:
        own: full name of this node.
        nodes: full names of all nodes that the graph shows, this one too.
    """
    others = sum(name == own for name in nodes) - 1
    if others < 1:
        return ""
    return (
        f"{others + 1} nodes are called {own}: their services, parameters and topics get mixed up; give each its own "
        f"name or namespace (name:=, namespace:=). A killed node remains visible for about 20 s"
    )


def another_cause(before: str, now: str) -> bool:
    """Whether two lines of `silence` about one topic differ in more than the seconds; False for other lines."""
    if not (before.startswith(_SILENT) and now.startswith(_SILENT)):
        return False
    return before.partition(": ")[2] != now.partition(": ")[2]


def rmem_max() -> int | None:
    """net.core.rmem_max of this machine in bytes, or None where it cannot be read."""
    try:
        return int(_RMEM.read_text())
    except (OSError, ValueError):
        return None


def small_buffer_advice(qos: Qos, limit: int | None) -> str:
    """What to say at the start where raw best-effort images would probably be lost over UDP; "" otherwise."""
    if qos.reliability != "best_effort" or limit is None or limit > _STOCK_RMEM:
        return ""
    return (
        f"net.core.rmem_max is {limit}: most raw images that arrive over UDP (another machine, or no shared memory) "
        f"are lost; sudo sysctl -w net.core.rmem_max=26214400, image_transport:=compressed or "
        "image_reliability:=reliable"
    )
