"""NCNet and Sparse-NCNet: from a filtered correlation to pixels, and what the matchers promise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from ros2_densematch.arrays import Image
from ros2_densematch.matchers.common.consensus.cells import ConsensusMatches, both_directions
from ros2_densematch.matchers.ncnet.extraction import (
    best_matches,
    weak_score,
)
from ros2_densematch.matchers.ncnet.matcher import NcnetMatcher
from ros2_densematch.matchers.ncnet.network import ARCHITECTURES, Filtered, NcnetNetwork
from ros2_densematch.matchers.sparse_ncnet import extraction as sparse
from ros2_densematch.matchers.sparse_ncnet.matcher import SparseNcnetMatcher
from ros2_densematch.matchers.sparse_ncnet.network import SparseNcnetNetwork
from ros2_densematch.matchers.sparse_ncnet.relocalisation import relocalise_hard, relocalise_soft
from ros2_densematch.nn.sparse_conv4d import SparseCorrelation
from ros2_densematch.nn.sparse_correlation import sparse_correlation

Photo = Callable[..., Image]


def colours(image: Tensor, stride: int = 16) -> Tensor:
    """Mean colours in place of deep features: the golden vectors and the contract's tests use the real ones."""
    return functional.normalize(functional.avg_pool2d(image, stride), dim=1)


@pytest.fixture(scope="module")
def ncnet() -> NcnetMatcher:
    matcher = NcnetMatcher(device="cpu", preset="small", weights="random")
    matcher.network.features = colours  # type: ignore[method-assign]
    return matcher


@pytest.fixture(scope="module")
def sparse_ncnet() -> SparseNcnetMatcher:
    matcher = SparseNcnetMatcher(device="cpu", preset="small", weights="random")
    matcher.network.features = lambda image: (colours(image), colours(image, 8))  # type: ignore[method-assign]
    return matcher


def one_to_one(rows: int, columns: int, shift: int) -> Tensor:
    """(1, 1, rows, columns, rows, columns): a cell of A matches the one `shift` columns further on in B."""
    correlation = torch.zeros(1, 1, rows, columns, rows, columns)
    for i in range(rows):
        for j in range(columns - shift):
            correlation[0, 0, i, j, i, j + shift] = 20.0
    return correlation


