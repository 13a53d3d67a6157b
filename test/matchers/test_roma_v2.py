"""RoMa v2 behind the contract: its draw, its precision, what is kept of a keyframe, its weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import spearmanr

from ros2_densematch.matchers.common.dense.precision import precision_at, predicted_precision
from ros2_densematch.matchers.common.dense.result import DenseResult
from ros2_densematch.matchers.common.dense.sampling import kernel_density, subsampled_density
from ros2_densematch.matchers.roma_v2.coarse import CoarseMatcher
from ros2_densematch.matchers.roma_v2.dpt_head import DptHead
from ros2_densematch.matchers.roma_v2.network import RomaV2Network
from ros2_densematch.matchers.roma_v2.sampling import published_certainty, published_rows
from ros2_densematch.matchers.roma_v2.weights import resolved
from ros2_densematch.nn.batch_norm import fold_batch_norms
from ros2_densematch.nn.dinov3 import Dinov3
from ros2_densematch.nn.grid import cell_centres
from ros2_densematch.weights.key_tables import key_table


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small_network(version: str = "2.0.1") -> RomaV2Network:
    """Narrow and shallow, with every part of the published one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = Dinov3(width=32, depth=4, heads=2, taps=(1, 2))
        head = DptHead(32, levels=(8, 8, 8, 8), width=8)
        matcher = CoarseMatcher(32, joint_width=32, depth=2, heads=2, head=head)
        return RomaV2Network(version=version, backbone=backbone, matcher=matcher)


def test_state_dictionaries_have_the_official_keys_and_shapes():
    with torch.device("meta"):
        state = RomaV2Network().state_dict()
    assert {k: tuple(v.shape) for k, v in state.items()} == {k: v.shape for k, v in key_table("roma_v2").items()}
    with pytest.raises(ValueError, match=r"unknown version '2\.1' of roma_v2: choose one of 2\.0\.1, 2\.0\.0"):
        RomaV2Network(version="2.1")


def test_blocks_behind_the_last_tap_change_nothing_and_are_never_run():
    network = small_network().f.eval()
    image = torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        before = network(image)
        network.blocks[3].register_forward_pre_hook(lambda *_: pytest.fail("the block behind the last tap runs"))
        network(image)
        network.drop_unused()
        after = network(image)
    assert len(network.blocks) == 3
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    with pytest.raises(ValueError, match="multiples of 16"):
        network(torch.rand(1, 3, 32, 40))


def test_exchanging_the_images_exchanges_the_results_of_the_joint_transformer():
    transformer = small_network().matcher.mv_vit.eval()
    a, b = torch.randn(2, 1, 6, 32)
    with torch.no_grad():
        first, second = transformer(a, b, (2, 3)), transformer(b, a, (2, 3))
    assert torch.allclose(first[0], second[1], atol=1e-6)
    assert torch.allclose(first[1], second[0], atol=1e-6)
    assert not torch.allclose(first[0], first[1], atol=1e-3)


@pytest.mark.parametrize("version", ["2.0.1", "2.0.0"])
def test_prepared_refiners_and_kept_shares_compute_the_same(version: str):
    network = small_network(version).eval().requires_grad_(False)
    for refiner in network.refiners.values():
        for module in refiner.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.05)
                module.running_var.uniform_(0.5, 1.5)
    own, other = (network.projections(torch.rand(1, 3, 64, 80)) for _ in range(2))
    warp, overlap = 0.8 * cell_centres(16, 20)[None] + 0.1, torch.zeros(1, 1, 16, 20)
    plain = network.refine(own, other, warp, overlap)[1]
    fold_batch_norms(network.refiners)
    network.prepare_refiners()
    for shares in (None, network.shares(own)):
        prepared = network.refine(own, other, warp, overlap, shares)[1]
        assert torch.allclose(prepared.warp, plain.warp, atol=1e-5)
        assert torch.allclose(prepared.confidence, plain.confidence, atol=1e-4)
    # what the two versions differ in
    elsewhere = small_network("2.0.0" if version == "2.0.1" else "2.0.1").eval().requires_grad_(False)
    elsewhere.load_state_dict(small_network(version).state_dict())
    assert not torch.allclose(elsewhere.refine(own, other, warp, overlap)[1].confidence, plain.confidence, atol=1e-3)


