"""Tracking with guided matches beside tracking with full ones only: accuracy, lost frames, time, how often guided.

    python benchmarks/guided_tracking.py --sequences tum hololens kitti_a flight --starts 0 20 40 --frames 60

Both trackers see the same frames with the same seed, one after the other in one process. ATE is in percent of the path
after similarity alignment, RPE in degrees from frame to frame. Times are medians in milliseconds over all frames, and
of the guided ones alone.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from compare_checkouts import HERE
from compare_tracking import accuracy
from tracking_sequences import NAMES, prepare

from ros2_densematch import Camera, Frame, Tracker, TrackerConfig, load_matcher
from ros2_densematch.matchers.base import Matcher


def track(matcher: Matcher, data: dict[str, Any], config: TrackerConfig) -> dict[str, Any]:
    """Poses, and what else is compared, of one run."""
    images = data["images"]
    camera = Camera(images.shape[2], images.shape[1], data["K"], str(data["model"]), data["D"])
    tracker = Tracker(matcher, config)
    found = [
        tracker.process(Frame(image, int(stamp), i, camera, depth=data.get(f"depth_{i}")))
        for i, (image, stamp) in enumerate(zip(images, data["stamps"], strict=True))
    ]
    nothing = np.full((4, 4), np.nan)
    times = [r.timings_ms for r in found]
    return {
        "T_world": np.stack([nothing if r.T_world_from_camera is None else r.T_world_from_camera for r in found]),
        "segment": np.array([r.segment for r in found]),
        "truth": data["truth"],
        "guided": np.array([r.guided for r in found]),
        "keyframes": sum(r.is_keyframe for r in found),
        "total": np.array([sum(t.values()) for t in times]),
        "stages": {k: np.array([t.get(k, 0.0) for t in times]) for k in ("encode", "match", "pose")},
        "full": [r.reason for r in found if not r.guided and "full match: " in r.reason],
    }


def line(name: str, run: dict[str, Any]) -> str:
    """One run in words."""
    ate, rpe, lost = accuracy(run)
    guided = run["guided"]
    text = (
        f"  {name:7} ATE {ate:7.3f} % RPE {rpe:.4f} deg, lost {lost}, segments {len(set(run['segment']))}, "
        f"keyframes {run['keyframes']}, {np.median(run['total']):.0f} ms a frame (90 %: "
        f"{np.quantile(run['total'], 0.9):.0f})"
    )
    if guided.any():
        stages = ", ".join(f"{k} {np.median(v[guided]):.1f}" for k, v in run["stages"].items())
        text += f"; {100 * guided.mean():.0f} % guided: {np.median(run['total'][guided]):.0f} ms ({stages})"
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=" ".join((__doc__ or "").partition("\n\n")[0].split()))
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--matcher", default="gcm")
    parser.add_argument("--preset", default="base")
    parser.add_argument("--sequences", nargs="+", default=["tum", "tum_depth", "hololens", "kitti_a", "flight"])
    parser.add_argument("--starts", nargs="+", type=int, default=[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--reasons", action="store_true", help="show why full matches were made")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.sequences if name not in NAMES]
    if unknown:
        parser.error(f"there is no sequence {', '.join(unknown)}; there are {', '.join(NAMES)}")
    matcher = load_matcher(arguments.matcher, preset=arguments.preset, device="cpu")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, start, seed in itertools.product(arguments.sequences, arguments.starts, arguments.seeds):
            data = dict(np.load(prepare(name, arguments.data, Path(folder), start, arguments.frames)))
            print(f"{name} from frame {start}, seed {seed}, {len(data['stamps'])} frames", flush=True)
            runs = []
            for kind, guided in (("full", False), ("guided", True)):
                runs.append(track(matcher, data, TrackerConfig(seed=seed, guided=guided)))
                print(line(kind, runs[-1]), flush=True)
            if arguments.reasons:
                print("\n".join(f"    {reason}" for reason in runs[1]["full"]))
            rows.append([*accuracy(runs[0]), *accuracy(runs[1])])
    values = np.array(rows)
    for k, what in enumerate(("ATE %", "RPE deg", "lost frames")):
        full, guided = values[:, k], values[:, k + 3]
        error = np.nanstd(guided - full, ddof=min(1, len(values) - 1)) / np.sqrt(len(values))
        print(
            f"{what}: median {np.nanmedian(full):.4f} full, {np.nanmedian(guided):.4f} guided, "
            f"standard error {error:.4f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
