"""The lifecycle node `matcher`: topics, timers and parameters around `MatcherCore`."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
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
    nodes_of,
    publishers_of,
    qos_profile,
    ros_type,
    topics_of_type,
    undeclared,
    with_info,
)
from ros2_densematch.live.ros_services import Services
from ros2_densematch.live.topics import (
    DIAGNOSTICS,
    IMAGE,
    INITIAL_POSE,
    ODOMETRY,
    PUBLISHED,
    RIGHT,
    SUBSCRIBED,
    TF,
    TF_STATIC,
    Topic,
)
from ros2_densematch.live.watch import another_cause, mismatch, rmem_max, silence, small_buffer_advice, twins
from ros2_densematch.live.wiring import Input, chosen_transport, other_form, scale_sources, wire
from ros2_densematch.messages.conversions import to_cdr

_SYNC_PERIOD_S = 0.02
_TRANSPORT_PERIOD_S = 0.1  # how often the graph is asked which transport is advertised
_NO_TF = "publish_tf and publish_map_tf need tf2_msgs, which is not installed: run make messages, or use ~/odometry"
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
        given = declare(self, parameters.plain(configuration))
        # what the options of a matcher are where nobody sets them depends on the preset
        chosen = configuration_from({**given, **configuration.options}, "parameter")
        given |= declare(self, parameters.options(chosen))
        self.settings = configuration_from(given, "parameter")
        for name in undeclared(self):
            self.get_logger().warning(f"parameter {name} is unknown to this node and ignored")
        self.problem = ""  # why the last transition failed
        self._say = self.get_logger()
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._wiring = wire(
            self.settings, lambda name: str(self.resolve_topic_name(name, only_expand=True)), self.resolve_topic_name
        )
        self.publication = Publication(self.settings, self._publish, self._wanted, self._now_ns, self._say)
        self.core = MatcherCore(self.settings, self.publication)
        self.inputs = self._new_inputs()
        self.publication.transforms = self.inputs.transforms
        self.reception = Reception(
            self.core,
            self.inputs,
            self._wiring[IMAGE].topic,
            self.settings,
            self._now_ns,
            self.publication.heard_transform,
            self._initial_pose,
            self._say.warning,
        )
        self.publication.refuse_odometry = self._refuse_odometry
        self._outputs: dict[str, Any] = {}
        self._inlets: dict[str, Any] = {}
        self._subscribed: dict[str, Topic] = {}  # input -> as it is subscribed now
        self._active_since: float | None = None
        self._complaints: dict[str, tuple[str, float]] = {}  # input -> (text, when it was logged)
        self._remarks: set[str] = set()  # what was said of the inputs' content
        self._offered_since: dict[str, float] = {}  # input -> when its publishers were first seen
        self._diagnostics = self.create_publisher(
            ros_type(DIAGNOSTICS.type), DIAGNOSTICS.name, qos_profile(DIAGNOSTICS.qos)
        )
        Services(self, self.core)
        self.add_on_set_parameters_callback(self._parameters_asked_for)
        self._timer(self.settings.diagnostics_period_s, self._diagnose)
        self._timer(1.0, self._watch)
        self._sync_timer = self._timer(_SYNC_PERIOD_S, self._synchronise)
        self._sync_timer.cancel()
        self._transport_timer = self._timer(_TRANSPORT_PERIOD_S, self._choose_transports)
        self._transport_timer.cancel()

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
        loaded = self.core.loaded
        runtime = f"; network: {loaded.runtime}" if loaded.runtime else ""
        self._say.info(f"matcher {loaded.identity}, preset {self.settings.preset}, on {loaded.device}{runtime}")
        for topic in PUBLISHED.values():
            if topic is DIAGNOSTICS:
                continue
            if topic.name == TF and not is_installed(topic.type):
                if self._sends_tf(self.settings):
                    raise ValueError(_NO_TF)
                continue
            self._outputs[topic.name] = self.create_publisher(ros_type(topic.type), topic.name, qos_profile(topic.qos))

    def _activate(self) -> None:
        if ODOMETRY in self._wiring and self._wiring[ODOMETRY].topic == self.resolve_topic_name("~/odometry"):
            raise ValueError(f"{self._wiring[ODOMETRY].topic} is this node's own output: give the robot's odometry")
        self.publication.begin()
        self.publication.scale_sources = scale_sources(self._wiring)
        self.inputs.refuse_odometry("")
        self.core.start()
        self._active_since = time.monotonic()
        self.reception.begin()
        for name, source in self._wiring.items():
            if name == TF:
                self._watch_tf()
            elif name == TF_STATIC and not is_installed(SUBSCRIBED[TF_STATIC].type):
                self._say.info(
                    "tf2_msgs is not installed (run make messages): without /tf_static, set base_from_camera"
                )
            elif source.transport == "auto":
                self._transport_timer.reset()
            else:
                self._subscribe(name, source)
        image = self._wiring[IMAGE]
        either = ", raw or compressed, whichever is advertised" if image.transport == "auto" else ""
        self._say.info(f"active: images from {image.topic}{either}")
        sources = self.publication.scale_sources
        self._say.info(
            f"scale from {sources}"
            if sources
            else "no source of metric scale is configured: lengths have an arbitrary unit"
        )

    def _deactivate(self) -> None:
        self._active_since = None
        self._sync_timer.cancel()
        self._transport_timer.cancel()
        for subscription in self._inlets.values():
            self.destroy_subscription(subscription)
        self._inlets.clear()
        self._subscribed.clear()
        self.reception.end()
        self._complaints.clear()
        self._offered_since.clear()
        if self.core.stop():
            self.core.release()
        else:
            self._say.error("the matcher did not finish its last image in time: its memory is not freed")

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
        return Inputs(
            rectified="auto" if self.settings.rectified == "auto" else self.settings.rectified == "true",
            image_topic=self._wiring[IMAGE].topic,
            right_topic=self._wiring[RIGHT].topic if RIGHT in self._wiring else "",
        )

    def _choose_transports(self) -> None:
        """Subscribes the images whose transport is auto as soon as it is known what is advertised."""
        if self._active_since is None:
            return
        advertised = {str(name) for name, _ in self.get_topic_names_and_types() if self.count_publishers(name)}
        waited = time.monotonic() - self._active_since
        undecided = False
        for name, source in self._wiring.items():
            if source.transport != "auto" or name in self._inlets:
                continue
            transport = chosen_transport(advertised, source.topic, waited)
            if transport is None:
                undecided = True
                continue
            chosen = source.over(transport)
            self._subscribe(name, chosen)
            other = "raw" if transport == "compressed" else "compressed"
            self._say.info(f"{name}: {chosen.topic}, {transport} images (image_transport:={other} for {other} ones)")
        if not undecided:
            self._transport_timer.cancel()

    def _as_subscribed(self, name: str, source: Input) -> Topic:
        """The topic with its full name, the type of its transport, and the asked-for reliability."""
        topic = SUBSCRIBED[name]
        kind, qos = topic.type, topic.qos
        if topic.type == "sensor_msgs/msg/Image":
            qos = type(qos)(self.settings.image_reliability, qos.depth)
            if source.transport not in ("raw", "auto"):
                kind = "sensor_msgs/msg/CompressedImage"
        return Topic(source.topic, kind, qos, topic.description)

    def _subscribe(self, name: str, source: Input) -> None:
        topic = self._as_subscribed(name, source)
        if name == IMAGE:
            advice = small_buffer_advice(topic.qos, rmem_max()) if source.transport == "raw" else ""
            if advice:
                self._say.info(advice)

        def receive(data: bytes, info: dict[str, Any]) -> None:
            begun = time.perf_counter()
            if name == IMAGE:
                self._look_for_companions()
            self.reception.receive(name, topic.type, data, info)
            if name == IMAGE:
                self.core.times.add(callback=1000.0 * (time.perf_counter() - begun))
            if self.reception.waiting and self._sync_timer.is_canceled():
                self._sync_timer.reset()

        self._subscribed[name] = topic
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

    def _look_for_companions(self) -> None:
        """An image is waiting in line before the event that says that its depth is published too (Humble has none)."""
        for name in self.reception.not_offered():
            if name in self._subscribed and self.count_publishers(self._subscribed[name].name):
                self.reception.offered(name)

    @staticmethod
    def _sends_tf(settings: Configuration) -> bool:
        return settings.publish_tf or settings.publish_map_tf

    def _watch_tf(self) -> None:
        """Listens to /tf while a transform is to be sent: others may place the same frame."""
        if self._active_since is not None and self._sends_tf(self.settings) and TF not in self._inlets:
            self._subscribe(TF, self._wiring[TF])

    def _refuse_odometry(self, problem: str) -> None:
        """The depth measures what the odometry only says."""
        self.inputs.refuse_odometry(problem)
        self._name_sources()
        self._say.error(self.inputs.odometry_problem(""))

    def _name_sources(self) -> None:
        """The sources of scale that are in use now, for every status."""
        self.publication.scale_sources = scale_sources(self._wiring, without=self.reception.unused())

    def _initial_pose(self, message: Any) -> None:
        """Between two images."""

        def now() -> None:
            problem = self.publication.initial_pose(message)
            if problem:
                self._say.warning(f"{self._wiring[INITIAL_POSE].topic} is not used: {problem}")

        self.core.between_images(now)

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
        self._name_sources()
        current = dict(self.reception.problems())
        current["node name"] = twins(str(self.get_fully_qualified_name()), nodes_of(self))
        for name, source in self._wiring.items():
            topic = self._subscribed.get(name) or self._as_subscribed(name, source)
            heard = self.reception.heard.get(name)
            if name in (TF, TF_STATIC, INITIAL_POSE) or (
                heard is not None and topic.type == "sensor_msgs/msg/CameraInfo"
            ):
                continue  # these need not be repeated
            publishers = publishers_of(self, topic.name)
            if publishers:
                self._offered_since.setdefault(name, now)
            else:
                self._offered_since.pop(name, None)
            began = max(heard or 0.0, self._active_since, self._offered_since.get(name, 0.0))
            if now - began < self.settings.no_data_timeout_s:
                if heard is None and name in self._complaints:
                    current[name] = self._complaints[name][0]  # a new publisher has this long to send something
                continue
            other = other_form(name, topic.name)
            current[name] = silence(
                topic.name,
                topic.type,
                topic.qos,
                publishers,
                now - began,
                ever=heard is not None,
                other_form=other if other is not None and self.count_publishers(other[0]) else None,
                similar=topics_of_type(self, topic.type),
                large=topic.type == "sensor_msgs/msg/Image",
                rmem_max=rmem_max(),
            )
        current = {name: text for name, text in current.items() if text}
        for name, text in current.items():
            before, logged = self._complaints.get(name, ("", -_REPEAT_S))
            if now - logged >= _REPEAT_S or another_cause(before, text):
                self._say.warning(text)
                logged = now
            self._complaints[name] = (text, logged)
        self._remark(current.values())
        for name in set(self._complaints) - set(current):
            label = self._subscribed[name].name if name in self._subscribed else name
            self._say.info(f"{label}: back to normal")
            del self._complaints[name]

    def _remark(self, complaints: Collection[str]) -> None:
        """Says what was found in the inputs' content, each once, except what stands among the complaints."""
        log = self.inputs.log
        for note in [text for text in log.notes if text not in self._remarks]:
            self._remarks.add(note)
            self._say.info(note)
        for text in log.unsaid(self._remarks, complaints):
            self._say.warning(f"{text} (later cases are counted in /diagnostics)")

    def _diagnose(self) -> None:
        state = str(self._state_machine.current_state[1])
        found = report(self.core, self.publication.last, self._standing(), state, self.inputs.log.warnings)
        message = diagnostic_message(
            found,
            stamp_ns=self._now_ns(),
            name=f"{self.get_fully_qualified_name()}: matching",
            hardware=self._wiring[IMAGE].topic,
        )
        self._diagnostics.publish(to_cdr(message))

    def _standing(self) -> list[str]:
        """What is wrong now, in words; first what does not go away by itself."""
        return [*self.publication.refusals(), *(text for text, _ in self._complaints.values())]

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
            if self._sends_tf(new) and TF not in self._outputs and self._outputs:
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
        self._watch_tf()
        self.publication.configuration = new
        self.reception.configure(new)
        self.core.apply(new, loaded)
