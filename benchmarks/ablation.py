"""What each stage of `gcm` gives: pose AUC, MMA and corner accuracy with stages switched off.

    python benchmarks/ablation.py --data ../shared/data --out out/ablation.json

Images at a longer side of 640 pixels; PoseLib with an epipolar threshold of 1 px (10,000 iterations, seed 0) for the
pose pairs, OpenCV USAC_MAGSAC 1.5 px for the homographies. Single rows vary by about three points of AUC with the
choice of pairs; differences between rows on the same pairs by less.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pairs import Timed, measure_homographies, measure_poses, write_results
from safetensors.torch import save_file

from ros2_densematch.matchers.gcm.matcher import GcmMatcher

ALL = ("refinement", "growth", "filter", "hypotheses")
# name -> (weights: None = shipped, "start" = before our training; stages)
ROWS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "start: ImageNet backbone, random heads": ("start", ("refinement", "growth", "hypotheses")),
    "trained, all stages": (None, ALL),
    "without sub-pixel refinement": (None, ("growth", "filter", "hypotheses")),
    "without growth": (None, ("refinement", "filter", "hypotheses")),
    "without the learned filter": (None, ("refinement", "growth", "hypotheses")),
    "without hypotheses": (None, ("refinement", "growth", "filter")),
}


def start_weights(folder: Path) -> str:
    """The network before our training: ImageNet backbone, random heads; needs the `train` extra."""
    import torch

    from ros2_densematch.matchers.gcm.network import GcmNetwork
    from ros2_densematch.nn.efficientnet_lite import load_imagenet
    from ros2_densematch.training.stages.descriptor import imagenet_state

    torch.manual_seed(0)
    network = GcmNetwork()
    load_imagenet(network.backbone, imagenet_state())
    path = folder / "start.safetensors"
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, str(path))
    return str(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("out/ablation.json"))
    parser.add_argument("--every", type=int, default=1, help="use every n-th pose pair")
    parser.add_argument("--row", action="append", help="only the rows whose name contains this")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    for name, (weights, stages) in ROWS.items():
        if arguments.row and not any(r in name for r in arguments.row):
            continue
        path = start_weights(arguments.out.parent) if weights == "start" else weights
        # before training the saliency means nothing: any local maximum may be a key point
        threshold = -1e9 if weights == "start" else -5.0
        matcher = GcmMatcher(
            device="cpu", weights=path, **{stage: stage in stages for stage in ALL}, saliency_threshold=threshold
        )
        timed = Timed(matcher, max_matches=None)
        figures = measure_poses(timed, arguments.data, arguments.every)
        results[name] = figures | {"homography": measure_homographies(timed, arguments.data).summary()}
        print(name, json.dumps(results[name]), flush=True)
        write_results(arguments.out, results)


if __name__ == "__main__":
    main()
