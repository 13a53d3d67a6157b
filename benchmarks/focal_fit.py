"""Does the test of the focal length warn where it is wrong, and only there? Rendered passes with known cameras.

    python benchmarks/focal_fit.py [--flights 120] [--error 0.05] [--matcher gcm] [--jobs 1]

Each pass (24 frames of 1.6 s, two scenes, every kind of disturbance but the zoom) is tracked with the true calibration
and with focal lengths that are too long and too short in turn. False alarms are warnings with the true one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.focal_fit import FocalFit
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
    scene = workshop() if seed % 2 else tabletop(seed)
    for again in range(20):  # some seeds find no free path
        with suppress(ValueError):
            return fly_pass(scene, kind_of(seed), seed=seed + 1000 * again, width=width, rate_hz=_RATE_HZ)
    raise RuntimeError(f"no free path for a pass of kind {kind_of(seed)}")


def kind_of(seed: int) -> str:
    """The disturbance of a pass."""
    return _KINDS[seed // 2 % len(_KINDS)]


def tracked(frames: list[PassFrame], factor: float, matcher: str) -> tuple[FocalFit, float]:
    """The fit after tracking with a focal length that is wrong by this factor, and its share of the time."""
    tracker, fit = Tracker(load_matcher(matcher)), FocalFit()
    spent = total = 0.0
    for i, frame in enumerate(frames):
        camera = scaled(frame.camera, factor)
        begin = time.process_time()
        found = tracker.process(Frame(frame.image, round(i * 1e9 / _RATE_HZ), i, camera))
        middle = time.process_time()
        if found.relative_pose is not None and found.relative_pose.ok and found.inliers is not None:
            fit.add(
                found.correspondences,
                found.inliers,
                camera,
                found.relative_pose,
                frame=i,
                reference=found.keyframe_index,
            )
        spent += time.process_time() - middle
        total += time.process_time() - begin
    return fit, spent / total


def simulated(frames: list[PassFrame], factor: float, seed: int) -> tuple[FocalFit, float]:
    """As `tracked`, with matches made from the depth: noise, a drift over the image, and false ones."""
    fit, rng, spent, total = FocalFit(), np.random.default_rng(seed), 0.0, 0.0
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
            fit.add(m, pose.inliers, camera, pose, frame=i, reference=first)
        spent += time.process_time() - middle
        total += time.process_time() - begin
    return fit, spent / total


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
    wrong = 1.0 + (error if seed % 4 < 2 else -error)
    row: dict[str, Any] = {"seed": seed, "kind": kind_of(seed), "wrong": wrong}
    for name, factor in (("true", 1.0), ("false", wrong)):
        simulate = matcher == "simulated"
        fit, share = simulated(frames, factor, seed) if simulate else tracked(frames, factor, matcher)
        finding = fit.finding()
        row[name] = {
            "factor": None if finding is None else finding.factor,
            "std": None if finding is None else finding.std,
            "pairs": 0 if finding is None else finding.pairs,
            "groups": 0 if finding is None else finding.groups,
            "shown": fit.shown,
            "warned": bool(fit.doubt()),
            "time": share,
        }
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flights", type=int, default=120)
    parser.add_argument("--first", type=int, default=0, help="seed of the first flight")
    parser.add_argument("--error", type=float, default=0.05, help="relative error of the focal length")
    parser.add_argument("--width", type=int, default=320, help="of the images, pixels")
    parser.add_argument("--matcher", default="simulated", help="or the name of one")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file for the findings, one JSON line a pass")
    options = parser.parse_args()
    rows = []
    with ProcessPoolExecutor(options.jobs) as pool:
        seeds = range(options.first, options.first + options.flights)
        jobs = [pool.submit(measure, seed, options.error, options.width, options.matcher) for seed in seeds]
        for job in jobs:
            rows.append(job.result())
            if options.out is not None:
                with options.out.open("a") as stream:
                    stream.write(json.dumps(rows[-1]) + "\n")
    alarms = sum(row["true"]["warned"] for row in rows)
    shown = [row for row in rows if row["false"]["shown"]]
    found = sum(row["false"]["warned"] for row in shown)
    print(f"{len(rows)} passes: {alarms} false alarms")
    print(
        f"{len(shown)} show an error of {options.error:.0%}: {found} are warned of ({found / max(len(shown), 1):.0%})"
    )
    print(f"share of the time: {np.mean([row['true']['time'] for row in rows]):.2%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
