"""Returns to known places after cuts: how many are false, and how many of the possible ones are found.

    python benchmarks/returns.py --out out/returns --half judge --flights 20 --cuts 25 --corridors 10 --doors 6

A short flight through a rendered room is tracked with depth. Then the picture goes black, and after some seconds the
camera is somewhere else: near a place that it has seen, or anywhere in the room. From the state before the cut each
cut is tried for itself, for three frames. A return is false when its pose is wrong by more than 0.3 m or 5 degrees. It
is possible when the frame shows at least 0.4 of what some keyframe shows and the camera can have come there: at no more
than 1 m/s and 90 degrees/s on the average, or after 5 s, when it may have been carried off.

In a corridor the camera has seen two doors that look the same to the last stroke. It comes back to one of them after so
long that it may be anywhere (it must not say which one), or to the posters between them (it must say where).

The gates of `tracking/returns.py` were chosen on the flights of `--half fit`; the figures are those of `--half judge`:
other textures, other paths. What was tried is kept in --out, flight by flight; a second call goes on. With --hurried
the tracker has a time budget that it always exceeds, as the live node on a slow computer.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ros2_densematch import Camera, Frame, Tracker, TrackerConfig, load_matcher
from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.matchers.base import Matcher
from ros2_densematch.simulation.flight import demo_camera, demo_flight, look
from ros2_densematch.simulation.ground_truth import warp
from ros2_densematch.simulation.passes import fly_pass
from ros2_densematch.simulation.renderer import Rendering, render
from ros2_densematch.simulation.scene import Scene
from ros2_densematch.simulation.sensor import Sensor
from ros2_densematch.simulation.worlds import corridor, tabletop, workshop
from ros2_densematch.tracking.tracked_frame import TrackedFrame

_SIZE, _STEP_NS = (320, 240), 50_000_000
_FLIGHT, _AFTER, _BLACK_S = 160, 3, 0.1
_WRONG_M, _WRONG_DEG, _POSSIBLE = 0.3, 5.0, 0.4
_SPEED, _RATE_DEG, _ANYWHERE_S = 1.0, 90.0, 5.0
_HALVES = {"fit": 0, "judge": 10_000}


@dataclass(frozen=True)
class Cut:
    """What came of one cut.

    Attributes:
        flight: name.
        to: "near" a place on the path, "anywhere" in the room, "door" or "posters" of a corridor.
        seconds: without a picture.
        overlap: with the keyframe that shows most of the first frame.
        in_time: the camera can have come there.
        result: "right", "false" or "none".
        frames: until the return; those tried where there is none.
        error_m, error_deg: of the return, else NaN.
        reason: of the last frame.
    """

    flight: str
    to: str
    seconds: float
    overlap: float
    in_time: bool
    result: str
    frames: int
    error_m: float
    error_deg: float
    reason: str

    @property
    def possible(self) -> bool:
        return self.overlap >= _POSSIBLE and self.in_time and self.to != "door"


class Film:
    """Frames of a scene as a camera with depth sees them, one after the other."""

    def __init__(self, scene: Scene, camera: Camera, seed: int) -> None:
        self.camera, self._scene, self._sensor = camera, scene, Sensor(seed=seed)
        self._number = 0

    def frame(self, T: Float64, stamp_ns: int) -> tuple[Frame, Rendering]:
        """The frame at a pose (4, 4)."""
        self._number += 1
        drawn = render(self._scene, self.camera, T)
        image = self._sensor.expose(drawn.image, self._number)
        return Frame(image, stamp_ns, self._number, self.camera, depth=drawn.depth.astype(np.float32)), drawn

    def black(self, stamp_ns: int) -> Frame:
        self._number += 1
        return Frame(np.zeros((*_SIZE[::-1], 3), np.uint8), stamp_ns, self._number, self.camera)


def overlap(camera: Camera, a: Rendering, T_a: Float64, b: Rendering, T_b: Float64) -> float:
    """Share of the pixels of a that b shows."""
    return float(warp(a.depth, camera, T_a, b.depth, camera, T_b, tolerance=0.05)[1].mean())


def error(found: TrackedFrame, T_first: Float64, T: Float64) -> tuple[float, float]:
    """By how many metres and degrees the pose of a frame is wrong."""
    assert found.T_world_from_camera is not None
    true = poses.compose(poses.inverse(T_first), T)
    moved = float(np.linalg.norm(true[:3, 3] - found.T_world_from_camera[:3, 3]))
    return moved, poses.rotation_angle_deg(true, found.T_world_from_camera)


class Flown:
    """A flight that was tracked to its end and then saw black; cuts are tried from there.

    Args:
        path: (4, 4) poses of the flight.
        lost_frames: a new segment begins after so many; here never.
    """

    time_budget_ms = 0.0

    def __init__(self, name: str, matcher: Matcher, film: Film, path: list[Float64], seed: int) -> None:
        self.name, self.film, self._path = name, film, path
        self._tracker = Tracker(
            matcher, TrackerConfig(seed=seed, max_lost_frames=100, time_budget_ms=self.time_budget_ms)
        )
        self._shown: dict[int, tuple[Rendering, Float64]] = {}
        self._stamp = 0
        for T in path:
            self._stamp += _STEP_NS
            frame, drawn = film.frame(T, self._stamp)
            self._tracker.process(frame)
            self._shown[frame.index] = drawn, T
        self._tracker.process(film.black(self._stamp + round(_BLACK_S * 1e9)))
        self._state = self._tracker._state  # frozen: every cut begins from it again

    def cut(self, to: str, targets: list[Float64], seconds: float) -> Cut:
        """The frames at `targets` (4, 4) after so many seconds."""
        tracker, camera = self._tracker, self.film.camera
        tracker._state = self._state
        now, first, shared, last = self._stamp + round(seconds * 1e9), self._path[0], 0.0, self._path[-1]
        distance = float(np.linalg.norm(targets[0][:3, 3] - last[:3, 3]))
        turn = poses.rotation_angle_deg(targets[0], last)
        in_time = seconds > _ANYWHERE_S or (distance <= _SPEED * seconds and turn <= _RATE_DEG * seconds)
        result, wrong = "none", (float("nan"), float("nan"))
        for i, T in enumerate(targets):
            now += _STEP_NS
            frame, drawn = self.film.frame(T, now)
            if i == 0:
                kept = [self._shown[k.frame_index] for k in tracker.keyframes if k.frame_index in self._shown]
                shared = max((overlap(camera, d, P, drawn, T) for d, P in kept), default=0.0)
            found = tracker.process(frame)
            if found.T_world_from_camera is not None:
                wrong = error(found, first, T)
                result = "false" if wrong[0] > _WRONG_M or wrong[1] > _WRONG_DEG else "right"
                break
        return Cut(self.name, to, seconds, shared, in_time, result, i + 1, *wrong, found.reason)


def flight(matcher: Matcher, seed: int, count: int) -> Iterator[Cut]:
    """A flight through a room, and cuts from its end."""
    rng = np.random.default_rng([seed, 1])
    scene = tabletop(seed) if seed % 4 == 3 else workshop(seed)
    if seed % 2:
        frames = _some_pass(scene, seed)
        path, camera = [f.T_world_from_camera for f in frames], frames[0].camera
        stretch = path
    else:
        stretch, camera = list(demo_flight(_FLIGHT).T_world_from_camera), demo_camera(*_SIZE)
        begin = int(rng.integers(0, 30))
        path = stretch[begin : begin + int(rng.integers(35, 60))]
    film = Film(scene, camera, seed)
    flown = Flown(f"room {seed}", matcher, film, path, seed)
    low, high = _inside(scene)
    for k in range(count):
        to = "anywhere" if k % 5 == 0 else "near"
        for _ in range(50):
            T = stretch[int(rng.integers(len(stretch)))].copy()
            if to == "near":
                T[:3, 3] += rng.normal(size=3) * (0.25, 0.25, 0.1)
                T[:3, :3] = T[:3, :3] @ poses.exp_rotation(np.radians(rng.normal(size=3) * (5, 12, 4)))
            else:
                T = look(rng.uniform(low, high), rng.uniform(-np.pi, np.pi), rng.uniform(-0.2, 0.3), 0.0)
            if _free(scene, camera, T):
                break
        else:
            continue
        step = poses.make_pose(poses.exp_rotation(rng.normal(size=3) * 0.01), rng.normal(size=3) * 0.02)
        targets = [T, poses.compose(T, step), poses.compose(T, step, step)]
        yield flown.cut(to, targets, float(rng.uniform(0.5, 9.0)))


def doors(matcher: Matcher, seed: int, count: int) -> Iterator[Cut]:
    """A way past two identical doors, and cuts to one of them or to the posters between."""
    rng = np.random.default_rng([seed, 2])
    film = Film(corridor(seed), demo_camera(*_SIZE), seed)

    def at(x: float, y: float = 0.0, turn_deg: float = 0.0) -> Float64:
        return look(np.array([x, y, 1.4]), np.radians(90.0 + turn_deg), 0.0, 0.0)

    flown = Flown(f"corridor {seed}", matcher, film, [at(x) for x in np.arange(1.0, 9.01, 0.15)], seed)
    for k in range(count):
        to, x = ("posters", 5.0) if k % 3 == 2 else ("door", float(rng.choice([2.0, 8.0])))
        x, y, turn_deg = x + rng.normal() * 0.15, float(rng.uniform(-0.2, 0.2)), float(rng.normal() * 2)
        yield flown.cut(to, [at(x + 0.03 * i, y, turn_deg) for i in range(_AFTER)], float(rng.uniform(6.0, 12.0)))


def _some_pass(scene: Scene, seed: int):  # type: ignore[no-untyped-def]
    for again in range(20):
        try:
            return fly_pass(scene, "plain", seed=seed + 100_000 * again, frames=45, width=_SIZE[0], rate_hz=12.0)
        except ValueError:  # no free path for this seed
            continue
    raise AssertionError("no free path")


def _inside(scene: Scene) -> tuple[Float64, Float64]:
    corners = np.concatenate([[s.origin, s.origin + s.edge_u + s.edge_v] for s in scene.surfaces])
    low, high = corners.min(0), corners.max(0)
    return low + (high - low) * (0.1, 0.15, 0.35), low + (high - low) * (0.7, 0.85, 0.65)


def _free(scene: Scene, camera: Camera, T: Float64) -> bool:
    depth = render(scene, camera.resized(80, 60), T).depth
    return bool((depth > 0).mean() > 0.5 and np.quantile(depth[depth > 0], 0.01) > 0.3)


def summary(cuts: list[Cut]) -> Iterator[str]:
    rooms = [c for c in cuts if c.to in ("near", "anywhere", "posters")]
    at_doors = [c for c in cuts if c.to == "door"]
    possible = [c for c in rooms if c.possible]
    yield f"{len(cuts)} cuts of {len({c.flight for c in cuts})} flights, {sum(c.result == 'false' for c in cuts)} false"
    for name, chosen in (
        ("possible", possible),
        ("  after less than 5 s", [c for c in possible if c.seconds <= _ANYWHERE_S]),
        ("  after more than 5 s", [c for c in possible if c.seconds > _ANYWHERE_S]),
        ("  on the posters", [c for c in possible if c.to == "posters"]),
        ("where the camera cannot have come so soon", [c for c in rooms if not c.in_time]),
        ("overlap less than 0.4", [c for c in rooms if c.in_time and not c.possible]),
        ("doors", at_doors),
    ):
        n = Counter(c.result for c in chosen)
        share = f" ({100 * n['right'] / len(chosen):.0f} %)" if chosen else ""
        yield f"{name}: {len(chosen)}; right {n['right']}{share}, false {n['false']}, none {n['none']}"
    lost = [c for c in at_doors if c.result == "none"]
    yield f"doors LOST as ambiguous: {sum('ambiguous' in c.reason for c in lost)} of {len(lost)}"
    for c in cuts:
        if c.result == "false":
            yield f"false: {c}"


def kept(file: Path, make: Callable[[], Iterator[Cut]]) -> list[Cut]:
    """The cuts of a file, which is made where it is not there."""
    if not file.is_file():
        file.write_text(json.dumps([asdict(c) for c in make()], indent=1))
    return [Cut(**c) for c in json.loads(file.read_text())]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps what was tried")
    parser.add_argument("--half", choices=sorted(_HALVES), default="judge")
    parser.add_argument("--flights", type=int, default=20)
    parser.add_argument("--cuts", type=int, default=25, help="cuts a flight")
    parser.add_argument("--corridors", type=int, default=10)
    parser.add_argument("--doors", type=int, default=6, help="cuts a corridor")
    parser.add_argument("--matcher", default="gcm")
    parser.add_argument("--hurried", action="store_true", help="over the time budget in every frame")
    arguments = parser.parse_args()
    Flown.time_budget_ms = 1e-6 if arguments.hurried else 0.0
    arguments.out.mkdir(parents=True, exist_ok=True)
    matcher = load_matcher(arguments.matcher, device="cpu")
    cuts: list[Cut] = []
    for make, number, count in (
        (flight, arguments.flights, arguments.cuts),
        (doors, arguments.corridors, arguments.doors),
    ):
        for k in range(number):
            seed = _HALVES[arguments.half] + k
            file = arguments.out / f"{make.__name__}_{seed}_{count}.json"
            cuts += kept(file, lambda make=make, seed=seed, count=count: make(matcher, seed, count))  # type: ignore[misc]
            print(f"{len(cuts)} cuts, {sum(c.result == 'false' for c in cuts)} false", file=sys.stderr, flush=True)
    print("\n".join(summary(cuts)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
