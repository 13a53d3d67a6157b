"""NCNet against the golden arrays, in both published configurations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_set import Golden, GoldenSet
from torch import Tensor

from ros2_densematch.matchers.common.consensus.cells import ConsensusMatches, both_directions, edge_based
from ros2_densematch.matchers.ncnet.extraction import (
    best_matches,
    centred,
    relocalise,
)
from ros2_densematch.matchers.ncnet.network import NcnetNetwork, architecture_of
from ros2_densematch.nn.correlation import correlation_4d, mutual_matching, pooled_correlation
from ros2_densematch.nn.resnet import imagenet_normalise


def crop(golden: Golden, name: str, size: list[int]) -> Tensor:
    """The top-left crop of a golden image as the network takes it."""
    image = torch.from_numpy(golden.image(name)[: size[0], : size[1]]).permute(2, 0, 1)[None].float() / 255
    return imagenet_normalise(image)


def compare_layers(expected: GoldenSet, network: NcnetNetwork, correlation: Tensor) -> None:
    """Every layer of the consensus network, on the correlation and on its swapped self."""
    for way, value in (("direct", correlation), ("swapped", correlation.permute(0, 1, 4, 5, 2, 3))):
        for number, layer in enumerate(network.NeighConsensus.conv):
            value = layer(value)
            if number % 2 == 1:
                channels = value[:, ::4] if value.shape[1] > 1 else value
                expected.compare(f"nc_layer{number // 2}_out_{way}", channels[:, :, ::2, ::2, ::2, ::2])


@pytest.mark.parametrize("stem", ["ivd", "pfpascal"])
def test_ncnet(golden: Golden, stem: str) -> None:
    expected = golden.open("ncnet", stem)
    state = expected.state(f"ncnet_{stem}")
    architecture = architecture_of(state)
    assert list(architecture.kernels) == expected.settings["ncons_kernel_sizes"]
    assert list(architecture.channels) == expected.settings["ncons_channels"]
    network = NcnetNetwork(*architecture)
    network.load_state_dict(state)
    k = max(1, expected.settings["relocalization_k_size"])
    features = [network.features(crop(golden, name, expected.settings[f"crop_{name}_hw"])) for name in "AB"]
    for name, value in zip("AB", features, strict=True):
        expected.compare(f"features_{name}", value[:, ::16])
    raw = correlation_4d(*features)
    expected.compare("corr_raw", raw)
    pooled, places = (raw, None) if k == 1 else pooled_correlation(*features, k)
    first = mutual_matching(pooled)
    expected.compare("corr_after_mutual1", first)
    compare_layers(expected, network, first)
    expected.compare("corr_after_nc", network.NeighConsensus(first))
    filtered = network.consensus(*features, relocalisation=k)
    expected.compare("corr_final", filtered.correlation)
    final = filtered.correlation[0, 0]
    if places is None:
        compare_matches(expected, final, None, None, k)
    else:
        assert torch.equal(places, filtered.places)
        ties = box_ties(raw, k)
        compare_places(expected, places, ties, k)
        compare_matches(expected, final, places[0, 0], ties[0, 0], k)


def near_tie(values: Tensor, dim: int) -> Tensor:
    """Where the two largest values along `dim` differ by less than 1e-4, relative."""
    first, second = values.topk(2, dim).values.unbind(dim)
    return (first - second) < 1e-4 * first


def box_ties(raw: Tensor, k: int) -> Tensor:
    """Near ties inside the boxes of the pooling."""
    return near_tie(raw.unfold(2, k, k).unfold(3, k, k).unfold(4, k, k).unfold(5, k, k).flatten(6), -1)


def compare_places(expected: GoldenSet, places: Tensor, ties: Tensor, k: int) -> None:
    for power, name in enumerate(("delta4d_j_B", "delta4d_i_B", "delta4d_j_A", "delta4d_i_A")):
        expected.compare_integers(name, (places.long() // k**power) % k, skip=ties.numpy())
    assert ties.float().mean() < 0.1


def compare_matches(
    expected: GoldenSet, correlation: Tensor, places: Tensor | None, ties: Tensor | None, k: int
) -> None:
    counts = [side * k for side in correlation.shape]
    h_a, w_a, h_b, w_b = correlation.shape
    flat = correlation.view(h_a * w_a, h_b * w_b)
    lists, doubtful = [], 0
    for per in "BA":
        skip = near_tie(flat, 0 if per == "B" else 1)
        for kind in ("softmax", "raw"):
            found = best_matches(correlation, per=per, softmax=kind == "softmax")
            if places is not None and ties is not None:
                skip = skip | ties[found.a[:, 0], found.a[:, 1], found.b[:, 0], found.b[:, 1]]
                found = relocalise(found, places, k)
            name = f"matches_centered_per{per}_{kind}"
            expected.compare(f"{name}_score", found.score[None])
            xy = normalised(found, counts)[None]
            compare_but(expected, f"{name}_xA_yA_xB_yB", xy, skip)
            if kind == "softmax":
                cells = torch.cat([found.a, found.b], 1)[None]
                expected.compare_integers(
                    f"{name}_iA_jA_iB_jB", cells, skip=skip[None, :, None].expand(cells.shape).numpy()
                )
                positive = name.replace("centered", "positive")
                compare_but(expected, f"{positive}_xA_yA_xB_yB", (xy + 1) / 2, skip)
                expected.compare(f"{positive}_score", found.score[None])
                lists.append(found)
        doubtful += int(skip.sum())
    compare_union(expected, both_directions(*lists), counts, doubtful)
    if "top2_rel_gap_perB" in expected.arrays:
        top = flat.topk(2, 0).values
        expected.compare("top2_rel_gap_perB", ((top[0] - top[1]) / top[0]).view(1, h_b, w_b))


def compare_but(expected: GoldenSet, name: str, got: Tensor, skip: Tensor) -> None:
    """Compares coordinates (1, N, 4), leaving out the matches with a near tie."""
    expected.compare(name, torch.where(skip[None, :, None], torch.from_numpy(expected.arrays[name]), got))


def compare_union(expected: GoldenSet, union: ConsensusMatches, counts: list[int], doubtful: int) -> None:
    """The list of the InLoc evaluation: row by row, or as sets where a near tie went the other way."""
    name = "inloc_both_dirs_unique_recentred_xA_yA_xB_yB_score"
    rows = [edge_based(union.a, counts[:2]), edge_based(union.b, counts[2:]), union.score[:, None].double()]
    table, want = torch.cat(rows, 1).numpy(), expected.arrays[name]
    pairs, wanted = ([tuple(row) for row in t[:, :4].astype(np.float64).round(4)] for t in (table, want))
    if doubtful and pairs != wanted:
        other = set(pairs) ^ set(wanted)
        assert len(other) <= 2 * doubtful
        expected.mark(name)
    else:
        expected.compare(name, table)


def normalised(matches: ConsensusMatches, counts: list[int]) -> Tensor:
    """(N, 4) of (xA, yA, xB, yB), the outer cells' centres at -1 and +1."""
    rows_a, columns_a, rows_b, columns_b = counts
    a, b = matches.a, matches.b
    pairs = ((a[:, 1], columns_a), (a[:, 0], rows_a), (b[:, 1], columns_b), (b[:, 0], rows_b))
    return torch.stack([centred(cell, count) for cell, count in pairs], 1)
