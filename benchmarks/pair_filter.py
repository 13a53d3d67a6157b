"""Fits the pair filter of `gcm` on kept graphs, and says what it would return on scenes that were held out.

    python benchmarks/pair_graphs.py --data ../shared/data --out out/pair_graphs --count 1600
    python benchmarks/pair_filter.py --graphs out/pair_graphs --out out/pair_filter [--epochs 10] [--seed 0]
                                     [--without recurrence,groups,...]

`--without` is the ablation: the named evidence is set to its mean. The result, `gcm_pair.safetensors`, goes to
`ros2_densematch/weights/`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from pair_graph_store import Graph, Kept, graph, kept, today
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from ros2_densematch.evaluation.scores.calibration import calibration
from ros2_densematch.matchers.gcm.pair_filter import PairFilter, Prior

EVIDENCE = {
    "first": (0, 1), "recurrence": (19, 25), "groups": (25, 34), "claims": (34, 37),
    "geometry": (37, 48), "pair": (48, 52), "neighbours": (13, 19), "match": (52, 66),
}  # fmt: skip


_LEAST = 50  # right matches of a pair that counts


def loss_of(logits: Tensor, within: Tensor) -> Tensor:
    known = ~torch.isnan(within)
    losses = functional.binary_cross_entropy_with_logits(logits, torch.nan_to_num(within), reduction="none")
    return (losses * known).sum() / known.sum().clamp_min(1)


def fit_prior(pairs: list[Kept], *, seed: int, steps: int = 4000, batch: int = 4096, rate: float = 4e-3) -> Prior:
    """Every pair counts alike, however many candidates it has."""
    torch.manual_seed(seed)
    known = [~torch.isnan(p.within[:, 0]) for p in pairs]
    evidence = torch.cat([p.of_match[k] for p, k in zip(pairs, known, strict=True)])
    right = torch.cat([p.within[k, 0] for p, k in zip(pairs, known, strict=True)])
    weight = torch.cat([torch.full((int(k.sum()),), 1 / max(1, int(k.sum()))) for k in known])
    weight /= weight.mean()
    prior = Prior()
    prior.mean.copy_(evidence.mean(0))
    prior.deviation.copy_(evidence.std(0).clamp_min(1e-2))
    optimizer = torch.optim.AdamW(prior.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(steps):
        some = torch.randint(0, len(right), (batch,))
        losses = functional.binary_cross_entropy_with_logits(prior(evidence[some]), right[some], reduction="none")
        optimizer.zero_grad()
        (losses * weight[some]).mean().backward()
        optimizer.step()
        schedule.step()
    return prior.eval().requires_grad_(False)


def fit(graphs: list[Graph], prior: Prior, *, epochs: int, seed: int, rate: float, hidden: list[int]) -> PairFilter:
    torch.manual_seed(seed)
    model = PairFilter()
    model.prior = prior
    nodes = torch.cat([g.pair.nodes[:: max(1, len(g.pair.nodes) // 200)] for g in graphs])
    model.mean.copy_(nodes.mean(0))
    model.deviation.copy_(nodes.std(0).clamp_min(1e-2))
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=rate, weight_decay=1e-2)
    rng = np.random.default_rng(seed)
    total = epochs * len(graphs) // 4
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=total + 1, pct_start=0.1)
    for epoch in range(epochs):
        total_loss = 0.0
        order = rng.permutation(len(graphs))
        for start in range(0, len(order) - 3, 4):
            loss = torch.zeros(())
            for k in order[start : start + 4]:
                g = graphs[k]
                if hidden:
                    nodes = g.pair.nodes.clone()
                    nodes[:, hidden] = model.mean[hidden]
                    g = g._replace(pair=g.pair._replace(nodes=nodes))
                loss = loss + loss_of(model(g.pair), g.within) / 4
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learned, 5.0)
            optimizer.step()
            schedule.step()
            total_loss += float(loss.detach())
        print(f"epoch {epoch}: {4 * total_loss / len(order):.4f}", flush=True)
    return model.eval()


def row(name: str, picks: list[np.ndarray], graphs: list[Graph], base: list[np.ndarray]) -> str:
    figures = []
    for pick, g, before in zip(picks, graphs, base, strict=True):
        e = g.error[pick]
        e = e[~np.isnan(e)]
        kept = (g.error[pick] < 1).sum() / max(1, (g.error[before] < 1).sum())
        figures.append([(e > 1).mean(), (e > 3).mean(), kept] if len(e) else [np.nan, np.nan, kept])
    f = np.array(figures)
    worst = np.sort(np.nan_to_num(f[:, 1]))[::-1][: max(1, len(f) // 4)].mean()
    total = sum((g.error[p] < 1).sum() for p, g in zip(picks, graphs, strict=True)) / max(
        1, sum((g.error[p] < 1).sum() for p, g in zip(base, graphs, strict=True))
    )
    m = 100 * np.nanmean(f, 0)
    return (
        f"  {name:26s} > 1 px {m[0]:5.2f}  > 3 px {m[1]:5.2f}  worst quarter {100 * worst:5.1f}  "
        f"good kept: pairs {m[2]:5.1f}, all {100 * total:5.1f}"
    )


def report(graphs: list[Graph], model: PairFilter, hidden: list[int]) -> None:
    score = []
    for g in graphs:
        nodes = g.pair.nodes.clone()
        nodes[:, hidden] = model.mean[hidden]
        with torch.inference_mode():
            score.append(torch.sigmoid(model(g.pair._replace(nodes=nodes))).numpy())
    first = [g.first.numpy() for g in graphs]
    base = [today(f) for f in first]
    known = [~np.isnan(g.within[:, 0].numpy()) for g in graphs]
    right = np.concatenate([g.within[:, 0].numpy()[k] for g, k in zip(graphs, known, strict=True)])
    new = np.concatenate([s[k, 0] for s, k in zip(score, known, strict=True)])
    old = np.concatenate([1 / (1 + np.exp(-f[k])) for f, k in zip(first, known, strict=True)])
    for name, p in (("first filter", old), ("pair filter", new)):
        c = calibration(p, right)
        print(
            f"{name}: ECE {c.expected_error:.3f}, Brier {c.brier:.4f}, average precision {c.average_precision:.4f}, "
            f"1 px, {c.count} candidates"
        )
    kinds = sorted({g.kind for g in graphs})
    for kind in ["all", *kinds]:
        # a pair without anything to be found says nothing about shares
        mine = [k for k, g in enumerate(graphs) if kind in ("all", g.kind) and (g.error[base[k]] < 1).sum() >= _LEAST]
        if not mine:
            continue
        rows = {"today": base, "today, bar 0.8": [f >= np.log(4) for f in first]}
        rows |= {f"pair filter, bar {bar}": [s[:, 0] >= bar for s in score] for bar in (0.3, 0.4, 0.45, 0.5, 0.6)}
        rows["within 3 px, bar 0.8"] = [s[:, 1] >= 0.8 for s in score]
        print(kind, len(mine))
        for name, picks in rows.items() if kind == "all" else list(rows.items())[0:5:2]:
            print(row(name, [picks[k] for k in mine], [graphs[k] for k in mine], [base[k] for k in mine]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without", default="")
    parser.add_argument("--check", type=Path, help="weights to be judged on the held-out graphs instead of a fit")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    hidden = [i for name in filter(None, arguments.without.split(",")) for i in range(*EVIDENCE[name])]
    if arguments.check:
        model = PairFilter()
        model.load_state_dict(load_file(str(arguments.check)))
    else:
        train = kept(arguments.graphs, "train")
        print(len(train), "pairs to learn from", flush=True)
        prior = fit_prior(train, seed=arguments.seed)
        graphs = [graph(pair, prior) for pair in train]
        del train
        model = fit(graphs, prior, epochs=arguments.epochs, seed=arguments.seed, rate=arguments.rate, hidden=hidden)
        arguments.out.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), str(arguments.out / "gcm_pair.safetensors"))
    held_out = [graph(pair, model.prior) for pair in kept(arguments.graphs, "development")]
    print(len(held_out), "held out")
    report(held_out, model.eval(), hidden)


if __name__ == "__main__":
    main()
