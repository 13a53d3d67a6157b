"""Where the wrong matches of `gcm` come from, on kept graphs of training material (`pair_graphs.py`).

    python benchmarks/wrong_matches.py --graphs out/pair_graphs [--pairs 60]

Of what the first filter alone would return (the best up to 300 included, as until 2026-11-30), by kind of pair: shares
beyond 3 px by origin, and beyond 1 px. A wrong match is counted once, under the first origin that fits: topped up
(score below 0.5); of a small group (less than 5 % of the matches) that is coherent (at least 8), of a larger wrong
group; grown; a seed on its own. Slips lie between 1 and 3 px.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import torch
from pair_graph_store import graph, kept, today

from ros2_densematch.matchers.gcm.pair_filter import PairFilter

_GROWN = 4  # columns of the evidence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=Path, required=True)
    parser.add_argument("--pairs", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows = defaultdict(list)
    scores = defaultdict(list)
    prior = PairFilter.shipped().prior
    for pair in kept(arguments.graphs, "train", arguments.pairs):
        g = graph(pair, prior)
        pick = today(g.first.numpy())
        known = pick & ~np.isnan(g.error)
        if not known.any():
            continue
        group = g.pair.group.numpy()[known]
        size = np.bincount(group, minlength=group.max() + 1)[group]
        error, first = g.error[known], g.first.numpy()[known]
        grown = g.pair.nodes.numpy()[known, _GROWN] > 0.5
        left = error > 3
        shares = {"> 3 px": left.mean()}
        for name, mask in (
            ("topped up", first < 0),
            ("small group", (size >= 8) & (size < 0.05 * len(group))),
            ("large group", size >= 0.05 * len(group)),
            ("grown", grown),
            ("seed alone", ~grown),
        ):
            mine = left & mask
            shares[name] = mine.mean()
            scores[name] += list(1 / (1 + np.exp(-first[mine])))
            left &= ~mask
        shares["1 to 3 px"] = ((error > 1) & (error <= 3)).mean()
        shares["pairs topped up"] = float((first < 0).any())
        for kind in (g.kind, "all"):
            rows[kind].append(list(shares.values()))
        names = list(shares)
    print("| kind | pairs | " + " | ".join(names) + " |\n|" + " --- |" * (len(names) + 2))
    for kind, values in sorted(rows.items()):
        print(f"| {kind} | {len(values)} | " + " | ".join(f"{100 * v:.1f}" for v in np.mean(values, 0)) + " |")
    print("median score of the wrong ones: " + ", ".join(f"{n} {np.median(s):.2f}" for n, s in scores.items() if s))


if __name__ == "__main__":
    main()
