"""Compares what the trackers of two checkouts say about the same frames, frame by frame, and how far they are from the
truth.

    python benchmarks/compare_tracking.py ../before
    python benchmarks/compare_tracking.py ../before --matcher gcm --sequences tum --frames 30 --seeds 0 1 2 3 4

Sequences: the three sample bags, hololens with depth, the demo's flight, a flight with cuts and blank stretches, a
kidnapping. Every frame that differs is shown with what it was and what it is. ATE is the root mean square of the
position errors in percent of the path after similarity alignment of the longest segment, RPE the same of the rotation
from frame to frame in degrees. The exit code is 0 where everything is identical.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from compare_checkouts import HERE, run_in
from numpy.typing import NDArray

_DEFAULT = ("bag_kitti", "bag_tum", "bag_t265", "hololens_depth", "flight", "cuts", "kidnapping")
_TEXTS = ("status", "reason")
_NUMBERS = ("keyframe_id", "segment", "scale", "num_inliers", "is_keyframe")
_POSES = ("T_world", "T_relative", "covariance")


def write(files: list[Path], out: Path, matcher_name: str, seeds: list[int], *, unguided: bool) -> None:
    """Tracks each sequence with the package that is imported, and writes one npz a sequence and seed."""
    import cv2
    import torch

    from ros2_densematch import Camera, Frame, Tracker, TrackerConfig, load_matcher

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    matcher = load_matcher(matcher_name, device="cpu")
    # a checkout from before guided matches always matches in full
    full: dict[str, Any] = {"guided": False} if unguided and "guided" in TrackerConfig.model_fields else {}
    for file, seed in itertools.product(files, seeds):
        data = dict(np.load(file))
        images, camera = data["images"], None
        if "K" in data:
            camera = Camera(images.shape[2], images.shape[1], data["K"], str(data["model"]), data["D"])
        tracker = Tracker(matcher, TrackerConfig(seed=seed, **full))
        rows: dict[str, list[Any]] = {name: [] for name in (*_TEXTS, *_NUMBERS, *_POSES)}
        for i, (image, stamp) in enumerate(zip(images, data["stamps"], strict=True)):
            found = tracker.process(Frame(image, int(stamp), i, camera, depth=data.get(f"depth_{i}")))
            nothing = np.full((4, 4), np.nan)
            relative = found.relative_pose
            rows["status"].append(found.status.value)
            rows["reason"].append(found.reason)
            for name in _NUMBERS:
                rows[name].append(int(getattr(found, name)))
            rows["T_world"].append(nothing if found.T_world_from_camera is None else found.T_world_from_camera)
            rows["T_relative"].append(nothing if relative is None else relative.T_query_from_reference)
            covariance = None if relative is None else relative.covariance
            rows["covariance"].append(np.full((6, 6), np.nan) if covariance is None else covariance)
        np.savez(out / f"{file.stem}_{seed}.npz", truth=data["truth"], **{k: np.array(v) for k, v in rows.items()})


def differences(old: Any, new: Any) -> list[str]:
    """A line for each frame of which the two say something else."""
    lines = []
    for i in range(len(old["status"])):
        changed = [
            f"{name} {old[name][i]} -> {new[name][i]}"
            for name in (*_TEXTS, *_NUMBERS)
            if not np.array_equal(old[name][i], new[name][i])
        ]
        for name in _POSES:
            if not np.array_equal(old[name][i], new[name][i], equal_nan=True):
                changed.append(f"{name} by {np.nanmax(np.abs(old[name][i] - new[name][i])):.2g}")
        if changed:
            lines.append(f"    frame {i}: {'; '.join(changed)}")
    return lines


def accuracy(run: Any) -> tuple[float, float, int]:
    """ATE in percent of the path, RPE in degrees, and the number of frames without a pose."""
    from ros2_densematch.evaluation.trajectory import relative_errors, rms
    from ros2_densematch.geometry.trajectory import align

    found = np.isfinite(run["T_world"]).all((1, 2))
    known = found & np.isfinite(run["truth"]).all((1, 2))
    lost = int(len(found) - found.sum())
    if known.sum() < 3:
        return float("nan"), float("nan"), lost
    segment = np.bincount(run["segment"][known]).argmax()
    index = np.flatnonzero(known & (run["segment"] == segment))
    estimated, true = run["T_world"][index], run["truth"][index]
    fit = align(estimated[:, :3, 3], true[:, :3, 3])
    path = float(np.linalg.norm(np.diff(true[:, :3, 3], axis=0), axis=1).sum())
    ate = 100 * rms(np.linalg.norm(fit.apply(estimated[:, :3, 3]) - true[:, :3, 3], axis=1)) / max(path, 1e-9)
    steps = np.stack([np.arange(len(index) - 1), np.arange(1, len(index))], 1)
    return ate, rms(relative_errors(estimated, true, steps, fit.scale)[1]), lost


def report(before: Path, after: Path) -> int:
    """Prints the comparison and gives the number of runs that differ."""
    differing, figures = 0, {}
    for file in sorted(before.glob("*.npz")):
        old, new = dict(np.load(file)), dict(np.load(after / file.name))
        lines = differences(old, new)
        differing += bool(lines)
        (ate, rpe, lost), (ate2, rpe2, lost2) = accuracy(old), accuracy(new)
        figures.setdefault(file.stem.rpartition("_")[0], []).append((ate, ate2, rpe, rpe2))
        verdict = f"{len(lines)} frames differ" if lines else "identical"
        print(
            f"{file.stem:20} {len(old['status']):4} frames, lost {lost} -> {lost2}, ATE {ate:.3f} -> {ate2:.3f} %, "
            f"RPE {rpe:.4f} -> {rpe2:.4f} deg: {verdict}"
        )
        print("\n".join(lines), end="\n" if lines else "")
    for name, rows in figures.items():
        values: NDArray[np.float64] = np.array(rows)
        if len(values) > 1 and np.isfinite(values).all():
            error = values[:, [0, 2]].std(0, ddof=1) / np.sqrt(len(values))
            change = values[:, [1, 3]].mean(0) - values[:, [0, 2]].mean(0)
            print(
                f"{name}: over {len(values)} seeds ATE by {change[0]:+.4f} % (standard error {error[0]:.4f}), "
                f"RPE by {change[1]:+.5f} degrees ({error[1]:.5f})"
            )
    return differing


def main() -> int:
    parser = argparse.ArgumentParser(description=" ".join((__doc__ or "").partition("\n\n")[0].split()))
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("--after", type=Path, default=HERE.parent, help="default: this checkout")
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--matcher", default="sift")
    parser.add_argument("--sequences", nargs="+", default=list(_DEFAULT))
    parser.add_argument("--start", type=int, default=0, help="first frame of each sequence")
    parser.add_argument("--frames", type=int, default=100, help="at most so many frames of each")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--unguided", action="store_true", help="match every frame in full, in both checkouts")
    parser.add_argument("--write", nargs="+", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write is not None:
        files, out = arguments.write[1:], arguments.write[0]
        write(files, out, arguments.matcher, arguments.seeds, unguided=arguments.unguided)
        return 0
    from tracking_sequences import NAMES, prepare

    unknown = [name for name in arguments.sequences if name not in NAMES]
    if unknown:
        parser.error(f"there is no sequence {', '.join(unknown)}; there are {', '.join(NAMES)}")
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder, "frames")
        frames.mkdir()
        files = [
            str(prepare(name, arguments.data, frames, arguments.start, arguments.frames))
            for name in arguments.sequences
        ]
        options = ["--matcher", arguments.matcher, "--seeds", *map(str, arguments.seeds)]
        options += ["--unguided"] if arguments.unguided else []
        written = []
        for label, checkout in (("before", arguments.before), ("after", arguments.after)):
            out = Path(folder, label)
            out.mkdir()
            run_in(checkout, Path(__file__), str(checkout), *options, "--write", str(out), *files)
            written.append(out)
        differing = report(*written)
    print(f"{differing} runs differ" if differing else "all runs are identical")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
