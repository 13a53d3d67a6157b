"""Fits the score of guided matches on rendered passes, and says how well it is calibrated on others.

    python benchmarks/guided_score.py --out out/guided [--passes 4] [--held-out 2]
    python benchmarks/guided_score.py --out out/guided --check      # the shipped file on the held-out passes

A pass is 20 frames of a hand-held camera at 30 Hz (`simulation.passes`): plain, fast, with occluders, a static overlay,
a step of the exposure, zoom, roll, and a gap of one second. Its first frame is the keyframe; all later ones are matched
guided from it, and every match is judged by the rendered truth. `--passes` of each kind and scene are fitted on, others
held out. The result, `gcm_guided.safetensors`, goes to `ros2_densematch/weights/`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional

from ros2_densematch.matchers.gcm.guided import Guided, Start, guide
from ros2_densematch.matchers.gcm.guided_image import GuideImage
from ros2_densematch.matchers.gcm.guided_reference import GuidedReference
from ros2_densematch.matchers.gcm.guided_score import FEATURES, WIDTH, GuidedScore, evidence
from ros2_densematch.simulation.passes import KINDS, PassFrame, fly_pass, judge
from ros2_densematch.simulation.worlds import tabletop, workshop

FRAMES = 20
HELD_OUT_SEED = 10_000


def follow(frames: list[PassFrame]) -> list[tuple[int, Guided]]:
    """Guided matches of every later frame with the first one."""
    images = [GuideImage(np.asarray(cv2.cvtColor(f.image, cv2.COLOR_RGB2GRAY), np.uint8), None) for f in frames]
    reference = GuidedReference(images[0])
    xy = reference.places
    count, identity = len(xy), np.broadcast_to(np.eye(2), (len(xy), 2, 2))
    unknown = np.full(count, np.nan)
    start = Start(xy, xy, identity, np.full(count, 12.0), unknown, images[0], xy, identity)
    found = []
    for i in range(1, len(frames)):
        matches = guide(reference, images[i], start)
        found.append((i, matches))
        x0, x1, linear = matches.reference_xy, matches.query_xy, matches.linear
        none = np.full(len(matches), np.nan)
        start = Start(x0, x1, linear, np.full(len(matches), 12.0), none, images[i], x1, linear)
    return found


def collect(folder: Path, name: str, seeds: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evidence, labels and age in frames of all matches of the passes; kept in `folder`."""
    parts = []
    scenes = {}
    for seed in seeds:
        for k, kind in enumerate(KINDS):
            path = folder / name / f"{kind}_{seed}.npz"
            if not path.is_file():
                world = (seed + k) % 2
                key = world, seed // 2 if seed < HELD_OUT_SEED else seed
                if key not in scenes:
                    scenes = {key: (workshop, tabletop)[world](key[1])}
                try:
                    frames = fly_pass(scenes[key], kind, seed=seed, frames=FRAMES)
                except ValueError as error:
                    print(f"{name}: {kind} {seed} left out: {error}", flush=True)
                    continue
                rows = [
                    (evidence(m), judge(frames[0], frames[i], m.reference_xy, m.query_xy), np.full(len(m), i))
                    for i, m in follow(frames)
                    if len(m)
                ]
                path.parent.mkdir(parents=True, exist_ok=True)
                np.savez(path, e=np.concatenate([r[0] for r in rows]), v=np.concatenate([r[1] for r in rows]),
                         age=np.concatenate([r[2] for r in rows]))  # fmt: skip
                print(f"{name}: {kind} {seed}", flush=True)
            with np.load(path) as kept:
                parts.append((kept["e"], kept["v"], kept["age"]))
    e, v, age = (np.concatenate(column) for column in zip(*parts, strict=True))
    return e[v >= 0], v[v >= 0] == 1, age[v >= 0]


def fit(features: np.ndarray, right: np.ndarray, *, steps: int = 4000) -> GuidedScore:
    """Binary cross entropy by AdamW with a cosine decay."""
    torch.manual_seed(0)
    x, y = torch.from_numpy(features).float(), torch.from_numpy(right).float()
    mean, deviation = x.mean(0), x.std(0).clamp_min(1e-3)
    x = ((x - mean) / deviation).clamp(-4, 4)  # as GuidedScore does
    network = torch.nn.Sequential(torch.nn.Linear(FEATURES, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, 1))
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(len(x), (4096,))
        loss = functional.binary_cross_entropy_with_logits(network(x[chosen])[:, 0], y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    share = float(right.mean())
    inner, outer = network[0], network[2]
    state = (mean, deviation, inner.weight.T, inner.bias, outer.weight[0], outer.bias[0])
    return GuidedScore(
        *(np.asarray(t.detach().numpy(), np.float64) for t in state), np.float64(np.log(share / (1 - share)))
    )


def report(score: GuidedScore, features: np.ndarray, right: np.ndarray, age: np.ndarray) -> None:
    p = score.of_evidence(features)
    index = np.clip((p * 10).astype(int), 0, 9)
    error = sum(abs(p[index == b].mean() - right[index == b].mean()) * (index == b).mean() for b in np.unique(index))
    print(f"{len(p)} matches, {right.mean():.1%} right; expected calibration error {error:.4f}")
    for b in np.unique(index):
        mine = index == b
        print(f"  score {p[mine].mean():.2f}: {right[mine].mean():.2f} right ({mine.sum()})")
    for low, high in ((1, 5), (6, 12), (13, FRAMES)):
        mine = (age >= low) & (age <= high)
        kept = mine & (p >= 0.5)
        print(f"  {low} to {high} frames after the keyframe: {right[mine].mean():.1%} right, "
              f"of those that score 0.5 {right[kept].mean():.1%} ({kept.sum() / mine.sum():.0%} kept)")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--passes", type=int, default=4, help="passes of each kind to fit on")
    parser.add_argument("--held-out", type=int, default=2, help="passes of each kind to check with")
    parser.add_argument("--check", action="store_true", help="fit nothing: check the shipped score")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    if arguments.check:
        score = GuidedScore.shipped()
    else:
        features, right, _ = collect(arguments.out, "fitted", list(range(arguments.passes)))
        score = fit(features, right)
        state = {
            name: torch.tensor(np.ascontiguousarray(value), dtype=torch.float32)
            for name, value in score._asdict().items()
        }
        path = arguments.out / "gcm_guided.safetensors"
        save_file(state, str(path), metadata={"matcher": "gcm", "part": "guided score"})
        print(f"wrote {path}")
    held_out = [HELD_OUT_SEED + i for i in range(arguments.held_out)]
    report(score, *collect(arguments.out, "held_out", held_out))


if __name__ == "__main__":
    main()
