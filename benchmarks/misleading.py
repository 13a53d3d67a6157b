"""How a matcher fares on scenes that mislead matchers: rendered, with the exact true place of every match.

    python benchmarks/misleading.py gcm opencv-sift aliked-lightglue xfeat --data ../shared/data --out out/misleading
                                    [--pairs 60] [--part final] [--kinds facade_resolvable,...]
                                    [--set pair_filter=false]

By kind (`misleading_scenes.KINDS`), means over the pairs: share of the matches beyond 1 and 3 px of the true place,
share of the 16 x 16 cells that both views show in which a match lies within 3 px, and the error of a pose of the
matches (PoseLib where it is installed, OpenCV's MAGSAC, our own estimator; area under the curve up to 5 degrees). For
matchers whose score is a chance: the expected calibration error at 1 px, the Brier score, the average precision and the
mean score. Textures and styles of
`final` are none of those that anything was trained on (`train`) or chosen by (`development`). Kinds marked * were left
out of training and choosing altogether. Moving things have no place in a pose: matches on them count by their own true
place.

Peers (`ros2_densematch.evaluation.peers`) are matchers too; `--set` concerns ours alone. Matches are kept in
OUT/matches by pair and by what made them (the package of a peer; the code and weights of ours). So a run that was
stopped goes on, and only a matcher that has changed is asked again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from layered import LayeredPair
from misleading_scenes import KINDS, PARTS, UNSEEN_KINDS, Textures, make_pair

import ros2_densematch as dm
from ros2_densematch.arrays import Float64
from ros2_densematch.evaluation.peers.registry import PEERS, load_peer, peer_weights

CELL = 16
NEAR_PX = 3.0


def recall(pair: LayeredPair, xy0: Float64, error: Float64) -> float:
    """Share of the cells that both views show in which a match lies near its true place."""
    w, h = pair.eyes[0].size
    x, y = np.meshgrid(np.arange(CELL // 2, w, CELL), np.arange(CELL // 2, h, CELL))
    at = np.stack([x, y], -1).reshape(-1, 2).astype(np.float64)
    number = pair.seen[0].layer[y.ravel(), x.ravel()]
    common = (pair.shows(pair.true_place(at, number), number) & (number >= 0)).reshape(x.shape)
    hit = np.zeros(common.shape, np.bool_)
    column, row = (xy0[error < NEAR_PX] / CELL).astype(int).T
    hit[row.clip(0, hit.shape[0] - 1), column.clip(0, hit.shape[1] - 1)] = True
    return float((hit & common).sum() / max(1, common.sum()))


def pose_error(rotation: Float64, shift: Float64, truth: Float64) -> float:
    """The larger of the errors of rotation and direction, degrees."""
    turn = np.arccos(np.clip((np.trace(rotation.T @ truth[:3, :3]) - 1) / 2, -1, 1))
    lengths = np.linalg.norm(shift) * np.linalg.norm(truth[:3, 3])
    direction = np.arccos(np.clip(shift @ truth[:3, 3] / max(lengths, 1e-12), -1, 1))
    return float(np.degrees(max(turn, direction)))


def pose_errors(pair: LayeredPair, matches: dm.Correspondences) -> dict[str, float]:
    """By estimator, degrees; 180 without a pose."""
    x0, x1 = matches.reference_xy.astype(np.float64), matches.query_xy.astype(np.float64)
    truth, eyes = pair.relative_pose(), pair.eyes
    n0, n1 = ((x - e.K[:2, 2]) / e.K[0, 0] for x, e in zip((x0, x1), eyes, strict=True))
    out = {"MAGSAC": 180.0, "own": 180.0}
    if len(x0) >= 5:
        cv2.setRNGSeed(0)
        focal = (eyes[0].K[0, 0] + eyes[1].K[0, 0]) / 2
        found, mask = cv2.findEssentialMat(n0, n1, np.eye(3), cv2.USAC_MAGSAC, 0.99999, 1.0 / focal, 2000)
        if found is not None and found.shape == (3, 3):
            _, R, t, _ = cv2.recoverPose(found, n0, n1, np.eye(3), mask=mask)
            out["MAGSAC"] = pose_error(R, t[:, 0], truth)
    cameras = [dm.Camera(width=e.size[0], height=e.size[1], K=e.K) for e in eyes]
    T = dm.estimate_relative_pose(matches, *cameras).T_query_from_reference
    if T is not None and np.linalg.norm(T[:3, 3]) > 1e-12:
        out["own"] = pose_error(np.asarray(T[:3, :3]), np.asarray(T[:3, 3]), truth)
    try:
        import poselib
    except ImportError:
        return out
    out["PoseLib"] = 180.0
    if len(x0) >= 5:
        seen = [
            {
                "model": "PINHOLE",
                "width": e.size[0],
                "height": e.size[1],
                "params": e.K[[0, 1, 0, 1], [0, 1, 2, 2]].tolist(),
            }
            for e in eyes
        ]
        M = poselib.estimate_relative_pose(x0, x1, *seen, {"max_epipolar_error": 1.0, "seed": 0}, {})[0]
        if np.linalg.norm(M.t) > 1e-12:
            out["PoseLib"] = pose_error(np.asarray(M.R), np.asarray(M.t), truth)
    return out


def auc(errors: list[float], limit: float) -> float:
    """Area under the cumulative curve up to a limit, per cent."""
    return 100 * float(np.mean(np.clip(1 - np.array(errors) / limit, 0, 1)))


def calibration(score: Float64, right: np.ndarray) -> float:
    """Expected calibration error in 15 bins of equal count."""
    bins = np.array_split(np.argsort(score), 15)
    return float(sum(len(b) * abs(score[b].mean() - right[b].mean()) for b in bins if len(b)) / max(1, len(score)))


def average_precision(score: Float64, right: np.ndarray) -> float:
    """Mean precision at each right match, the matches sorted by falling score."""
    hit = right[np.argsort(-score, kind="stable")]
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    return float(precision[hit].mean()) if hit.any() else 0.0


def made_by(name: str, options: dict[str, Any]) -> str:
    """Digest of what a matcher's answers depend on."""
    if name in PEERS:
        return hashlib.sha256(f"{name} {peer_weights(name)}".encode()).hexdigest()[:16]
    digest = hashlib.sha256(json.dumps([name, options], sort_keys=True).encode())
    package = Path(dm.__file__).parent
    for path in sorted(p for p in package.rglob("*") if p.suffix in (".py", ".safetensors")):
        if path.relative_to(package).parts[0] in ("graphs", "matchers", "nn", "weights", "geometry"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def match(matcher: Any, pair: LayeredPair, folder: Path) -> dm.Correspondences:
    """The matches of a pair, from the folder where they have been found before."""
    reference, query = (seen.image for seen in pair.seen)
    path = folder / (hashlib.sha256(reference.tobytes() + query.tobytes()).hexdigest()[:24] + ".npz")
    if not path.exists():
        found = matcher.match(matcher.encode(reference, reference=True), matcher.encode(query), seed=0)
        kept = {"xy0": found.reference_xy, "xy1": found.query_xy, "score": found.score, "overlap": found.overlap}
        if found.precision is not None:
            kept["precision"] = found.precision
        part = path.with_suffix(".part.npz")
        np.savez(part, **kept)
        part.replace(path)
    with np.load(path) as kept:
        return dm.Correspondences(
            kept["xy0"],
            kept["xy1"],
            kept["score"],
            float(kept["overlap"]),
            pair.eyes[0].size,
            pair.eyes[1].size,
            precision=kept.get("precision"),
        )


def measure(matcher: Any, textures: Textures, part: str, kind: str, pairs: int, folder: Path) -> dict[str, float]:
    rows, poses, scores, rights = [], [], [], []
    for seed in range(pairs):
        pair = make_pair(textures, part, kind, seed)
        matches = match(matcher, pair, folder)
        xy0 = matches.reference_xy.astype(np.float64)
        error = pair.error(xy0, matches.query_xy.astype(np.float64))
        known = ~np.isnan(error)
        e = error[known]
        # a pair without matches counts as wholly wrong: purity cannot be bought by giving up
        shares = [(e > 1).mean(), (e > 3).mean()] if len(e) else [1.0, 1.0]
        rows.append([*shares, (e <= 1).sum(), recall(pair, xy0[known], e)])
        poses.append(pose_errors(pair, matches))
        scores.append(matches.score[known].astype(np.float64))
        rights.append(e <= 1)
    m = np.mean(rows, 0)
    score, right = np.concatenate(scores), np.concatenate(rights)
    out = {"beyond_1_px": m[0], "beyond_3_px": m[1], "within_1_px": m[2], "recall": m[3]}
    out |= {f"auc_5_{name}": auc([p[name] for p in poses], 5.0) for name in poses[0]}
    out |= {"mean_score": float(score.mean()) if len(score) else 0.0, "ece": calibration(score, right)}
    out |= {"brier": float(((score - right) ** 2).mean()) if len(score) else 0.0}
    out |= {"average_precision": average_precision(score, right), "pairs": float(pairs)}
    return {k: float(v) for k, v in out.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("matchers", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--part", choices=PARTS, default="final")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--set", action="append", default=[], help="option=value of every matcher, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    options = {k: json.loads(v) for k, v in (s.split("=", 1) for s in arguments.set)}
    textures = Textures(arguments.data / "train_scenes", arguments.part)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in arguments.matchers:
        matcher = load_peer(name) if name in PEERS else dm.load_matcher(name, device="cpu", **options)
        folder = arguments.out / "matches" / f"{name}_{made_by(name, options)}"
        folder.mkdir(parents=True, exist_ok=True)
        for kind in arguments.kinds.split(","):
            row = measure(matcher, textures, arguments.part, kind, arguments.pairs, folder)
            found.setdefault(name, {})[kind] = row
            mark = "*" if kind in UNSEEN_KINDS else ""
            figures = ", ".join(f"{k} {v:.3f}" if v < 2 else f"{k} {v:.1f}" for k, v in row.items())
            print(f"{name} {kind}{mark}: {figures}", flush=True)
    (arguments.out / f"misleading_{arguments.part}.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