def rows_of(kind: str, count: int = 20_000) -> torch.Tensor:
    """Drawn matches: both positions of each."""
    generator = torch.Generator().manual_seed(3)
    a = torch.rand(count, 2, generator=generator) * 2 - 1
    noise = torch.randn(count, 2, generator=generator)
    b = {
        "equal": a,
        "near": a + 0.03 * noise,
        "enlarged": 0.4 * a + 0.2,
        "bent": torch.stack([torch.sin(3 * a[:, 0] + 2 * a[:, 1]), torch.cos(4 * a[:, 1])], 1),
        "scattered": noise.clamp(-1, 1),
    }
    if kind == "outliers":
        wrong = torch.rand(count, generator=generator) < 0.1
        return torch.cat([a, torch.where(wrong[:, None], noise.clamp(-1, 1), a)], 1)
    return torch.cat([a, b[kind]], 1)


@pytest.mark.parametrize("kind", ["equal", "near", "enlarged", "bent", "outliers", "scattered"])
def test_the_density_against_few_rows_ranks_as_the_exact_one(kind: str):
    rows = rows_of(kind)
    exact, estimate = kernel_density(rows), subsampled_density(rows, 3000)
    assert spearmanr(exact, estimate).statistic >= 0.99
    assert (estimate >= 1).all()
    few = rows[:2500]
    assert torch.equal(kernel_density(few), subsampled_density(few, 3000))


def result_of(flow: torch.Tensor, precision: torch.Tensor | None = None) -> DenseResult:
    return DenseResult(flow, torch.full(flow.shape[:2], 0.5), precision=precision)


def test_the_published_border_is_one_for_both_axes():
    height, width = 20, 60
    flow = cell_centres(height, width).permute(1, 2, 0).clone()
    kept = published_certainty(result_of(flow)) > 0
    # in a wide map the border of 1 - 1 / height takes the outermost columns of the grid itself
    assert kept.any(0).tolist() == [False] + [True] * (width - 2) + [False]
    assert kept.all(1).sum() == 0


def test_precision_is_carried_to_original_pixels():
    height, width = 20, 40
    precision = torch.tensor([4.0, 1.0, 9.0]).expand(height, width, 3).clone()
    # the image is twice as wide and four times as high as the map
    got = predicted_precision(precision, torch.tensor([0, 5]), (80, 80))
    np.testing.assert_allclose(got[1], [[4 / 4, 1 / 8], [1 / 8, 9 / 16]], rtol=1e-4)
    between = precision_at(precision, torch.tensor([[0.3, -2.0], [0.0, 0.0]]), (80, 80))
    np.testing.assert_allclose(between, got, rtol=1e-4)
    rows = published_rows(result_of(cell_centres(height, width).permute(1, 2, 0), precision), None)
    assert rows.precision_a is None
    assert rows.precision_b.shape == (height * width, 3)


def test_weights_that_do_not_say_their_version_are_not_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DENSEMATCH_WEIGHTS", str(tmp_path / "store"))
    state = {"key": torch.zeros(1)}
    silent, older = tmp_path / "silent.safetensors", tmp_path / "older.safetensors"
    save_file(state, silent)
    save_file(state, older, {"version": "2.0.0"})
    for weights in (state, str(silent)):
        with pytest.raises(ValueError, match=r"does not say which version .* version=2\.0\.1 or version=2\.0\.0"):
            resolved(weights, None)
        assert resolved(weights, "2.0.0")[1] == "2.0.0"
    assert resolved(str(older), None)[1] == "2.0.0"
    with pytest.raises(ValueError, match=r"older\.safetensors holds weights of roma_v2 2\.0\.0, not 2\.0\.1"):
        resolved(str(older), "2.0.1")
    with pytest.raises(
        FileNotFoundError, match=r"roma_v2_2\.0\.1 \(licence: MIT .*weights fetch roma_v2_2\.0\.1 --accept"
    ):
        resolved(None, None)
    with pytest.raises(FileNotFoundError, match=r"roma_v2_2\.0\.0"):
        resolved(None, "2.0.0")
    with pytest.raises(ValueError, match=r"roma_v2_2\.0\.0 holds weights of roma_v2 2\.0\.0, not 2\.0\.1"):
        resolved("roma_v2_2.0.0", "2.0.1")
