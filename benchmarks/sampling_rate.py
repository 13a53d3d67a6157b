"""ConDL at sampling rates of 2, 4, 8 and 16 px: what more samples give and cost, which its paper left open.

    OMP_NUM_THREADS=1 python benchmarks/sampling_rate.py --data ../shared/data --out out/sampling_rate.json

Homography pairs of the development data. All mutual matches are kept. `aligned` moves each query place to where the
descriptors agree best; the other rows leave it on its sample, as the paper does. Every row runs in a process of its
own: memory is what it grew by beyond the loaded network and the images, at its peak.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
from pathlib import Path
from typing import Any

from pairs import Timed, measure_homographies

from ros2_densematch.matchers.registry import load_matcher

STEPS = (2, 4, 8, 16)


def measure(step: int, aligned: bool, weights: str | None, data: str, every: int) -> dict[str, Any]:
    """Figures of one rate."""
    matcher = load_matcher("condl", device="cpu", weights=weights, preset="base", step=step, subpixel=aligned)
    # what any image of this size costs once: network, libraries, image files
    small = load_matcher("condl", device="cpu", weights=weights, preset="base", step=64, subpixel=False)
    measure_homographies(Timed(small, keep=2), Path(data), every=5)
    del small
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    timed = Timed(matcher, max_matches=None, keep=2)
    figures = measure_homographies(timed, Path(data), every=every).summary()
    samples = [len(encoding.data.xy) for encoding, _ in timed._kept.values()]
    return {
        "step": step,
        "aligned": aligned,
        "samples": max(samples),
        **figures,
        "memory_mb": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024),
        "full_matrix_mb": round(max(samples) ** 2 * 4 / 1e6),
        "milliseconds": timed.milliseconds(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--out", type=Path, default=Path("out/sampling_rate.json"))
    parser.add_argument("--weights", help="a file of densematch train; default: the shipped weights")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--every", type=int, default=1, help="use every n-th pair")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for aligned in (True, False):
        for step in sorted(arguments.steps, reverse=True):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows.append(pool.apply(measure, (step, aligned, arguments.weights, arguments.data, arguments.every)))
            print(json.dumps(rows[-1]), flush=True)
            partial = arguments.out.with_suffix(".part")
            partial.write_text(json.dumps(rows, indent=1), "utf-8")
            os.replace(partial, arguments.out)
    heads = [
        "step",
        "aligned",
        "samples",
        "matches",
        "within 3 px",
        "MMA@1 / 3",
        "corner error",
        "corners@1 / 3 / 5 px",
    ]
    heads += ["memory", "encode + match, ms"]
    print(f"| {' | '.join(heads)} |\n" + "| --- " * len(heads) + "|")
    for r in rows:
        mma = " / ".join(f"{v:.2f}" for v in r["mma_1_3_5"][:2])
        corners = " / ".join(f"{v:.0f}" for v in r["corner_accuracy_1_3_5"])
        ms = r["milliseconds"]
        print(
            f"| {r['step']} px | {'yes' if r['aligned'] else 'no'} | {r['samples']} | {r['matches']} "
            f"| {r['within_3_px']} | {mma} | {r['median_corner_px']:.2f} px | {corners} % | {r['memory_mb']} MB "
            f"| {ms['encode']:.0f} + {ms['match']:.0f} |"
        )


if __name__ == "__main__":
    main()
