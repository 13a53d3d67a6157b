"""Guided matches beside the full match of the same frames, on rendered passes: wrong ones, coverage, calibration.

    OMP_NUM_THREADS=1 python benchmarks/guided_matches.py [--passes 2] [--after 5 20]

Each kind of `simulation.passes` but the gap is followed from its first frame, the keyframe, on. A match is wrong beyond
so many pixels from the true place, or where the true place is hidden. Coverage is the share of the keyframe's cells of
32 pixels with a right full match that have a right guided one. Calibration is that of the guided score (right within
1.5 pixels), in 15 bins of equal counts. The scenes are none that the score was fitted on.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from ros2_densematch import Correspondences, load_matcher
from ros2_densematch.evaluation.scores.calibration import calibration
from ros2_densematch.matchers.prior import Prior
from ros2_densematch.simulation.passes import KINDS, PassFrame, errors, fly_pass
from ros2_densematch.simulation.worlds import tabletop, workshop

_SEED, _CELL = 9000, 32


def judged(matches: Correspondences, first: PassFrame, frame: PassFrame) -> tuple[np.ndarray, np.ndarray]:
    """Distance (N,) of each match from its true place in pixels, infinite where that is hidden, and whether the truth
    is known (N,)."""
    error, hidden = errors(first, frame, matches.reference_xy.astype(float), matches.query_xy.astype(float))
    return np.where(hidden, np.inf, error), np.isfinite(error) | hidden


def cells(matches: Correspondences, right: np.ndarray) -> set[tuple[int, int]]:
    """Cells of the keyframe with a right match."""
    return {(int(x), int(y)) for x, y in matches.reference_xy[right] // _CELL}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=2, help="passes of each kind")
    parser.add_argument("--after", type=int, nargs="+", default=[5, 20], help="frames after the keyframe")
    arguments = parser.parse_args()
    matcher = load_matcher("gcm", device="cpu")
    score, right = [], []
    rows: dict[int, list[tuple[float, ...]]] = {after: [] for after in arguments.after}
    for kind in KINDS:
        for number in range(arguments.passes if kind != "gap" else 0):
            scene = tabletop(_SEED + number) if number % 2 else workshop(_SEED + number)
            try:
                frames = fly_pass(scene, kind, seed=_SEED + number, frames=max(arguments.after) + 1)
            except ValueError as error:
                print(f"{kind} {number} left out: {error}", file=sys.stderr)
                continue
            reference = matcher.encode(frames[0].image)
            prior = Prior.at_rest(matcher.guide_points(reference), reference)
            for i, frame in enumerate(frames[1:], start=1):
                query = matcher.encode(frame.image)
                guided = matcher.match(reference, query, prior=prior)
                prior = Prior.from_previous(guided, query)
                if i not in rows:
                    continue
                full = matcher.match(reference, query)
                (error, known), (full_error, full_known) = (judged(m, frames[0], frame) for m in (guided, full))
                shares = [np.mean(e[k] > px) for e, k in ((error, known), (full_error, full_known)) for px in (1, 3)]
                seen = cells(full, full_error < 3)
                rows[i].append((*shares, len(seen & cells(guided, error < 3)) / max(len(seen), 1)))
                score += guided.score[known].tolist()
                right += (error[known] < 1.5).tolist()
    for after, values in rows.items():
        own1, own3, full1, full3, coverage = np.mean(values, axis=0)
        print(
            f"after {after} frames: beyond 1 and 3 px {100 * own1:.1f} and {100 * own3:.1f} % guided, "
            f"{100 * full1:.1f} and {100 * full3:.1f} % full; coverage {100 * coverage:.0f} % of the full match's"
        )
    found = calibration(score, right)
    print(
        f"expected calibration error {found.expected_error:.3f}, Brier score {found.brier:.3f}, "
        f"{found.count} guided matches"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
