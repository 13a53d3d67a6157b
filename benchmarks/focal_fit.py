"""Does the test of the focal length warn where it is wrong, and only there? Rendered passes with known cameras.

    python benchmarks/focal_fit.py [--flights 300] [--error 0.05] [--matcher gcm] [--jobs 1] [--out FILE]

Each pass (24 frames of 1.6 s, every kind of disturbance but the zoom) is tracked with the true calibration and, where
the motion would show an error, with focal lengths that are too long and too short in turn. False alarms are warnings
with the true one, at the end of the pass (as a replay tests) or after any frame of it (more often than the live node
asks). Passes whose findings are in FILE already are not flown again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.focal_fit import FocalFinding, FocalFit
from ros2_densematch.geometry.relative_pose import RelativePose
from ros2_densematch.geometry.two_view import estimate_relative_pose
from ros2_densematch.matchers.registry import load_matcher
from ros2_densematch.simulation.ground_truth import warp
from ros2_densematch.simulation.passes import KINDS, PassFrame, fly_pass
from ros2_densematch.simulation.worlds import tabletop, workshop
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.tracker import Tracker

_KINDS = [kind for kind in KINDS if kind != "zoom"]
_RATE_HZ = 15.0
KEYFRAME_EVERY = 4


def flight(seed: int, width: int) -> list[PassFrame]:
    """A pass that the seed chooses."""
    scene = workshop() if seed % 4 == 1 else tabletop(seed)
    for again in range(20):  # some seeds find no free path
        with suppress(ValueError):
            return fly_pass(scene, kind_of(seed), seed=seed + 1000 * again, width=width, rate_hz=_RATE_HZ)
    raise RuntimeError(f"no free path for a pass of kind {kind_of(seed)}")


def kind_of(seed: int) -> str:
    """The disturbance of a pass."""
    return _KINDS[seed // 2 % len(_KINDS)]


@dataclass
class FocalTrial:
    """What one pass with one focal length gave.

    Attributes:
        fit: after the last frame.
        ever: whether it warned after any frame.
        share: of the time of tracking that the test took.
    """

    fit: FocalFit = field(default_factory=FocalFit)
    ever: bool = False
    share: float = 0.0

    def add(
        self,
        m: Correspondences,
        inliers: NDArray[np.bool_],
        camera: Camera,
        pose: RelativePose,
        frame: int,
        reference: int,
    ) -> None:
        """Takes a pair, and asks as often as possible."""
        self.fit.add(m, inliers, camera, pose, frame=frame, reference=reference)
        self.ever = self.ever or bool(self.fit.doubt())


def tracked(frames: list[PassFrame], factor: float, matcher: str) -> FocalTrial:
    """The outcome of tracking with a focal length that is wrong by this factor."""
    tracker, outcome = Tracker(load_matcher(matcher)), FocalTrial()
    spent = total = 0.0
    for i, frame in enumerate(frames):
        camera = scaled(frame.camera, factor)
        begin = time.process_time()
        found = tracker.process(Frame(frame.image, round(i * 1e9 / _RATE_HZ), i, camera))
        middle = time.process_time()
        m, pose, inliers = found.correspondences, found.relative_pose, found.inliers
        if m is not None and pose is not None and inliers is not None and pose.ok:
            outcome.add(m, inliers, camera, pose, i, found.keyframe_index)
        spent += time.process_time() - middle
        total += time.process_time() - begin
    outcome.share = spent / total
    return outcome


def simulated(frames: list[PassFrame], factor: float, seed: int) -> FocalTrial:
    """As `tracked`, with matches made from the depth: noise, a drift over the image, and false ones."""
    outcome, rng, spent, total = FocalTrial(), np.random.default_rng(seed), 0.0, 0.0
    for i, frame in enumerate(frames):
        first = i // KEYFRAME_EVERY * KEYFRAME_EVERY
        if i == first:
            continue
        m = simulated_matches(frames[first], frame, rng)
        camera = scaled(frame.camera, factor)
        begin = time.process_time()
        pose = estimate_relative_pose(m, camera, camera, seed=i)
        middle = time.process_time()
        if pose.ok:
            outcome.add(m, pose.inliers, camera, pose, i, first)
        spent += time.process_time() - middle
        total += time.process_time() - begin
    outcome.share = spent / total
    return outcome


def simulated_matches(reference: PassFrame, query: PassFrame, rng: np.random.Generator) -> Correspondences:
    """Up to 600 matches between two frames, of which a tenth is false."""
    place, visible = warp(
        reference.depth, reference.camera, reference.T_world_from_camera,
        query.depth, query.camera, query.T_world_from_camera,
    )  # fmt: skip
    y, x = np.nonzero(visible & reference.scenery)
    chosen = rng.choice(len(x), min(len(x), 600), replace=False)
    xy0 = np.stack([x, y], 1)[chosen].astype(np.float64)
    height, width = reference.depth.shape
    xy1 = place[y, x][chosen] + rng.normal(0, 0.4, xy0.shape)
    unit = np.column_stack([np.ones(len(xy0)), xy0 / (width / 2) - 1])
    xy1 += unit @ rng.normal(0, 0.15, (3, 2))  # matches of whole surfaces err together
    false = rng.random(len(xy0)) < 0.1
    xy1[false] = rng.uniform((0, 0), (width, height), (int(false.sum()), 2))
    inside = (xy1 >= 0).all(1) & (xy1 <= (width - 1, height - 1)).all(1)
    xy0, xy1 = xy0[inside].astype(np.float32), xy1[inside].astype(np.float32)
    size = (width, height)
    return Correspondences(xy0, xy1, np.ones(len(xy0), np.float32), 1.0, size, size)


def scaled(camera: Camera, factor: float) -> Camera:
    """The camera with another focal length."""
    K = np.array(camera.K)
    K[0, 0] *= factor
    K[1, 1] *= factor
    return Camera.from_matrix(K, camera.width, camera.height)


def measure(seed: int, error: float, width: int, matcher: str) -> dict[str, Any]:
    """The findings on one pass with the true and with a wrong focal length."""
    frames = flight(seed, width)
    wrong = 1.0 + (error if seed % 8 < 4 else -error)
    row: dict[str, Any] = {**_key(seed, error, width, matcher), "kind": kind_of(seed), "wrong": wrong}
    simulate = matcher == "simulated"
    for name, factor in (("true", 1.0), ("false", wrong)):
        if name == "false" and not _is(row, "true", "shown"):
            break
        outcome = simulated(frames, factor, seed) if simulate else tracked(frames, factor, matcher)
        finding = outcome.fit.finding()
        row[name] = {
            "finding": None if finding is None else asdict(finding),
            "ever": outcome.ever,
            "time": outcome.share,
        }
    return row


def _is(row: dict[str, Any], name: str, what: str) -> bool:
    """What the finding on a pass says, by the thresholds of today: "shown" or "wrong"."""
    finding = row.get(name, {}).get("finding")
    return finding is not None and bool(getattr(FocalFinding(**finding), what))


def _key(seed: int, error: float, width: int, matcher: str) -> dict[str, Any]:
    return {"seed": seed, "error": error, "width": width, "matcher": matcher}


def _known(file: Path | None, error: float, width: int, matcher: str) -> dict[int, dict[str, Any]]:
    """Findings of an earlier run with the same settings, by seed; a line that was cut is left out."""
    found = {}
    for line in file.read_text("utf-8").splitlines() if file is not None and file.exists() else ():
        with suppress(ValueError):
            row = json.loads(line)
            if row.items() >= _key(row["seed"], error, width, matcher).items():
                found[row["seed"]] = row
    return found


def _measured(wanted: list[tuple[int, float, int, str]], jobs: int) -> Iterator[dict[str, Any]]:
    if jobs == 1:
        yield from starmap(measure, wanted)
        return
    with ProcessPoolExecutor(jobs) as pool:
        for job in as_completed([pool.submit(measure, *arguments) for arguments in wanted]):
            yield job.result()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flights", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="seed of the first flight")
    parser.add_argument("--error", type=float, default=0.05, help="relative error of the focal length")
    parser.add_argument("--width", type=int, default=240, help="of the images, pixels")
    parser.add_argument("--matcher", default="simulated", help="or the name of one")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file for the findings, one JSON line a pass; what it holds is kept")
    options = parser.parse_args()
    settings = (options.error, options.width, options.matcher)
    known = _known(options.out, *settings)
    seeds = range(options.first, options.first + options.flights)
    rows = [known[seed] for seed in seeds if seed in known]
    for row in _measured([(seed, *settings) for seed in seeds if seed not in known], options.jobs):
        rows.append(row)
        if options.out is not None:
            with options.out.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
    shown = [row for row in rows if _is(row, "true", "shown")]
    alarms, ever = sum(_is(row, "true", "wrong") for row in rows), sum(row["true"]["ever"] for row in rows)
    deviation = max((abs(row["true"]["finding"]["factor"] - 1.0) for row in shown), default=0.0)
    print(f"{len(rows)} passes, {len(shown)} whose motion would show an error")
    print(f"true focal length: {alarms} false alarms at the end, {ever} at any time; at most {deviation:.1%} off")
    own = [row for row in shown if _is(row, "false", "shown")]
    found = sum(_is(row, "false", "wrong") for row in own)
    print(f"{options.error:.0%} error: shown by {len(own)} of these {len(shown)}, warned of in {found}")
    print(f"share of the time: {np.mean([row['true']['time'] for row in rows]):.2%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
