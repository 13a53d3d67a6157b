"""Odometry of a matcher beside SIFT through the same tracker: ATE, RPE and scale on the measuring sequences.

    python benchmarks/odometry.py --data ../shared/data --out out/odometry

Each row is one `densematch replay` with default settings; its report lies in the output folder. ATE is the root mean
square after similarity alignment, over the path; RPE is from frame to frame. With depth the map is metric, and two
figures judge its scale; without depth they mean nothing and are left out. `alignment` is what the similarity alignment
would still multiply the trajectory by: the regression of true on estimated positions, below 1 wherever the drift is not
small against the extent of the path. `motion` is the estimated length of motions over 15 frames along the true ones,
where these are at least 5 cm, over the true length: drift does not bias it. A matcher
that loses track is judged on its longest segment only, which may be the easier half: the last columns are the ATE in
millimetres on the frames in the longest segments of all matchers, each aligned on these frames, and the RPE in degrees
over the steps between such frames: a matcher that loses track on the hardest frames is not judged on them otherwise.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.evaluation.trajectory import relative_errors, rms
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.trajectory import Trajectory, align, associate
from ros2_densematch.io.results.tum import read_tum
from ros2_densematch.io.sources.opening import open_source
from ros2_densematch.io.sources.options import SourceOptions

_SAME_NS = 100_000  # a TUM file holds microseconds
_MOTION_FRAMES, _MOTION_M = 15, 0.05

SEQUENCES = {
    "kitti_a": ("sequences/kitti_a", False),
    "hololens": ("sequences/hololens", False),
    "tum_fr1_rpy": ("sequences/tum_fr1_rpy", False),
    "hololens with depth": ("sequences/hololens", True),
    "tum_fr1_rpy with depth": ("sequences/tum_fr1_rpy", True),
}


def without_depth(folder: Path, copy: Path) -> Path:
    """The sequence with its depth column emptied."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("depth"))
    lines = (folder / "frames.csv").read_text("utf-8").splitlines()
    column = lines[0].split(",").index("depth")
    rows = [line.split(",") for line in lines[1:]]
    emptied = [",".join("" if i == column else value for i, value in enumerate(row)) for row in rows]
    (copy / "frames.csv").write_text("\n".join([lines[0], *emptied]) + "\n", "utf-8")
    return copy


def measure(sequence: Path, matcher: str, out: Path, max_frames: int | None) -> dict[str, Any]:
    """The row of one replay."""
    command = [sys.executable, "-m", "ros2_densematch", "replay", str(sequence), "--out", str(out)]
    command += ["--matcher", matcher, *([] if max_frames is None else ["--max-frames", str(max_frames)])]
    subprocess.run(command, check=True)
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    accuracy = summary["accuracy"]
    return {
        "ate_percent": accuracy["ate"]["percent_of_path"],
        "ate_m": accuracy["ate"]["rmse_m"],
        "rpe_deg": accuracy["rpe"]["rotation_rmse_deg"],
        "rpe_m": accuracy["rpe"]["translation_rmse_m"],
        "scale": accuracy["scale_factor"],
        "poses": accuracy["poses"],
        "frames": summary["frames"],
    }


def motion_scale(own: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Estimated length along the true motion over true length, over motions of `_MOTION_FRAMES` frames.

    Args:
        own, true: (N, 4, 4) T_world_from_camera of the same frames; each motion is taken in its first camera's axes.
    """
    moved = [(poses.inverse(T[:-_MOTION_FRAMES]) @ T[_MOTION_FRAMES:])[:, :3, 3] for T in (own, true)]
    far = np.linalg.norm(moved[1], axis=1) >= _MOTION_M
    estimate, truth = (m[far] for m in moved)
    return float(np.sum(estimate * truth) / np.sum(truth**2)) if far.any() else float("nan")


def own_motion_scale(folder: Path, truth: Trajectory) -> float:
    """`motion_scale` of a replay's main trajectory."""
    trajectory = read_tum(folder / "trajectory.tum")
    own, frame = associate(trajectory.stamps_ns, truth.stamps_ns, _SAME_NS)
    return motion_scale(trajectory.T_world_from_camera[own], truth.T_world_from_camera[frame])


def errors_on_common_frames(folders: dict[str, Path], truth: Trajectory) -> dict[str, tuple[float, float]]:
    """ATE in metres and RPE in degrees of each matcher on the frames that all of them have in their main trajectory.

    A step of the RPE goes from one frame of the truth to the next.
    """
    found = {matcher: read_tum(folder / "trajectory.tum") for matcher, folder in folders.items()}
    common = truth.stamps_ns
    for trajectory in found.values():
        common = common[associate(common, trajectory.stamps_ns, _SAME_NS)[0]]
    frame = associate(common, truth.stamps_ns, _SAME_NS)[1]
    true = truth.T_world_from_camera[frame]
    first = np.flatnonzero(np.diff(frame) == 1)
    steps = np.stack([first, first + 1], axis=1)
    result = {}
    for matcher, trajectory in found.items():
        own = trajectory.T_world_from_camera[associate(common, trajectory.stamps_ns, _SAME_NS)[1]]
        similarity = align(own[:, :3, 3], true[:, :3, 3])
        ate = rms(np.linalg.norm(similarity.apply(own[:, :3, 3]) - true[:, :3, 3], axis=1))
        result[matcher] = ate, rms(relative_errors(own, true, steps, 1.0)[1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--matchers", nargs="+", default=["gcm", "sift"])
    parser.add_argument("--sequences", nargs="+", default=list(SEQUENCES), choices=list(SEQUENCES))
    parser.add_argument("--max-frames", type=int)
    arguments = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    for name in arguments.sequences:
        folder, depth = SEQUENCES[name]
        sequence = arguments.data / folder
        if not depth:
            sequence = without_depth(sequence, arguments.out / "input" / name)
        folders: dict[str, Path] = {}
        for matcher in arguments.matchers:
            out = arguments.out / f"{name.replace(' ', '_')}_{matcher}"
            rows.setdefault(name, {})[matcher] = measure(sequence, matcher, out, arguments.max_frames)
            folders[matcher] = out
        truth = open_source(sequence, SourceOptions()).ground_truth
        assert truth is not None
        for matcher, (ate, rpe) in errors_on_common_frames(folders, truth).items():
            row = rows[name][matcher]
            row["ate_common_m"], row["rpe_common_deg"] = ate, rpe
            row["motion_scale"] = own_motion_scale(folders[matcher], truth)
            scale = f"{row['scale']:.3f} | {row['motion_scale']:.3f}" if depth else "- | -"
            print(
                f"| {name} | {matcher} | {row['poses']} | {row['ate_percent']:.3f} | {1000 * row['ate_m']:.1f} "
                f"| {row['rpe_deg']:.3f} | {1000 * row['rpe_m']:.2f} | {scale} | {1000 * ate:.1f} | {rpe:.3f} |",
                flush=True,
            )
        (arguments.out / "odometry.json").write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
