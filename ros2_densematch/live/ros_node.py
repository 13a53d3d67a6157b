"""The lifecycle node `matcher`: topics, timers and parameters around `MatcherCore`."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn

from ros2_densematch.configuration import NODE_NAME, Configuration, configuration_from
from ros2_densematch.live import parameters
from ros2_densematch.live.core import Loaded, MatcherCore
from ros2_densematch.live.diagnostics import diagnostic_message, report
from ros2_densematch.live.inputs import Inputs
from ros2_densematch.live.publication import Publication
from ros2_densematch.live.reception import Reception
from ros2_densematch.live.ros_graph import (
    declare,
    events,
    is_installed,
    publishers_of,
    qos_profile,
    ros_type,
    topics_of_type,
    undeclared,
    with_info,
)
from ros2_densematch.live.ros_services import Services
from ros2_densematch.live.topics import IMAGE, ODOMETRY, PUBLISHED, RIGHT, SUBSCRIBED, TF_STATIC, Topic
from ros2_densematch.live.watch import another_cause, mismatch, rmem_max, silence, small_buffer_advice
from ros2_densematch.messages.conversions import to_cdr

_SYNC_PERIOD_S = 0.02
_NO_TF = "publish_tf needs tf2_msgs, which is not here: make messages builds it; or use ~/odometry"
_REPEAT_S = 60.0  # a complaint that stands is logged again


class MatcherNode(LifecycleNode):  # type: ignore[misc]  # rclpy has no types
    """Configure loads the model, activate subscribes, deactivate frees the memory.

    Args:
        configuration: defaults of the parameters; command line and parameter files go on top.

    Raises:
        ValueError: a parameter has a wrong type or value; one line.
        ModuleNotFoundError: a package with messages is not installed.
    """

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(NODE_NAME)
        given = declare(self, parameters.declared(configuration))
        self.settings = configuration_from(given, "parameter")
        for name in undeclared(self):
            self.get_logger().warning(f"parameter {name} is not one of this node's and is not used")
        self.problem = ""  # why the last transition failed
        self._say = self.get_logger()
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._names = {topic.name: self._resolve(topic) for topic in SUBSCRIBED}
        self.publication = Publication(self.settings, self._publish, self._wanted, self._now_ns, self._say)
        self.core = MatcherCore(self.settings, self.publication)
        self.inputs = self._new_inputs()
        self.reception = Reception(self.core, self.inputs, self._names[IMAGE], self.settings, self._now_ns)
        self.publication.transforms = self.inputs.transforms
        self._outputs: dict[str, Any] = {}
        self._inlets: dict[str, Any] = {}
        self._active_since: float | None = None
        self._complaints: dict[str, tuple[str, float]] = {}  # input -> (text, when it was logged)
        self._diagnostics = self.create_publisher(
            ros_type("diagnostic_msgs/msg/DiagnosticArray"), "/diagnostics", qos_profile(PUBLISHED[-2].qos)
        )
        Services(self, self.core)
        self.add_on_set_parameters_callback(self._parameters_asked_for)
        self._timer(self.settings.diagnostics_period_s, self._diagnose)
        self._timer(1.0, self._watch)
        self._sync_timer = self._timer(_SYNC_PERIOD_S, self._synchronise)
        self._sync_timer.cancel()

    # ---- lifecycle

    def on_configure(self, state: Any) -> Any:
        """Loads the model."""
        return self._transition(self._configure, state, super().on_configure)

    def on_activate(self, state: Any) -> Any:
        """Subscribes."""
        return self._transition(self._activate, state, super().on_activate)

    def on_deactivate(self, state: Any) -> Any:
        """Unsubscribes, finishes the image in work, frees the model and its GPU memory."""
        return self._transition(self._deactivate, state, super().on_deactivate)

    def on_cleanup(self, state: Any) -> Any:
        """Ends the publishers."""
        return self._transition(self._clean_up, state, super().on_cleanup)

    def on_shutdown(self, state: Any) -> Any:
        """Both, from any state."""
        return self._transition(self._shut_down, state, super().on_shutdown)

    def close(self) -> None:
        """Ends everything, whatever the state; for the end of the process."""
        self._shut_down()

    def _transition(self, work: Callable[[], None], state: Any, base: Callable[[Any], Any]) -> Any:
        self.problem = ""
        try:
            work()
        except (ValueError, OSError, ModuleNotFoundError) as error:
            self.problem = " ".join(str(error).split())
            self._say.error(self.problem)
            return TransitionCallbackReturn.FAILURE
        return base(state)

    def _configure(self) -> None:
        self.inputs.set_mask(self.settings.mask)
        self.core.load()
        assert self.core.loaded is not None
        self._say.info(
            f"matcher {self.core.loaded.identity}, preset {self.settings.preset}, on {self.core.loaded.device}"
        )
        for topic in PUBLISHED:
            if topic.name == "/diagnostics":
                continue
            if topic.name == "/tf" and not is_installed(topic.type):
                if self.settings.publish_tf:
                    raise ValueError(_NO_TF)
                continue
            self._outputs[topic.name] = self.create_publisher(ros_type(topic.type), topic.name, qos_profile(topic.qos))

    def _activate(self) -> None:
        if self._names[ODOMETRY] == self.resolve_topic_name("~/odometry"):
            raise ValueError(f"{self._names[ODOMETRY]} is this node's own output: remap odometry to the robot's")
        self.core.start()
        self._active_since = time.monotonic()
        self.reception.begin()
        for topic in SUBSCRIBED:
            if topic.name == TF_STATIC and not is_installed(topic.type):
                self._say.info(
                    "tf2_msgs is not here (make messages builds it): without /tf_static, set base_from_camera"
                )
                continue
            self._subscribe(self._as_subscribed(topic))
        advice = small_buffer_advice(self._as_subscribed(SUBSCRIBED[0]).qos, rmem_max())
        if advice and self.settings.image_transport == "raw":
            self._say.info(advice)
        self._say.info(f"active: images from {self._names[IMAGE]}")

    def _deactivate(self) -> None:
        self._active_since = None
        self._sync_timer.cancel()
        for subscription in self._inlets.values():
            self.destroy_subscription(subscription)
        self._inlets.clear()
        self.reception.end()
        self._complaints.clear()
        if self.core.stop():
            self.core.release()
        else:
            self._say.error("the matcher did not end its last image in time: its memory is not freed")

    def _clean_up(self) -> None:
        self.core.release()
        for publisher in self._outputs.values():
            self.destroy_publisher(publisher)
        self._outputs.clear()

    def _shut_down(self) -> None:
        self._deactivate()
        self._clean_up()

    # ---- inputs

    def _new_inputs(self) -> Inputs:
        found = Inputs(
            rectified="auto" if self.settings.rectified == "auto" else self.settings.rectified == "true",
            image_topic=self._names[IMAGE],
            right_topic=self._names[RIGHT],
        )
        return found

    def _resolve(self, topic: Topic) -> str:
        """The name to subscribe: with its transport behind it, unless the user remapped that name itself."""
        plain = str(self.resolve_topic_name(topic.name))
        transport = self._transport(topic.name)
        if transport == "raw":
            return plain
        written = str(self.resolve_topic_name(f"{topic.name}/{transport}", only_expand=True))
        remapped = str(self.resolve_topic_name(f"{topic.name}/{transport}"))
        if remapped != written:
            return remapped
        return plain if plain.endswith(f"/{transport}") else f"{plain}/{transport}"

    def _transport(self, name: str) -> str:
        if name in (IMAGE, RIGHT):
            return self.settings.image_transport
        return self.settings.depth_transport if name == "depth" else "raw"

    def _as_subscribed(self, topic: Topic) -> Topic:
        """The topic with resolved name, the type of its transport, and the asked-for reliability."""
        kind, qos = topic.type, topic.qos
        if topic.type == "sensor_msgs/msg/Image":
            qos = type(qos)(self.settings.image_reliability, qos.depth)
            if self._transport(topic.name) != "raw":
                kind = "sensor_msgs/msg/CompressedImage"
        return Topic(self._names[topic.name], kind, qos, topic.description)

    def _subscribe(self, topic: Topic) -> None:
        name = next(key for key, value in self._names.items() if value == topic.name)

        def receive(data: bytes, info: dict[str, Any]) -> None:
            self.reception.receive(name, topic.type, data, info)
            if self.reception.waiting and self._sync_timer.is_canceled():
                self._sync_timer.reset()

        self._inlets[name] = self.create_subscription(
            ros_type(topic.type),
            topic.name,
            with_info(receive),
            qos_profile(topic.qos),
            raw=True,
            event_callbacks=events(
                incompatible_qos=partial(self._incompatible, topic),
                matched=lambda event: self.reception.offered(name) if event.current_count_change > 0 else None,
            ),
        )

    def _incompatible(self, topic: Topic, _event: Any) -> None:
        problems = [t for p in publishers_of(self, topic.name) if (t := mismatch(topic.type, topic.qos, p))]
        self._say.error(f"nothing can arrive on {topic.name}: {'; '.join(problems) or 'incompatible QoS'}")

    def _synchronise(self) -> None:
        self.reception.release()
        if not self.reception.waiting:
            self._sync_timer.cancel()

    # ---- outputs

    def _publish(self, topic: str, message: Any) -> None:
        publisher = self._outputs.get(topic)
        if publisher is not None:
            publisher.publish(to_cdr(message))

    def _wanted(self, topic: str) -> bool:
        publisher = self._outputs.get(topic)
        return publisher is not None and publisher.get_subscription_count() > 0

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    # ---- watching

    def _watch(self) -> None:
        """Names the inputs that are silent: once, when the cause turns out to be another, and again when that lasts."""
        if self._active_since is None:
            return
        now = time.monotonic()
        current = dict(self.reception.problems())
        for topic in SUBSCRIBED[:-1]:
            heard = self.reception.heard.get(topic.name)
            seconds = now - (heard if heard is not None else self._active_since)
            if seconds < self.settings.no_data_timeout_s:
                continue
            if topic.type == "sensor_msgs/msg/CameraInfo" and heard is not None:
                continue  # a calibration need not be repeated
            wanted = self._as_subscribed(topic)
            publishers = publishers_of(self, wanted.name)
            if heard is None and not publishers and topic.name not in (IMAGE, "camera_info"):
                continue  # an optional input that nobody offers
            current[topic.name] = silence(
                wanted.name,
                wanted.type,
                wanted.qos,
                publishers,
                seconds,
                ever=heard is not None,
                similar=topics_of_type(self, wanted.type),
                large=wanted.type == "sensor_msgs/msg/Image",
                rmem_max=rmem_max(),
            )
        for name, text in current.items():
            before, logged = self._complaints.get(name, ("", -_REPEAT_S))
            if now - logged >= _REPEAT_S or another_cause(before, text):
                self._say.warning(text)
                logged = now
            self._complaints[name] = (text, logged)
        for name in set(self._complaints) - set(current):
            self._say.info(f"{self._names.get(name, name)}: as it should be again")
            del self._complaints[name]

    def _diagnose(self) -> None:
        state = str(self._state_machine.current_state[1])
        found = report(self.core, self.publication.last, [text for text, _ in self._complaints.values()], state)
        message = diagnostic_message(
            found,
            stamp_ns=self._now_ns(),
            name=f"{self.get_fully_qualified_name()}: matching",
            hardware=self._names[IMAGE],
        )
        self._diagnostics.publish(to_cdr(message))

    def _timer(self, seconds: float, callback: Callable[[], None]) -> Any:
        # of a steady clock: simulated time may stand still
        return self.create_timer(seconds, callback, clock=self._steady)

    # ---- parameters

    def _parameters_asked_for(self, asked: list[Any]) -> Any:
        ours = {p.name: p.value for p in asked if p.name in {d.name for d in parameters.declared()}}
        if not ours:
            return SetParametersResult(successful=True)
        try:
            new = parameters.checked(self.settings, ours)
            if new.publish_tf and "/tf" not in self._outputs and self._outputs:
                raise ValueError(_NO_TF)
            loaded = self.core.prepare(new)
            if new.mask != self.settings.mask:
                self.inputs.set_mask(new.mask)
        except (ValueError, OSError, ModuleNotFoundError) as error:
            return SetParametersResult(successful=False, reason=" ".join(str(error).split()))
        self._take(new, loaded)
        return SetParametersResult(successful=True)

    def _take(self, new: Configuration, loaded: Loaded | None) -> None:
        if new.rectified != self.settings.rectified:
            self.inputs.set_rectified("auto" if new.rectified == "auto" else new.rectified == "true")
        self.settings = new
        self.publication.configuration = new
        self.reception.configure(new)
        self.core.apply(new, loaded)
