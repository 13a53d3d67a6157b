"""Matches pairs of training material once and keeps all evidence with the truth, for `pair_filter.py`. Can be stopped.

python benchmarks/pair_graphs.py --data ../shared/data --out out/pair_graphs --count 1600
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from pair_material import Material

from ros2_densematch.files.atomic import replacing
from ros2_densematch.matchers.gcm.match_filter import match_graph
from ros2_densematch.matchers.gcm.matcher import GcmMatcher
from ros2_densematch.matchers.gcm.recurrence import recurrence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1600)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    matcher = GcmMatcher(device="cpu")
    material = Material(arguments.data, arguments.out / "views")
    start = time.monotonic()
    for index in range(arguments.count):
        path = arguments.out / f"{material.part(index)}_{index:05d}.npz"
        if path.exists():
            continue
        try:
            pair = material.pair(index)
        except ValueError as error:
            print(index, error, flush=True)
            continue
        with torch.inference_mode():
            first, second = (matcher.encode(image).data for image in (pair.image0, pair.image1))
            found = matcher.candidates(first, second)
            graph = match_graph(found)
            if len(graph.nodes) == 0:
                continue
            logit = matcher.filter(graph).numpy()
            twins = recurrence(first, second, found.reference_xy, found.query_xy)
        fields = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in vars(found).items()}
        with replacing(path) as temporary, temporary.open("wb") as stream:
            np.savez(
                stream,
                **fields,
                **{f"twin_{k}": v.astype(np.float32) for k, v in twins._asdict().items()},
                logit=logit,
                error=pair.error(found.reference_xy, found.query_xy).astype(np.float32),
                kind=np.array(pair.kind),
                scene=np.array(pair.scene),
                sizes=np.array([first.size, second.size]),
            )
        if index % 20 == 0:
            print(index, pair.kind, len(found), f"{time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
