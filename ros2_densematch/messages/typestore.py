"""All message types that we read or write, as rosbags typestores: no ROS is needed."""

from __future__ import annotations

from functools import cache
from typing import Any

from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from ros2_densematch.messages.definitions import message_definitions


@cache
def ros2_typestore() -> Typestore:
    """The common ROS 2 types (their layout is the same from Humble on) and our own."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types: dict[str, Any] = {}
    for name, text in message_definitions().items():
        # rosbags files a service's halves under densematch/srv/msg/; ROS 2 calls them densematch/srv/.
        parsed = get_types_from_msg(text, name)
        types.update({key.replace("/srv/msg/", "/srv/"): fields for key, fields in parsed.items()})
    store.register(types)
    return store


@cache
def recorded_typestore(definitions: tuple[tuple[str, str], ...]) -> Typestore:
    """The types as a bag defines them: our messages in bags of earlier versions had fewer fields.

    Args:
        definitions: (type name, text as the bag carries it, with the types that it needs behind it); one without text
            has today's definition.
    """
    store = get_typestore(Stores.ROS2_JAZZY)
    own = ros2_typestore().fielddefs
    for name, text in definitions:
        idl = text.startswith("=" * 80 + "\nIDL: ")
        types = (get_types_from_idl(text) if idl else get_types_from_msg(text, name)) if text else {name: own[name]}
        # the common types have one layout from Humble on
        store.register({kind: fields for kind, fields in types.items() if kind not in store.types})
    return store


@cache
def ros1_typestore() -> Typestore:
    """The common ROS 1 types."""
    store = get_typestore(Stores.ROS1_NOETIC)
    for name in ("tf/msg/tfMessage", "tf2_msgs/msg/TFMessage"):
        if name not in store.types:
            store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms\n", name))
    return store


def message_class(name: str) -> Any:
    """The class of a ROS 2 message, as `message_class("densematch/msg/RelativePose")`.

    Raises:
        KeyError: no such type.
    """
    return ros2_typestore().types[name]
