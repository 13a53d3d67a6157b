"""Is the covariance of metric odometry true? Normalised errors over windows of rendered flights.

    python benchmarks/odometry_covariance.py --out out/covariance --part judge --flights 240

Each flight is one window: a tracker that sees depth whose metre is wrong by 2 % (one draw a flight) and whose pixels
are noisy, through a camera whose calibration is wrong by 0.2 % (one draw a flight). So no two windows share an image or
an error. After 5, 20 and 100 frames the error of the pose in `odom` is divided by its covariance: NEES (normalised
estimation error squared) over the degrees of freedom is 1 where the covariance is true; below, it is too cautious;
above, too sure. Its 95th percentile is given beside that of chi-square. The twist is judged likewise, over all frames.

The constants of the model (`io/results/odometry.py`, `io/results/covariance_chain.py`) were chosen on the flights of
`--part fit`; the figures are those of `--part judge`: other textures, other paths. --by-kind gives a table for each
kind of flight.

With --unit there is no depth: the length is arbitrary, and five degrees of freedom are known: the rotation, and the
direction of the position from where the odometry begins. Frames before the first baseline have no odometry and are left
out; so are they of the windows of 5 and 20 frames. The pose relative to the keyframe is judged as well.
A window ends where the odometry says that it begins anew (9999 on the diagonal, after a long loss).
With --sequence the windows are cut from a recording with depth and true poses; the truth's own noise is added.

Flights are tracked once and kept in --out; a second call judges them again.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import chi2

from ros2_densematch import Camera, Frame, Tracker, TrackerConfig, load_matcher
from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.io.results.odometry import OdometryChain
from ros2_densematch.io.sources.opening import open_source
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.simulation.passes import PassFrame, fly_pass
from ros2_densematch.simulation.scene import Scene
from ros2_densematch.simulation.worlds import tabletop, workshop
from ros2_densematch.tracking.tracked_frame import TrackedFrame

LENGTHS = (5, 20, 100)
_WIDTH = 320
_WORLDS, _KINDS = ("workshop", "workshop", "tabletop"), ("plain", "exposure", "plain", "fast")
_FIRST, _FLIGHTS_A_SCENE = {"fit": 0, "judge": 60}, 60  # so both parts have textures of their own
_DEPTH_STD, _DEPTH_NOISE, _CALIBRATION_STD = 0.02, 0.01, 0.002
_TRUTH_STD = np.array([0.005] * 3 + [np.radians(0.3)] * 3)  # of motion capture and head tracking


@dataclass(frozen=True)
class Window:
    """A tracker's answers to the frames of one window, and the true poses (N, 4, 4) T_world_from_camera.

    `truth_std` (6,) is the noise of one true pose: position in metres, rotation in radians.
    """

    name: str
    tracked: list[TrackedFrame]
    truth: Float64
    truth_std: Float64


@lru_cache(2)
def scene(world: str, seed: int) -> Scene:
    return {"workshop": workshop, "tabletop": tabletop}[world](seed)


def flights(part: str, count: int) -> Iterator[tuple[str, int]]:
    """Name and number of each flight: slow and fast ones through both rendered scenes."""
    first = _FIRST[part]
    for number in range(first, first + count):
        world, kind = _WORLDS[number % 3], _KINDS[number % 4]
        yield f"{world}_{kind}_{number}", number


def flown(number: int) -> list[PassFrame]:
    """The frames of a flight.

    Raises:
        ValueError: no free path.
    """
    place = scene(_WORLDS[number % 3], number // _FLIGHTS_A_SCENE)
    return fly_pass(place, _KINDS[number % 4], seed=number, frames=LENGTHS[-1] + 1, width=_WIDTH)


def disturbed(
    frame: PassFrame, rng: np.random.Generator, metre: float, camera: Camera, index: int, stamp: int
) -> Frame:
    """What a tracker is told of a rendered frame: another metre, noisy depth, another calibration."""
    noise = 1.0 + _DEPTH_NOISE * rng.standard_normal(frame.depth.shape)
    depth = (frame.depth * metre * noise).astype(np.float32)
    return Frame(frame.image, stamp, index, camera, depth=depth)


def wrong_camera(camera: Camera, rng: np.random.Generator) -> Camera:
    """The calibration as somebody measured it."""
    K, focal = camera.K.copy(), camera.K[0, 0]
    K[0, 0] *= 1 + _CALIBRATION_STD * rng.standard_normal()
    K[1, 1] = K[0, 0]
    K[:2, 2] += _CALIBRATION_STD * focal * rng.standard_normal(2)
    return Camera.from_matrix(K, camera.width, camera.height)


def of_flight(name: str, number: int, matcher: Any, unit: bool) -> list[Window]:
    """The window of a flight; none where it finds no free path."""
    try:
        frames = flown(number)
    except ValueError:
        return []
    rng = np.random.default_rng([number, 0])
    metre = 1 + _DEPTH_STD * rng.standard_normal()
    camera = wrong_camera(frames[0].camera, rng)
    tracker = Tracker(matcher, TrackerConfig(seed=number))
    tracked = []
    for i, frame in enumerate(frames):
        given = disturbed(frame, rng, metre, camera, i, (1 + i) * 33_333_333)
        tracked.append(bare(tracker.process(replace(given, depth=None) if unit else given)))
    return [Window(name, tracked, np.stack([f.T_world_from_camera for f in frames]), np.zeros(6))]


def of_sequence(folder: Path, matcher: Any, step: int) -> Iterator[list[Window]]:
    """Windows that follow one another in a recording."""
    source = open_source(folder, SourceOptions())
    frames = [frame for frame in source if frame.camera is not None]
    assert source.ground_truth is not None
    known, inside = source.ground_truth.interpolated(np.array([f.stamp_ns for f in frames]))
    truth = np.full((len(frames), 4, 4), np.nan)
    truth[inside] = known.T_world_from_camera
    for start in range(0, len(frames) - LENGTHS[0], step):
        tracker = Tracker(matcher, TrackerConfig())
        part = frames[start : start + LENGTHS[-1] + 1]
        tracked = [bare(tracker.process(frame)) for frame in part]
        yield [Window(f"{folder.name}[{start}]", tracked, truth[start : start + len(part)], _TRUTH_STD)]


def kind_of(window: Window) -> str:
    """World and kind of the flight, or the recording."""
    return window.name.rstrip("0123456789[]_")


def bare(tracked: TrackedFrame) -> TrackedFrame:
    """Without matches: small enough to be kept."""
    return replace(tracked, correspondences=None, inliers=None)


def error_of(estimated: Float64, true: Float64) -> Float64:
    """(6,) left perturbation that leads from the estimated pose to the true one: position and rotation apart."""
    return np.concatenate([true[:3, 3] - estimated[:3, 3], poses.log_rotation(true[:3, :3] @ estimated[:3, :3].T)])


def nees(error: Float64, covariance: Float64, along: Float64 | None = None) -> float:
    """Normalised estimation error squared over its degrees of freedom: six, or five without what lies `along` (3,)."""
    seen = np.eye(6)
    if along is not None:
        seen = np.zeros((5, 6))
        seen[:2, :3] = np.linalg.svd(along[None])[2][1:]
        seen[2:, 3:] = np.eye(3)
    error, covariance = seen @ error, seen @ covariance @ seen.T
    return float(error @ np.linalg.pinv(covariance, rcond=1e-12, hermitian=True) @ error) / len(error)


def judge(windows: list[Window], *, unit: bool = False) -> dict[str, list[float]]:
    """NEES over its degrees of freedom by what is judged: pose after so many frames, twist of every frame.

    unit: lengths are arbitrary; of the pose (seen from where the odometry begins) and of the twist five degrees are
    known, and of the pose relative to the keyframe.
    """
    found: dict[str, list[float]] = {}
    for window in windows:
        chain, before = OdometryChain(), None
        origin = poses.inverse(window.truth[0])
        by_index = {t.index: i for i, t in enumerate(window.tracked)}
        for i, tracked in enumerate(window.tracked):
            state = chain.add(tracked, unscaled=unit)
            if state is None or not np.isfinite(window.truth[i]).all():
                before = None
                continue
            if state.apart:  # it says itself that nothing connects it to what was before: a new odometry begins
                break
            true = poses.compose(origin, window.truth[i])
            noise = np.diag(2 * window.truth_std**2)
            if i in LENGTHS:
                estimated, error = state.T_world_from_camera, error_of(state.T_world_from_camera, true)
                along = direction_of(estimated[:3, 3], error) if unit else None
                if not unit or along is not None:
                    value = nees(error, state.covariance + noise, along)
                    found.setdefault(f"pose after {i}", []).append(value)
                T = window.truth[by_index[tracked.keyframe_index]]
                if unit and (relative := of_relative_pose(tracked, poses.compose(poses.inverse(window.truth[i]), T))):
                    found.setdefault(f"relative pose after {i}", []).append(relative)
            if before is not None and state.velocity_covariance[0, 0] < 9999.0:
                then, then_ns = before
                seconds = (tracked.stamp_ns - then_ns) * 1e-9
                R = true[:3, :3]
                velocity = np.concatenate(
                    [R.T @ (true[:3, 3] - then[:3, 3]), R.T @ poses.log_rotation(R @ then[:3, :3].T)]
                )
                error = velocity / seconds - state.velocity
                along = direction_of(state.velocity[:3], error) if unit else None
                if not unit or along is not None:
                    value = nees(error, state.velocity_covariance + noise / seconds**2, along)
                    found.setdefault("twist", []).append(value)
            before = true, tracked.stamp_ns
    return found


def direction_of(estimated: Float64, error: Float64) -> Float64 | None:
    """Direction (3,) of an estimated vector in an arbitrary unit, and its error (6,) changed to the angle between it
    and the truth, times its length; None where one of them has no direction."""
    length, true = float(np.linalg.norm(estimated)), estimated + error[:3]
    if min(length, float(np.linalg.norm(true))) < 1e-6:
        return None
    u = estimated / length
    aside = true - (true @ u) * u
    angle = np.arctan2(np.linalg.norm(aside), true @ u)
    error[:3] = length * angle * aside / max(float(np.linalg.norm(aside)), 1e-12)
    return np.asarray(u)


def of_relative_pose(tracked: TrackedFrame, true: Float64) -> float | None:
    """NEES over five degrees of freedom of the pose relative to the keyframe, or None where it has no direction."""
    pose = tracked.relative_pose
    if pose is None or not pose.ok or np.linalg.norm(pose.T_query_from_reference[:3, 3]) < 0.5:
        return None
    error = error_of(pose.T_query_from_reference, true)
    along = direction_of(pose.T_query_from_reference[:3, 3], error)
    return None if along is None else nees(error, pose.covariance, along)


def table(found: dict[str, list[float]], dof: int) -> Iterator[str]:
    limit = chi2.ppf(0.95, dof) / dof
    yield f"| what | windows | mean NEES/dof | median | 95th percentile | that of chi-square ({dof}) |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name in sorted(found, key=lambda n: (len(n), n)):
        v = np.array(found[name])
        yield f"| {name} | {len(v)} | {v.mean():.2f} | {np.median(v):.2f} | {np.quantile(v, 0.95):.2f} | {limit:.2f} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps the tracked windows")
    parser.add_argument("--part", choices=sorted(_FIRST), default="judge")
    parser.add_argument("--flights", type=int, default=240, help="some of them find no free path and are left out")
    parser.add_argument("--by-kind", action="store_true", help="a table for each kind of flight too")
    parser.add_argument("--matcher", default="gcm")
    parser.add_argument("--unit", action="store_true", help="without depth")
    parser.add_argument("--sequence", type=Path, help="a recording with depth and true poses, instead of flights")
    parser.add_argument("--step", type=int, default=20, help="frames between the windows of a recording")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    windows: list[Window] = []
    matcher = load_matcher(arguments.matcher, device="cpu")
    if arguments.sequence is not None:
        kept = arguments.out / f"{arguments.sequence.name}.pickle"
        if not kept.is_file():
            kept.write_bytes(
                pickle.dumps([w for part in of_sequence(arguments.sequence, matcher, arguments.step) for w in part])
            )
        windows = pickle.loads(kept.read_bytes())
    else:
        for name, number in flights(arguments.part, arguments.flights):
            kept = arguments.out / f"{name}{'_unit' if arguments.unit else ''}.pickle"
            if not kept.is_file():
                kept.write_bytes(pickle.dumps(of_flight(name, number, matcher, arguments.unit)))
            windows += pickle.loads(kept.read_bytes())
            print(f"{name}: {len(windows)} windows", file=sys.stderr, flush=True)
    kinds = sorted({kind_of(w) for w in windows}) if arguments.by_kind else []
    for kind in ["", *kinds]:
        chosen = [w for w in windows if kind in ("", kind_of(w))]
        found = judge(chosen, unit=arguments.unit)
        print(f"\n{kind or 'all'}: {len(chosen)} windows\n")
        print("\n".join(table(found, 5 if arguments.unit else 6)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
