"""Does fine-tuning on the first part of a recording improve matching on the rest?

    python benchmarks/finetune.py ../shared/data/sequences/hololens --split 22 --out out/finetune

Trains config/training/finetune.yaml on what comes before `--split` (seconds) and matches pairs of frames after it, with
the shipped and with the tuned weights: area under the curve of the pose error (PoseLib, 1 px), median error, and share
of matches within 1.5 px of their epipolar line. A second of recording lies between the two parts.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml

from ros2_densematch.evaluation.pose import pose_auc, pose_error_deg
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.two_view import PoseConfig, estimate_relative_pose
from ros2_densematch.io.sources.opening import open_source
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.matchers.base import Matcher
from ros2_densematch.matchers.registry import load_matcher
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.training.recipe import Recipe
from ros2_densematch.training.run.trainer import train

RECIPE = Path(__file__).parents[1] / "config" / "training" / "finetune.yaml"
GAP_S = 1.0
RIGHT_PX = 1.5
# below this distance of the cameras (metres) the direction of the translation says nothing
LEAST_BASELINE = 0.05


@dataclass
class Scene:
    """Held-back frames with their true poses."""

    frames: list[Frame]
    world_from_camera: list[np.ndarray]
    camera: Camera

    def truth(self, i: int, j: int) -> np.ndarray:
        return np.asarray(np.linalg.inv(self.world_from_camera[j]) @ self.world_from_camera[i])


def held_back(recording: Path, start_s: float) -> Scene:
    source = open_source(recording, SourceOptions(start_s=start_s))
    truth = source.ground_truth
    frames = list(source)
    if truth is None or frames[0].camera is None:
        raise SystemExit(f"{recording} has no ground truth or no calibration: nothing can be measured")
    known = {int(stamp): k for k, stamp in enumerate(truth.stamps_ns)}
    kept = [f for f in frames if f.stamp_ns in known]
    return Scene(kept, [truth.T_world_from_camera[known[f.stamp_ns]] for f in kept], frames[0].camera)


def measure(matcher: Matcher, scene: Scene, pairs: list[tuple[int, int]]) -> dict[str, float]:
    errors, right, counts = [], [], []
    encodings = {k: matcher.encode(scene.frames[k].image) for k in sorted({k for pair in pairs for k in pair})}
    for i, j in pairs:
        m = matcher.match(encodings[i], encodings[j])
        pose = estimate_relative_pose(m, scene.camera, scene.camera, config=PoseConfig(max_epipolar_error_px=1.0))
        estimate = pose.T_query_from_reference if pose.num_inliers >= 15 else None
        errors.append(pose_error_deg(estimate, scene.truth(i, j)))
        counts.append(len(m))
        distance = epipolar_px(m.reference_xy, m.query_xy, scene.truth(i, j), scene.camera)
        right.append(np.mean(distance < RIGHT_PX) if len(m) else 0.0)
    auc = 100 * pose_auc(errors)
    return {
        "AUC@5": auc[0],
        "AUC@10": auc[1],
        "AUC@20": auc[2],
        "median error deg": float(np.median(errors)),
        "on epipolar line": float(np.mean(right)),
        "matches": float(np.mean(counts)),
    }


def epipolar_px(xy0: np.ndarray, xy1: np.ndarray, T: np.ndarray, camera: Camera) -> np.ndarray:
    """Symmetric epipolar distance in pixels under the true pose."""
    x0, x1 = (np.column_stack([camera.normalise(xy), np.ones(len(xy))]) for xy in (xy0, xy1))
    t = T[:3, 3] / np.linalg.norm(T[:3, 3])
    skew = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
    essential = skew @ T[:3, :3]
    lines1, lines0 = x0 @ essential.T, x1 @ essential
    residual = np.abs((x1 * lines1).sum(1))
    both = 1 / np.linalg.norm(lines1[:, :2], axis=1) + 1 / np.linalg.norm(lines0[:, :2], axis=1)
    return np.asarray(residual * both / 2 * camera.focal)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--split", type=float, required=True, help="seconds that are trained on")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--gaps", type=int, nargs="+", default=[2, 4, 8], help="frames between the two of a pair")
    parser.add_argument("--every", type=int, default=8, help="frames between first frames of pairs")
    parser.add_argument("--preset", default="base")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="settings of the stage")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    content = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    content["data"]["sources"][0]["settings"] = {"recording": {"stop_s": arguments.split}}
    content["data"]["workers"] = 0
    content["stages"][0]["max_steps"] = arguments.steps
    content["stages"][0]["settings"] |= {
        k: yaml.safe_load(v) for k, v in (item.split("=", 1) for item in arguments.set)
    }
    recipe = Recipe.model_validate(content)

    def tell(what: str, done: int, total: int, note: str) -> None:
        if done % 25 == 0:
            print(f"{what} {done}/{total} {note}", flush=True)

    outcome = train(recipe, arguments.out, arguments.recording, on_progress=tell, on_note=print)
    scene = held_back(arguments.recording, arguments.split + GAP_S)
    count = len(scene.frames)
    pairs = [(i, i + gap) for gap in arguments.gaps for i in range(0, count - gap, arguments.every)]
    pairs = [(i, j) for i, j in pairs if np.linalg.norm(scene.truth(i, j)[:3, 3]) > LEAST_BASELINE]
    print(f"{count} held-back frames, {len(pairs)} pairs, gaps {arguments.gaps}")
    for name, weights in (("shipped", None), ("tuned", str(outcome.weights))):
        found = measure(load_matcher("gcm", preset=arguments.preset, weights=weights), scene, pairs)
        print(f"{name:8} " + "  ".join(f"{key} {value:.3f}" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