def test_a_known_correlation_becomes_centres_of_cells(
    ncnet: NcnetMatcher, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """320 x 240 pixels, 20 x 15 cells, pooled to 10 x 7: row 14 is cut off with the working image (320 x 224)."""
    encoding = ncnet.encode(photo(0, 320, 240))
    correlation = one_to_one(7, 10, 2)
    # in every box of 2 x 2 x 2 x 2 the largest entry: A row 1, A column 0, B row 1, B column 1
    places = torch.full(correlation.shape, 0b1011, dtype=torch.int16)
    monkeypatch.setattr(ncnet.network, "consensus", lambda a, b, relocalisation: Filtered(correlation, places))
    matches = ncnet.match(encoding, encoding)
    sure = matches.score > 0.9
    assert sure.sum() == 7 * 8
    cell = np.stack(np.meshgrid(np.arange(8), np.arange(7)), -1).reshape(-1, 2)
    reference = (2 * cell + [0, 1] + 0.5) * np.array([320 / 20, 240 / 14]) - 0.5
    got = {tuple(row) for row in matches.reference_xy[sure].round(3).tolist()}
    assert got == {tuple(row) for row in reference.astype(np.float32).round(3).tolist()}
    offset = matches.query_xy[sure] - matches.reference_xy[sure]
    np.testing.assert_allclose(offset, [[(2 * 2 + 1) * 16.0, 0.0]] * len(offset), atol=1e-4)
    # two and a half of the ten columns of A lead beyond the rim of B
    assert matches.overlap == pytest.approx(0.75, abs=0.05)


def test_pfpascal_keeps_the_corner_pixels_and_one_match_per_query_cell(photo: Photo) -> None:
    matcher = NcnetMatcher(device="cpu", preset="pfpascal", weights="random")
    matcher.network.features = colours  # type: ignore[method-assign]
    encoding = matcher.encode(photo(0, 161, 81))
    correlation = one_to_one(25, 25, 0)
    matcher.network.consensus = lambda a, b, relocalisation: Filtered(correlation, None)  # type: ignore[method-assign]
    matches = matcher.match(encoding, encoding, max_matches=None)
    assert len(matches) == 625
    np.testing.assert_allclose(matches.query_xy.min(0), [0, 0], atol=1e-5)
    np.testing.assert_allclose(matches.query_xy.max(0), [160, 80], atol=1e-4)
    np.testing.assert_allclose(matches.query_xy, matches.reference_xy, atol=1e-5)


def test_the_union_of_both_directions_holds_a_pair_once_with_its_better_score() -> None:
    a, b = torch.tensor([[0, 1], [2, 0], [1, 1]]), torch.tensor([[1, 1], [0, 0], [0, 1]])
    first = ConsensusMatches(a, b, torch.tensor([0.3, 0.2, 0.9]))
    second = ConsensusMatches(a[:2], b[:2], torch.tensor([0.4, 0.1]))
    union = both_directions(first, second)
    assert union.a.tolist() == [[2, 0], [0, 1], [1, 1]], "in order of the column in A, then of its row"
    assert union.score.tolist() == pytest.approx([0.2, 0.4, 0.9])


def test_scores_are_those_of_a_softmax_over_the_other_image() -> None:
    correlation = torch.randn(2, 3, 4, 2, generator=torch.Generator().manual_seed(0))
    flat = correlation.view(6, 8)
    torch.testing.assert_close(best_matches(correlation, per="B").score, flat.softmax(0).amax(0))
    torch.testing.assert_close(best_matches(correlation, per="A").score, flat.softmax(1).amax(1))


def test_pairs_that_match_score_higher_and_the_loss_is_differentiable() -> None:
    torch.manual_seed(0)
    noise = torch.rand(2, 1, 4, 4, 4, 4)
    matching = (noise + one_to_one(4, 4, 0) / 4).requires_grad_()
    assert (weak_score(matching) > 2 * weak_score(noise)).all()
    loss = weak_score(noise).mean() - weak_score(matching).mean()
    assert loss < 0
    loss.backward()
    assert matching.grad is not None
    assert matching.grad.abs().sum() > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_forward_pass_is_differentiable_and_normalisation_stays_frozen(architecture: str) -> None:
    torch.manual_seed(0)
    network = NcnetNetwork(*ARCHITECTURES[architecture]).train()
    assert not any(module.training for module in network.FeatureExtraction.modules())
    features = [functional.normalize(torch.rand(1, 8, 4, 4), dim=1) for _ in range(2)]
    correlation = network.consensus(*features).correlation
    weak_score(correlation).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.NeighConsensus.parameters())


