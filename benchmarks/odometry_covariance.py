"""Is the covariance of metric odometry true? Normalised errors over windows of rendered flights.

    python benchmarks/odometry_covariance.py --out out/covariance --flights 20 --windows 10

Each window is a tracker that begins on a frame of its own and sees depth whose metre is wrong by 2 % (one draw a
window) and whose pixels are noisy, through a camera whose calibration is wrong by 0.2 % (one draw a window); so no two
windows share an error. After 5, 20 and 100 frames the error of the pose in `odom` is divided by its covariance: NEES
(normalised estimation error squared) over the degrees of freedom is 1 where the covariance is true; below, it is too
cautious; above, too sure. Its 95th percentile is given beside that of chi-square. The twist is judged likewise, over
all frames.

With --unit the windows have no depth: the length is arbitrary, and the five observable degrees remain.
With --sequence the windows are cut from a recording with depth and true poses; the truth's own noise is added.

Flights are tracked once and kept in --out; a second call judges them again.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from ros2_densematch import Camera, Frame, Tracker, TrackerConfig, load_matcher
from ros2_densematch.geometry import poses
from ros2_densematch.io.results.odometry import OdometryChain
from ros2_densematch.io.sources.opening import open_source
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.simulation.passes import PassFrame, fly_pass
from ros2_densematch.simulation.worlds import tabletop, workshop
from ros2_densematch.tracking.tracked_frame import TrackedFrame

Float64 = NDArray[np.float64]
LENGTHS = (5, 20, 100)
_WIDTH = 320
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


def flights(count: int) -> Iterator[tuple[str, list[PassFrame], int]]:
    """Name, frames and seed of each flight: slow and fast ones through both rendered scenes."""
    made, seed = 0, 0
    scenes = {"workshop": workshop(), "tabletop": tabletop()}
    while made < count:
        name = ("workshop", "workshop", "tabletop")[seed % 3]
        kind = ("plain", "exposure", "plain", "fast")[seed % 4]
        seed += 1
        try:
            frames = fly_pass(scenes[name], kind, seed=1000 + seed, frames=LENGTHS[-1] + 1, width=_WIDTH)
        except ValueError:  # no free path for this seed
            continue
        made += 1
        yield f"{name}_{kind}_{seed}", frames, seed


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


def of_flight(name: str, frames: list[PassFrame], seed: int, matcher: Any, windows: int, unit: bool) -> list[Window]:
    """The windows of one flight. The first is the whole flight, the others begin later and end with it, or at 20."""
    found = []
    for k in range(windows):
        rng = np.random.default_rng([seed, k])
        start = 0 if k == 0 else int(rng.integers(1, len(frames) - 21))
        stop = len(frames) if k == 0 else start + 21
        metre = 1 + _DEPTH_STD * rng.standard_normal()
        camera = wrong_camera(frames[0].camera, rng)
        tracker = Tracker(matcher, TrackerConfig(seed=seed))
        tracked = []
        for i, frame in enumerate(frames[start:stop]):
            given = disturbed(frame, rng, metre, camera, i, (1 + i) * 33_333_333)
            tracked.append(bare(tracker.process(replace(given, depth=None) if unit else given)))
        truth = np.stack([f.T_world_from_camera for f in frames[start:stop]])
        found.append(Window(f"{name}[{start}]", tracked, truth, np.zeros(6)))
    return found


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


def bare(tracked: TrackedFrame) -> TrackedFrame:
    """Without matches: small enough to be kept."""
    return replace(tracked, correspondences=None, inliers=None)


def error_of(estimated: Float64, true: Float64) -> Float64:
    """(6,) left perturbation that leads from the estimated pose to the true one: position and rotation apart."""
    return np.concatenate([true[:3, 3] - estimated[:3, 3], poses.log_rotation(true[:3, :3] @ estimated[:3, :3].T)])


def nees(error: Float64, covariance: Float64) -> float:
    """Normalised estimation error squared."""
    return float(error @ np.linalg.pinv(covariance, rcond=1e-12, hermitian=True) @ error)


def judge(windows: list[Window]) -> dict[str, list[float]]:
    """NEES by what is judged: pose after so many frames, twist of every frame."""
    found: dict[str, list[float]] = {}
    for window in windows:
        chain, before = OdometryChain(), None
        origin = poses.inverse(window.truth[0])
        for i, tracked in enumerate(window.tracked):
            state = chain.add(tracked)
            if state is None or not np.isfinite(window.truth[i]).all():
                before = None
                continue
            true = poses.compose(origin, window.truth[i])
            noise = np.diag(2 * window.truth_std**2)
            if i in LENGTHS:
                value = nees(error_of(state.T_world_from_camera, true), state.covariance + noise)
                found.setdefault(f"pose after {i}", []).append(value / 6)
            if before is not None and state.velocity_covariance[0, 0] < 9999.0:
                then, then_ns = before
                seconds = (tracked.stamp_ns - then_ns) * 1e-9
                R = true[:3, :3]
                velocity = np.concatenate(
                    [R.T @ (true[:3, 3] - then[:3, 3]), R.T @ poses.log_rotation(R @ then[:3, :3].T)]
                )
                value = nees(velocity / seconds - state.velocity, state.velocity_covariance + noise / seconds**2)
                found.setdefault("twist", []).append(value / 6)
            before = true, tracked.stamp_ns
    return found


def judge_unit(windows: list[Window]) -> dict[str, list[float]]:
    """NEES over five degrees of the relative pose to the keyframe: rotation and direction of the translation."""
    found: dict[str, list[float]] = {}
    for window in windows:
        by_index = {t.index: i for i, t in enumerate(window.tracked)}
        for i in LENGTHS:
            if i >= len(window.tracked):
                continue
            tracked = window.tracked[i]
            pose = tracked.relative_pose
            if pose is None or not pose.ok or np.linalg.norm(pose.T_query_from_reference[:3, 3]) < 0.5:
                continue
            true = poses.compose(poses.inverse(window.truth[i]), window.truth[by_index[tracked.keyframe_index]])
            true[:3, 3] /= max(float(np.linalg.norm(true[:3, 3])), 1e-12)
            found.setdefault(f"pose after {i}", []).append(
                nees(error_of(pose.T_query_from_reference, true), pose.covariance) / 5
            )
    return found


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
    parser.add_argument("--flights", type=int, default=20)
    parser.add_argument("--windows", type=int, default=10, help="windows a flight")
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
        for name, frames, seed in flights(arguments.flights):
            kept = arguments.out / f"{name}_{arguments.windows}{'_unit' if arguments.unit else ''}.pickle"
            if not kept.is_file():
                made = of_flight(name, frames, seed, matcher, arguments.windows, arguments.unit)
                kept.write_bytes(pickle.dumps(made))
            windows += pickle.loads(kept.read_bytes())
            print(f"{name}: {len(windows)} windows", file=sys.stderr, flush=True)
    found = judge_unit(windows) if arguments.unit else judge(windows)
    print("\n".join(table(found, 5 if arguments.unit else 6)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
