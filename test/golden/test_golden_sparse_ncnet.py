"""Sparse-NCNet against the golden arrays."""

from __future__ import annotations

import numpy as np
import torch
from golden_set import Golden, GoldenSet
from torch import Tensor
from weight_rule import check_weights, draw, fill_table

from ros2_densematch.matchers.sparse_ncnet.extraction import best_entries
from ros2_densematch.matchers.sparse_ncnet.network import SparseNcnetNetwork, channels_of
from ros2_densematch.matchers.sparse_ncnet.relocalisation import relocalise_hard, relocalise_soft
from ros2_densematch.nn.resnet import imagenet_normalise
from ros2_densematch.nn.sparse_conv4d import SparseCorrelation, key_of
from ros2_densematch.nn.sparse_correlation import sparse_correlation


def sparse_state(expected: GoldenSet) -> dict[str, Tensor]:
    """The weight rule with the sheet's own rule for kernels."""
    table = expected.table()
    state = fill_table(table, expected.prefix)
    for key, shape, _ in table:
        if key.endswith(".kernel"):
            f = shape[0] * shape[1]
            value = draw(key, tuple(shape), expected.prefix) / np.sqrt(f) + 1.5 / f
            state[key] = torch.from_numpy(value.astype(np.float32))
    check_weights(state, expected.settings["weight_check"])
    return state


def crop(golden: Golden, name: str, size: list[int]) -> Tensor:
    """The top-left crop of a golden image as the network takes it."""
    image = torch.from_numpy(golden.image(name)[: size[0], : size[1]]).permute(2, 0, 1)[None].float() / 255
    return imagenet_normalise(image)


def test_sparse_ncnet(golden: Golden) -> None:
    expected = golden.open("sparse_ncnet", "forward")
    assert expected.settings["symmetric"]
    state = sparse_state(expected)
    network = SparseNcnetNetwork(channels_of(state), double_resolution=expected.settings["change_stride"])
    network.load_state_dict(state)
    coarse, fine = [], []
    for name in "AB":
        at_16, at_8 = network.features(crop(golden, name, expected.settings[f"crop_{name}_hw"]))
        expected.compare(f"feature_{name}_2x", at_8[:, ::32])
        coarse.append(at_16[0])
        fine.append(at_8[0])
    sides = [*coarse[0].shape[1:], *coarse[1].shape[1:]]
    expected.compare_integers("grid_sizes_hA_wA_hB_wB", np.array(sides, np.int32))
    correlation = sparse_correlation(*coarse, expected.settings["k"])
    expected.compare_integers("union_coords_iA_jA_iB_jB", correlation.places())
    expected.compare("union_corr", correlation.values)
    filtered = network.consensus(*coarse, neighbours=expected.settings["k"])
    expected.compare_integers("out_coords_iA_jA_iB_jB", filtered.places())
    expected.compare("out_corr", filtered.values)
    a, b = compare_extraction(expected, filtered)
    hard = relocalise_hard(*fine, a, b)
    expected.compare("hard2_xA_yA_xB_yB", by_column(*hard))
    expected.compare("hard2_soft_xA_yA_xB_yB", by_column(*relocalise_soft(*fine, *hard)))


def compare_extraction(expected: GoldenSet, filtered: SparseCorrelation) -> tuple[Tensor, Tensor]:
    """The stored matches, which are not the best ones, as (row, column) of A and of B.

    The published extraction sorts the entries by score, then arg-sorts them by cell and takes the first of each; that
    second sort must be stable, and under a current PyTorch it is not on processors with AVX-512. The stored matches are
    such a run: one entry per cell, but any. They are made again here where the machine sorts alike; ours are the best.
    """
    stored = torch.from_numpy(expected.arrays["matches_xA_yA_xB_yB"]).long()
    a, b = stored[:, :2].flip(1), stored[:, 2:].flip(1)
    keys = key_of(a[:, 0] * filtered.sides[1] + a[:, 1], b[:, 0] * filtered.sides[3] + b[:, 1], filtered.sides)
    index = torch.searchsorted(filtered.keys, keys)
    assert torch.equal(filtered.keys[index], keys), "every stored match is an entry"
    expected.compare("matches_score", filtered.values[index].T)
    cells = [(0, 1, filtered.sides[1]), (2, 3, filtered.sides[3])]
    again = torch.unique(torch.cat([unstable_pick(filtered, *cell) for cell in cells]))
    if torch.equal(again, torch.sort(index).values):
        ordered = filtered.places()[index]
        expected.compare("matches_xA_yA_xB_yB", by_column(ordered[:, :2], ordered[:, 2:]))
    else:
        expected.mark("matches_xA_yA_xB_yB", "an unstable sort chose these; this machine's chooses others")
    ours = best_entries(filtered)
    for row, column, width in cells:
        assert len(torch.unique(stored[:, [column, row]], dim=0)) == len(
            torch.unique(filtered.places()[:, [row, column]], dim=0)
        )
        cell = filtered.places()[:, row] * width + filtered.places()[:, column]
        own = (ours.a if row == 0 else ours.b) @ torch.tensor([width, 1])
        best = torch.zeros(int(cell.max()) + 1).scatter_reduce(0, cell, filtered.values[:, 0], "amax")
        mine = torch.zeros_like(best).scatter_reduce(0, own, ours.score, "amax")
        assert torch.equal(best, mine), "ours hold the best entry of every cell"
    return a, b


def unstable_pick(filtered: SparseCorrelation, row: int, column: int, width: int) -> Tensor:
    """Index of the entries that the published extraction takes for the cells of one image."""
    by_score = torch.sort(filtered.values[:, 0], descending=True).indices
    cell = (filtered.places()[:, row] * width + filtered.places()[:, column])[by_score]
    order = torch.argsort(cell)
    first = torch.ones_like(cell, dtype=torch.bool)
    first[1:] = cell[order][1:] != cell[order][:-1]
    return by_score[order[first]]


def by_column(a: Tensor, b: Tensor) -> Tensor:
    """(N, 4) of (xA, yA, xB, yB)."""
    return torch.cat([a.flip(1), b.flip(1)], 1)
