"""Returns to known places after cuts: how many are false, and how many of the possible ones are found.

    python benchmarks/returns.py --flights 20 --cuts 25
    python benchmarks/returns.py --doors 20 --flights 0

A flight through a rendered room is tracked with depth. Then the picture goes black for a while, and the camera is
somewhere else: at a place that it has seen or at one that it has not. From the state before the cut each cut is tried
for itself. A return is false when its pose is wrong by more than 0.3 m or 5 degrees. A return is possible when the
frame shows at least 0.4 of what some keyframe shows; it should come within 3 frames.

With --doors the camera has seen a corridor with two doors that look the same to the last stroke, and comes back to one
of them after so long that it may be anywhere: it must not say which one.

The gates of `tracking/returns.py` were chosen on these cuts.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from ros2_densematch import Camera, Frame, Tracker, TrackerConfig, load_matcher
from ros2_densematch.geometry import poses
from ros2_densematch.matchers.base import Matcher
from ros2_densematch.simulation.flight import demo_camera, demo_flight, look
from ros2_densematch.simulation.ground_truth import warp
from ros2_densematch.simulation.renderer import Rendering, render
from ros2_densematch.simulation.scene import Scene
from ros2_densematch.simulation.sensor import Sensor
from ros2_densematch.simulation.worlds import corridor, workshop
from ros2_densematch.tracking.tracked_frame import TrackedFrame

Float64 = NDArray[np.float64]
_SIZE, _STEP_NS = (320, 240), 50_000_000
_FLIGHT, _AFTER, _BLACK = 160, 3, 2
_WRONG_M, _WRONG_DEG, _POSSIBLE = 0.3, 5.0, 0.4


class Film:
    """Frames of a scene as a camera with depth sees them, one after the other."""

    def __init__(self, scene: Scene, camera: Camera, seed: int) -> None:
        self.camera, self._scene, self._sensor = camera, scene, Sensor(seed=seed)
        self._number = 0

    def frame(self, T: Float64 | None, stamp_ns: int) -> tuple[Frame, Rendering | None]:
        """The frame at a pose (4, 4); black without one."""
        self._number += 1
        if T is None:
            black = np.zeros((self.camera.height, self.camera.width, 3), np.uint8)
            return Frame(black, stamp_ns, self._number, self.camera), None
        drawn = render(self._scene, self.camera, T)
        image = self._sensor.expose(drawn.image, self._number)
        return Frame(image, stamp_ns, self._number, self.camera, depth=drawn.depth.astype(np.float32)), drawn


def overlap(camera: Camera, a: Rendering, T_a: Float64, b: Rendering, T_b: Float64) -> float:
    """Share of the pixels of a that b shows."""
    return float(warp(a.depth, camera, T_a, b.depth, camera, T_b, tolerance=0.05)[1].mean())


def wrong(found: TrackedFrame, T_first: Float64, T: Float64) -> bool:
    """Whether the pose of a frame is false."""
    assert found.T_world_from_camera is not None
    true = poses.compose(poses.inverse(T_first), T)
    moved = float(np.linalg.norm(true[:3, 3] - found.T_world_from_camera[:3, 3]))
    return moved > _WRONG_M or poses.rotation_angle_deg(true, found.T_world_from_camera) > _WRONG_DEG


def cuts_of_flight(matcher: Matcher, seed: int, count: int, tally: Counter[str]) -> None:
    """Tracks a part of the demo's flight and tries cuts from its end."""
    rng = np.random.default_rng(seed)
    flight, camera = demo_flight(_FLIGHT), demo_camera(*_SIZE)
    path = flight.T_world_from_camera
    film = Film(workshop(seed), camera, seed)
    tracker = Tracker(matcher, TrackerConfig(seed=seed))
    begin = int(rng.integers(0, 30))
    end = begin + int(rng.integers(35, 60))
    shown: dict[int, tuple[Rendering, Float64]] = {}
    stamp = 0
    for T in path[begin:end]:
        stamp += _STEP_NS
        frame, drawn = film.frame(T, stamp)
        tracker.process(frame)
        assert drawn is not None
        shown[frame.index] = drawn, T
    state = tracker._state  # frozen: every cut begins from it again
    for _ in range(count):
        tracker._state = state
        target = int(rng.integers(0, _FLIGHT - _AFTER * 2))
        seconds = float(rng.uniform(0.3, 8.0))
        now = stamp
        for _ in range(_BLACK):
            now += round(seconds * 1e9 / _BLACK)
            tracker.process(film.frame(None, now)[0])
        possible, result = False, ""
        for i in range(_AFTER):
            now += _STEP_NS
            T = path[target + i]
            frame, drawn = film.frame(T, now)
            assert drawn is not None
            if i == 0:
                kept = [shown[k.frame_index] for k in tracker.keyframes if k.frame_index in shown]
                possible = any(overlap(camera, d, P, drawn, T) >= _POSSIBLE for d, P in kept)
            found = tracker.process(frame)
            if found.segment == 0 and found.T_world_from_camera is not None:
                result = "false" if wrong(found, path[begin], T) else "right"
                break
        tally["cuts"] += 1
        tally["possible"] += possible
        tally[f"{result or 'none'} of {'possible' if possible else 'impossible'}"] += 1
        if result == "false":
            print(f"false: seed {seed}, to frame {target} after {seconds:.1f} s: {found.reason}", flush=True)
    tally["flights"] += 1


def doors(matcher: Matcher, seed: int, tally: Counter[str]) -> None:
    """Passes two identical doors of a corridor, and comes back to one of them."""
    rng = np.random.default_rng(seed)
    camera = demo_camera(*_SIZE)
    film = Film(corridor(seed), camera, seed)
    tracker = Tracker(matcher, TrackerConfig(seed=seed, max_lost_frames=100))

    def at(x: float) -> Float64:
        return look(np.array([x, 0.0, 1.4]), np.radians(90.0), 0.0, 0.0)

    stamp, first = 0, at(1.0)
    for x in np.arange(1.0, 9.01, 0.15):
        stamp += _STEP_NS
        tracker.process(film.frame(at(x), stamp)[0])
    for _ in range(_BLACK):
        stamp += 4_000_000_000
        tracker.process(film.frame(None, stamp)[0])
    door = float(rng.choice([2.0, 8.0]))
    for i in range(4):
        stamp += _STEP_NS
        T = at(door + 0.03 * i)
        found = tracker.process(film.frame(T, stamp)[0])
        if found.T_world_from_camera is not None:
            tally["false" if wrong(found, first, T) else "right by luck"] += 1
            break
    else:
        tally["ambiguous" if "ambiguous" in found.reason else "lost for another reason"] += 1
    tally["doors"] += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flights", type=int, default=20)
    parser.add_argument("--cuts", type=int, default=25, help="cuts a flight")
    parser.add_argument("--doors", type=int, default=0)
    parser.add_argument("--matcher", default="gcm")
    arguments = parser.parse_args()
    matcher = load_matcher(arguments.matcher, device="cpu")
    tally: Counter[str] = Counter()
    for seed in range(arguments.flights):
        cuts_of_flight(matcher, seed, arguments.cuts, tally)
        print(dict(tally), flush=True)
    for seed in range(arguments.doors):
        doors(matcher, seed, tally)
        print(dict(tally), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
