"""Which inputs the node subscribes, under which names and transports: decided from names alone, without ROS.

An input that gives the scale (depth, stereo, odometry) is used only when somebody named it, by parameter or remapping:
a topic that happens to be called /odometry must not turn an arbitrary unit into metres.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from ros2_densematch.configuration import Configuration
from ros2_densematch.live.topics import (
    CAMERA_INFO,
    DEPTH,
    DEPTH_INFO,
    IMAGE,
    INITIAL_POSE,
    ODOMETRY,
    RIGHT,
    RIGHT_INFO,
    TF,
    TF_STATIC,
)

# the full name of an input before and after remapping
Expand = Callable[[str], str]
Resolve = Callable[[str], str]

_INFO_OF = {DEPTH: DEPTH_INFO, RIGHT: RIGHT_INFO}
_SCALE = {DEPTH: "depth", RIGHT: "stereo", ODOMETRY: "odometry"}


@dataclass(frozen=True)
class Input:
    """One subscription.

    Attributes:
        topic: full name that is subscribed, with the transport behind it; without one where that is not decided.
        transport: raw, compressed or compressedDepth; auto = to be decided by what is advertised.
    """

    topic: str
    transport: str = "raw"

    def over(self, transport: str) -> Input:
        """An image whose transport is auto, over the one that was decided."""
        return Input(self.topic if transport == "raw" else f"{self.topic}/{transport}", transport)


def wire(settings: Configuration, expand: Expand, resolve: Resolve) -> dict[str, Input]:
    """The inputs in use, by their name in `topics`.

    Args:
        settings: of the node.
        expand: full name of a relative one, before remapping.
        resolve: the same after remapping.
    """
    named = {DEPTH: settings.depth_topic, RIGHT: settings.right_image_topic, ODOMETRY: settings.odometry_topic}
    found = {
        IMAGE: _image(IMAGE, settings.image_transport, expand, resolve),
        CAMERA_INFO: Input(resolve(CAMERA_INFO)),
        INITIAL_POSE: Input(resolve(INITIAL_POSE)),
        TF: Input(resolve(TF)),
        TF_STATIC: Input(resolve(TF_STATIC)),
    }
    for name, topic in named.items():
        transport = {DEPTH: settings.depth_transport, RIGHT: settings.image_transport}.get(name, "raw")
        source = _image(topic or name, transport, expand, resolve)
        if not topic and source.topic == expand(name):
            continue
        found[name] = source
        if name in _INFO_OF:
            info = _INFO_OF[name]
            beside = f"{source.topic.removesuffix(f'/{source.transport}').rpartition('/')[0]}/camera_info"
            found[info] = Input(resolve(info) if resolve(info) != expand(info) else resolve(beside))
    return found


def scale_sources(inputs: dict[str, Input], without: Collection[str] = ()) -> str:
    """The sources of metric scale among the inputs, as "depth /camera/depth, odometry /odom"; "" = none.

    Args:
        inputs: in use.
        without: those that are refused.
    """
    used = {name: kind for name, kind in _SCALE.items() if name in inputs and name not in without}
    return ", ".join(f"{kind} {inputs[name].topic}" for name, kind in used.items())


def chosen_transport(advertised: set[str], topic: str, waited_s: float, patience_s: float = 2.0) -> str | None:
    """The transport of an image whose transport is auto: raw wherever it is advertised, compressed after a while.

    Args:
        advertised: full names of the topics that somebody publishes.
        topic: the image's full name without transport.
        waited_s: seconds since the node began to look.
        patience_s: how long raw images are waited for while only compressed ones are advertised.

    Returns:
        raw or compressed; None = not decided yet.
    """
    if topic in advertised:
        return "raw"
    if f"{topic}/compressed" in advertised and waited_s >= patience_s:
        return "compressed"
    return None


def other_form(name: str, topic: str) -> tuple[str, str] | None:
    """Where the same images would come in the other form, raw or compressed, and the argument that takes them so.

    Args:
        name: input, as in `topics`.
        topic: full name that is subscribed, with the transport behind it.
    """
    if name not in (IMAGE, RIGHT, DEPTH):
        return None
    option, kind = ("depth_transport", "compressedDepth") if name == DEPTH else ("image_transport", "compressed")
    if topic.endswith(f"/{kind}"):
        return topic.removesuffix(f"/{kind}"), f"{option}:=raw"
    return f"{topic}/{kind}", f"{option}:={kind}"


def _image(name: str, transport: str, expand: Expand, resolve: Resolve) -> Input:
    """An image under its transport; a remapping of the transport's own topic decides the transport too."""
    for kind in ("compressed", "compressedDepth"):
        if transport in ("auto", kind) and resolve(f"{name}/{kind}") != expand(f"{name}/{kind}"):
            return Input(resolve(f"{name}/{kind}"), kind)
    topic = resolve(name)
    if transport == "auto" and topic.endswith("/compressed"):
        return Input(topic, "compressed")
    if transport in ("auto", "raw") or topic.endswith(f"/{transport}"):
        return Input(topic, transport)
    return Input(topic).over(transport)