@pytest.mark.parametrize("name", ["ncnet", "sparse_ncnet"])
def test_an_encoding_serves_any_number_of_matches(
    name: str, photo: Photo, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    matcher = request.getfixturevalue(name)
    reference, query = matcher.encode(photo(0, 160, 120)), matcher.encode(photo(1, 160, 120))
    expected = matcher.match(reference, query)
    monkeypatch.setattr(matcher.network, "features", lambda image: pytest.fail("a kept image was encoded again"))
    again = matcher.match(reference, query)
    np.testing.assert_array_equal(again.query_xy, expected.query_xy)
    np.testing.assert_array_equal(again.score, expected.score)


@pytest.mark.parametrize("value", [0, 90])
@pytest.mark.parametrize("name", ["ncnet", "sparse_ncnet"])
def test_an_image_of_one_colour_matches_nothing(
    name: str, value: int, photo: Photo, request: pytest.FixtureRequest
) -> None:
    matcher = request.getfixturevalue(name)
    blank, image = matcher.encode(np.full((120, 160), value, np.uint8)), matcher.encode(photo(0, 160, 120))
    for pair in ((blank, image), (image, blank)):
        matches = matcher.match(*pair)
        assert (len(matches), matches.overlap) == (0, 0.0)


def test_weights_decide_the_architecture(tmp_path: Path) -> None:
    for name, architecture in ARCHITECTURES.items():
        torch.manual_seed(1)
        state = NcnetNetwork(*architecture).state_dict()
        path = tmp_path / f"{name}.safetensors"
        save_file({key: value.contiguous() for key, value in state.items()}, path)
        matcher = NcnetMatcher(device="cpu", preset="small", weights=str(path))
        sizes = [layer.weight.shape[0] for layer in matcher.network.NeighConsensus.conv[::2]]
        assert tuple(sizes) == architecture.kernels
        torch.testing.assert_close(matcher.network.NeighConsensus.conv[0].weight, state["NeighConsensus.conv.0.weight"])


def test_a_missing_checkpoint_is_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENSEMATCH_WEIGHTS", str(tmp_path))
    for preset, name in (("base", "ncnet_ivd"), ("pfpascal", "ncnet_pfpascal")):
        with pytest.raises(FileNotFoundError, match=f"MIT.*densematch weights fetch {name}"):
            NcnetMatcher(device="cpu", preset=preset)
    with pytest.raises(FileNotFoundError, match="densematch weights import FILE --as sparsencnet_k10"):
        SparseNcnetMatcher(device="cpu")


def entries(places: list[list[int]], values: list[float]) -> SparseCorrelation:
    """A sparse correlation of two images of 2 x 2 cells."""
    strides = torch.tensor([64, 16, 4, 1])
    keys = ((torch.tensor(places) + 1) * strides).sum(1)
    order = torch.argsort(keys)
    return SparseCorrelation(keys[order], torch.tensor(values)[order][:, None], (2, 2, 2, 2))


def test_every_cell_gives_its_best_entry_and_ties_go_to_the_first() -> None:
    places = [[0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    correlation = entries(places, [0.5, 0.4, 0.7, 0.3, 0.3])
    matches = sparse.best_entries(correlation)
    found = torch.cat([matches.a, matches.b], 1).tolist()
    # of A: (0,0)->(0,0), (0,1)->(0,0), (1,1)->(1,0); of B: (0,0)->(0,1), (0,1)->(0,0), (1,0)->(1,1), (1,1)->(1,1)
    assert sorted(found) == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


def test_the_sparse_score_equals_the_dense_one_with_zeros() -> None:
    drawn = torch.Generator().manual_seed(0)
    a, b = (functional.normalize(torch.rand(8, 3, 4, generator=drawn), dim=0) for _ in range(2))
    correlation = sparse_correlation(a, b, 4)
    full = torch.zeros(1, 1, *correlation.sides)
    full[(0, 0, *correlation.places().T)] = correlation.values[:, 0]
    torch.testing.assert_close(sparse.weak_score(correlation), weak_score(full)[0])


def test_relocalisation_finds_the_best_finer_cells_then_a_place_between() -> None:
    a, b = torch.zeros(3, 4, 4), torch.zeros(3, 6, 4)
    a[0, 1, 2], b[0, 4, 3] = 1.0, 1.0
    hard = relocalise_hard(a, b, torch.tensor([[0, 1]]), torch.tensor([[2, 1]]))
    assert [h.tolist() for h in hard] == [[[1, 2]], [[4, 3]]]
    b[0, 4, 2] = 1.0  # as good: the expected place lies half-way
    soft = relocalise_soft(a, b, *hard)
    torch.testing.assert_close(soft[0], torch.tensor([[1.0, 2.0]]), rtol=0, atol=1e-3)
    torch.testing.assert_close(soft[1], torch.tensor([[4.0, 2.5]]), rtol=0, atol=1e-3)


def test_the_sparse_network_trains(photo: Photo) -> None:
    torch.manual_seed(0)
    network = SparseNcnetNetwork(double_resolution=False).train()
    features = [functional.normalize(torch.rand(8, 5, 5), dim=0) for _ in range(2)]
    sparse.weak_score(network.consensus(*features)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.NeighConsensus.parameters())
    assert network.FeatureExtraction.stride == 16
