"""ConDL at sampling rates of 2, 4, 8 and 16 px: what more samples give and cost, which its paper left open.

    OMP_NUM_THREADS=1 python benchmarks/sampling_rate.py --data ../shared/data --out out/sampling_rate.json

Homography pairs of the development data. All mutual matches are kept. `aligned` has moved each query place to where
descriptors and grey values agree best; the other rows leave the same matches on their samples, as the paper does. Every
rate runs in a process of its own: memory is what it grew by, at its peak, beyond the loaded network and a first match.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from pairs import Timed, measure_homographies, write_results
from torch import Tensor

from ros2_densematch.arrays import Image, Mask
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.base import Encoding, Matcher, RawMatches
from ros2_densematch.matchers.condl import matcher as condl
from ros2_densematch.matchers.condl.matcher import CondlEncoding, CondlMatcher
from ros2_densematch.matchers.registry import load_matcher

STEPS = (2, 4, 8, 16)


class Unaligned(Matcher):
    """The same encodings and mutual matches, left on their samples."""

    name = "condl"

    def __init__(self, matcher: CondlMatcher) -> None:
        super().__init__()
        self._matcher = matcher

    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> CondlEncoding:
        return self._matcher._encode(image, reference=reference, mask=mask)

    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> RawMatches:
        bare = [dataclasses.replace(e, data=dataclasses.replace(e.data, drawn=None)) for e in (reference, query)]
        return self._matcher._match(*bare, max_matches=max_matches, seed=seed)


class Both(Timed):
    """Times the aligned matches and keeps the unaligned ones beside them."""

    def match(self, path0: Path, path1: Path) -> tuple[Correspondences, float, float]:
        found = super().match(path0, path1)
        (reference, _), (query, _) = self.encode(path0, reference=True), self.encode(path1, reference=False)
        unaligned = Unaligned(self.matcher).match(reference, query, max_matches=None)  # type: ignore[arg-type]
        self.others.append((unaligned, *found[1:]))
        return found

    others: ClassVar[list[tuple[Correspondences, float, float]]] = []


class Replayed(Timed):
    """Gives back, in their order, matches that were made before."""

    def match(self, path0: Path, path1: Path) -> tuple[Correspondences, float, float]:
        return Both.others.pop(0)


def remembering(function: Callable[[Tensor, Tensor], Any]) -> Callable[[Tensor, Tensor], Any]:
    """Gives the last result again for the same descriptors: the matches are searched once for both rows."""
    last: dict[str, Any] = {}

    def call(a: Tensor, b: Tensor) -> Any:
        key = (a.data_ptr(), b.data_ptr(), len(a), len(b))
        if last.get("key") != key:
            last.update(key=key, result=function(a, b))
        return last["result"]

    return call


def measure(step: int, weights: str | None, data: str, every: int) -> list[dict[str, Any]]:
    """Figures of one rate, aligned and not."""
    condl.mutual_nearest_neighbours = remembering(condl.mutual_nearest_neighbours)
    # what any image of this size costs once: network, libraries, image files
    small = load_matcher("condl", device="cpu", weights=weights, preset="base", step=64, subpixel=False)
    measure_homographies(Timed(small, keep=2), Path(data), every=20)
    del small
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    timed = Both(load_matcher("condl", device="cpu", weights=weights, preset="base", step=step), None, keep=2)
    aligned = measure_homographies(timed, Path(data), every=every).summary()
    grown = round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
    samples = max(len(encoding.data.xy) for encoding, _ in timed._kept.values())
    unaligned = measure_homographies(Replayed(timed.matcher), Path(data), every=every).summary()
    common = {
        "samples": samples,
        "memory_mb": grown,
        "full_matrix_mb": round(samples**2 * 4 / 1e6),
        "milliseconds": timed.milliseconds(),
    }
    return [
        {"step": step, "aligned": True, **aligned, **common},
        {"step": step, "aligned": False, **unaligned, **common},
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--out", type=Path, default=Path("out/sampling_rate.json"))
    parser.add_argument("--weights", help="a file of densematch train; default: the shipped weights")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--every", type=int, default=1, help="use every n-th pair")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for step in sorted(arguments.steps, reverse=True):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows += pool.apply(measure, (step, arguments.weights, arguments.data, arguments.every))
        print(json.dumps(rows[-2:]), flush=True)
        write_results(arguments.out, rows)
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
