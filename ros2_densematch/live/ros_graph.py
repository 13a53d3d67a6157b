"""rclpy helpers of the node: types by name, quality of service, parameter declarations, who publishes what."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ModuleNotFoundError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from ros2_densematch.deprecation import former_name
from ros2_densematch.live.parameters import Parameter
from ros2_densematch.live.topics import Qos
from ros2_densematch.live.watch import Publisher

_TYPES = {"bool": 1, "integer": 2, "double": 3, "string": 4}  # rcl_interfaces/ParameterType


def ros_type(name: str) -> Any:
    """The rclpy class of a type as `sensor_msgs/msg/Image` or `std_srvs/srv/Trigger`.

    Raises:
        ModuleNotFoundError: its package is not installed or not built.
    """
    package, kind, message = name.split("/")
    return getattr(import_module(f"{package}.{kind}"), message)


def is_installed(name: str) -> bool:
    """Whether the package of a type can be imported."""
    try:
        ros_type(name)
    except ModuleNotFoundError:
        return False
    return True


def qos_profile(qos: Qos) -> Any:
    """The rclpy profile."""
    reliable = qos.reliability == "reliable"
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=qos.depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if qos.transient_local else DurabilityPolicy.VOLATILE,
    )


def publishers_of(node: Any, topic: str) -> list[Publisher]:
    """The publishers of a resolved topic name."""
    found = []
    for info in node.get_publishers_info_by_topic(topic):
        # a publisher is seen before the node that it belongs to
        unknown = "UNKNOWN" in str(info.node_name)
        name = "a publisher" if unknown else f"{str(info.node_namespace).rstrip('/')}/{info.node_name}"
        found.append(
            Publisher(
                name,
                str(info.topic_type),
                info.qos_profile.reliability == ReliabilityPolicy.RELIABLE,
                info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL,
            )
        )
    return found


def nodes_of(node: Any) -> list[str]:
    """Full names of all nodes, this one too; one name as often as nodes have it."""
    found = node.get_node_names_and_namespaces()
    return [f"{str(namespace).rstrip('/')}/{name}" for name, namespace in found]


def topics_of_type(node: Any, kind: str) -> list[str]:
    """Names of the topics of a type that another node publishes."""
    own = str(node.get_fully_qualified_name())
    names = [str(name) for name, types in node.get_topic_names_and_types() if kind in types]
    return sorted(name for name in names if any(p.node != own for p in publishers_of(node, name)))


def declare(node: Any, parameters: list[Parameter]) -> dict[str, Any]:
    """Declares the parameters and returns their values, those of the command line and parameter files on top.

    Raises:
        ValueError: a value of another type or out of range, in one line.
    """
    values: dict[str, Any] = {}
    overrides = node._parameter_overrides
    for parameter in parameters:
        former = former_name(parameter.name)
        if former in overrides and parameter.name not in overrides:
            node.get_logger().warning(f"parameter {former} is now called {parameter.name}; use the new name")
            overrides[parameter.name] = overrides.pop(former)
        try:
            values[parameter.name] = node.declare_parameter(
                parameter.name, parameter.default, _descriptor(parameter)
            ).value
        except InvalidParameterTypeException:
            hint = _type_hint(parameter, node._parameter_overrides.get(parameter.name))
            raise ValueError(f"parameter {parameter.name} must be a {parameter.kind}: {hint}") from None
        except InvalidParameterValueException as error:
            raise ValueError(f"parameter {parameter.name}: {error}") from None
    return values


def _type_hint(parameter: Parameter, given: Any) -> str:
    """How to write a value that ROS took for one of another type."""
    if given is None or parameter.kind not in ("double", "string"):
        return "change its type"
    if parameter.kind == "double":
        return f"write {given.value}.0"
    value = str(given.value).lower() if isinstance(given.value, bool) else given.value
    return f"write -p {parameter.name}:=\"'{value}'\", with both kinds of quotation marks"


def undeclared(node: Any) -> list[str]:
    """Names that the command line or a parameter file sets and nobody declares."""
    return sorted(name for name in node._parameter_overrides if not node.has_parameter(name))


def _descriptor(parameter: Parameter) -> Any:
    constraints = f"one of: {', '.join(parameter.choices)}" if parameter.choices else parameter.limits
    descriptor = ParameterDescriptor(
        name=parameter.name,
        type=_TYPES[parameter.kind],
        description=parameter.description,
        additional_constraints=constraints,
        read_only=parameter.read_only,
    )
    if parameter.low is None and parameter.high is None:
        return descriptor
    if parameter.kind == "integer":
        low = -(2**31) if parameter.low is None else int(parameter.low)
        high = 2**31 - 1 if parameter.high is None else int(parameter.high)
        descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=0)]
    elif parameter.kind == "double":
        low_f = -1e300 if parameter.low is None else float(parameter.low)
        high_f = 1e300 if parameter.high is None else float(parameter.high)
        descriptor.floating_point_range = [FloatingPointRange(from_value=low_f, to_value=high_f, step=0.0)]
    return descriptor


def events(**callbacks: Callable[[Any], None]) -> Any:
    """A subscription's event callbacks, those that this rclpy knows (Humble's has no `matched`)."""
    known = inspect.signature(SubscriptionEventCallbacks).parameters
    return SubscriptionEventCallbacks(**{name: call for name, call in callbacks.items() if name in known})


def with_info(callback: Callable[[bytes, dict[str, Any]], None]) -> Callable[..., None]:
    """A subscription's callback with the message's times and number, where this rclpy passes them on (not Humble's)."""

    def both(data: bytes, info: dict[str, Any]) -> None:
        callback(data, info)

    def data_only(data: bytes) -> None:
        callback(data, {})

    return both if hasattr(Subscription, "CallbackType") else data_only
