"""RoMa v2 behind the contract: its draw, its precision, what is kept of a keyframe, its weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import spearmanr

from ros2_densematch.matchers.common.dense.guided import warp_from_prior
from ros2_densematch.matchers.common.dense.precision import precision_at, predicted_precision
from ros2_densematch.matchers.common.dense.result import DenseResult, to_pixels
from ros2_densematch.matchers.common.dense.sampling import kernel_density, subsampled_density
from ros2_densematch.matchers.prior import Prior
from ros2_densematch.matchers.roma_v2.matcher import RomaV2Matcher
from ros2_densematch.matchers.roma_v2.network import NetworkSize, RomaV2Network
from ros2_densematch.matchers.roma_v2.sampling import published_certainty, published_rows
from ros2_densematch.matchers.roma_v2.weights import resolved
from ros2_densematch.nn.batch_norm import fold_batch_norms
from ros2_densematch.nn.grid import cell_centres, resize
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
        return RomaV2Network(version=version, size=NetworkSize(32, 20, 2, 32, 2, 2, (8, 8, 8, 8), 8))


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
        network.blocks[18].register_forward_pre_hook(lambda *_: pytest.fail("the block behind the last tap runs"))
        network(image)
        network.drop_unused()
        after = network(image)
    assert len(network.blocks) == 18
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
        with pytest.raises(ValueError, match=r"does not state the version .* version=2\.0\.1 or version=2\.0\.0"):
            resolved(weights, None)
        assert resolved(weights, "2.0.0")[1] == "2.0.0"
    assert resolved(str(older), None)[1] == "2.0.0"
    with pytest.raises(ValueError, match=r"older\.safetensors contains weights of roma_v2 2\.0\.0, not 2\.0\.1"):
        resolved(str(older), "2.0.1")
    with pytest.raises(
        FileNotFoundError, match=r"roma_v2_2\.0\.1 \(licence: MIT .*weights fetch roma_v2_2\.0\.1 --accept"
    ):
        resolved(None, None)
    with pytest.raises(FileNotFoundError, match=r"roma_v2_2\.0\.0"):
        resolved(None, "2.0.0")
    with pytest.raises(ValueError, match=r"roma_v2_2\.0\.0 contains weights of roma_v2 2\.0\.0, not 2\.0\.1"):
        resolved("roma_v2_2.0.0", "2.0.1")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> RomaV2Matcher:
    """The matcher around a small network."""

    def load(weights: object, version: str | None, dtype: torch.dtype) -> RomaV2Network:
        network = small_network().eval().requires_grad_(False)
        fold_batch_norms(network)
        network.prepare_refiners()
        network.set_precision(dtype)
        return network

    monkeypatch.setattr("ros2_densematch.matchers.roma_v2.matcher.load_network", load)
    return RomaV2Matcher(
        device="cpu", weights="random", coarse_size=(64, 96), upsample_size=(80, 100), direction="both"
    )


def test_a_kept_keyframe_gives_what_two_new_encodings_give(small: RomaV2Matcher, photo, monkeypatch):
    a, b = photo(0, 120, 80), photo(1, 100, 90)
    keyframe = small.encode(a, reference=True)
    calls: list[int] = []
    plain = small.network.layers
    monkeypatch.setattr(small.network, "layers", lambda image: calls.append(1) or plain(image))
    kept = [small.dense(keyframe, small.encode(b)) for _ in range(2)][1]
    assert len(calls) == 2, "one backbone pass per frame"
    monkeypatch.setattr(small, "config", small.config.model_copy(update={"keep_shares": False}))
    anew = small.dense(small.encode(a), small.encode(b))
    for first, second in zip(kept, anew, strict=True):
        assert torch.allclose(first.flow, second.flow, atol=1e-5)
        assert torch.allclose(first.certainty, second.certainty, atol=1e-5)
        assert torch.allclose(first.precision, second.precision, rtol=1e-3, atol=1e-5)


def test_the_forward_precision_stands_for_both_directions(small: RomaV2Matcher, photo):
    matches = small.match(small.encode(photo(0, 120, 80)), small.encode(photo(1, 100, 90)), max_matches=None)
    xx, xy, yy = matches.precision.T.astype(np.float64)
    assert ((xx > 0) & (xx * yy > xy * xy)).all()
    one = RomaV2Matcher(device="cpu", weights="random", coarse_size=(64, 96), upsample_size=False)
    assert [r.reversed for r in one.dense(one.encode(photo(0)), one.encode(photo(1)))] == [False]


@pytest.mark.parametrize("wrong", [{"sampling": "best"}, {"overlap_threshold": 2.0}, {"coarse_size": (60, 64)}])
def test_bad_options_are_named(wrong: dict):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RomaV2Matcher(device="cpu", weights="random", **wrong)


HOMOGRAPHY = np.array([[1.05, 0.02, 3.0], [-0.01, 0.98, -2.0], [1e-5, 0.0, 1.0]])


def points_of(width: int, height: int, step: int = 12) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(6, width, step), np.arange(6, height, step)), -1).reshape(-1, 2).astype(float)


@pytest.mark.parametrize("with_maps", [True, False])
def test_a_warp_is_laid_through_the_points_of_a_prior(with_maps: bool):
    prior = Prior.from_homography(points_of(160, 120), HOMOGRAPHY)
    if not with_maps:
        prior = replace(prior, linear=None)
    start = warp_from_prior(prior, (160, 120), (160, 120), (30, 40), (120, 160), 12.0)
    xy = to_pixels(start.flow[0].flatten(1).T.numpy(), (160, 120))
    cells = to_pixels(cell_centres(30, 40).flatten(1).T.numpy(), (160, 120))
    mapped = np.column_stack([cells, np.ones(len(cells))]) @ HOMOGRAPHY.T
    assert np.abs(xy - mapped[:, :2] / mapped[:, 2:]).max() < 0.6
    assert start.covered.all()


def test_a_prior_counts_only_as_far_as_the_refiners_reach():
    points = points_of(160, 120)
    left = Prior.from_homography(points[points[:, 0] < 60], HOMOGRAPHY)
    start = warp_from_prior(left, (160, 120), (160, 120), (30, 40), (120, 160), 12.0)
    assert start.covered[:, :14].all()
    assert not start.covered[:, 39].any(), "nothing speaks for the far side"
    assert float(start.certainty[0, 0, 15, 39]) < -5
    # twelve pixels of the working image, not of the original
    vague = replace(left, sigma=np.full(len(left), 20.0))
    assert warp_from_prior(vague, (160, 120), (160, 120), (30, 40), (120, 160), 12.0) is None
    assert warp_from_prior(vague, (160, 120), (160, 120), (15, 20), (60, 80), 12.0) is not None


def test_a_guided_match_runs_no_backbone_and_returns_the_points_of_the_prior(small, photo, monkeypatch):
    a, b = small.encode(photo(0, 160, 120)), small.encode(photo(1, 160, 120))
    prior = Prior.from_homography(points_of(160, 120), HOMOGRAPHY)
    full = small.match(a, b)
    vague = replace(prior, sigma=np.full(len(prior), 100.0))
    again = small.match(a, b, prior=vague)
    assert np.array_equal(again.query_xy, full.query_xy), "a vague prior leaves the full match"
    monkeypatch.setattr(small.network, "layers", lambda image: pytest.fail("the backbone runs"))
    a, b = small.encode(photo(0, 160, 120)), small.encode(photo(1, 160, 120))
    # refiners that change nothing: the prior itself comes back
    plain = small.network.refine
    kept = {}

    def still(own, other, warp, confidence, shares=None):
        refined = plain(own, other, warp, confidence, shares)[1]
        size = tuple(refined.warp.shape[-2:])
        kept["warp"] = resize(warp, size)
        overlap = torch.cat([resize(confidence[:, :1], size), refined.confidence[:, 1:]], 1)
        return {1: replace(refined, warp=kept["warp"], confidence=overlap)}

    monkeypatch.setattr(small.network, "refine", still)
    found = small.match(a, b, prior=prior)
    assert len(found) > 0.8 * len(prior)
    order = [int(np.flatnonzero((prior.reference_xy == xy).all(1))[0]) for xy in found.reference_xy]
    assert np.abs(found.query_xy - prior.query_xy[order]).max() < 1.0
    assert found.linear.shape == (len(found), 2, 2)
    assert (np.diff(found.score) <= 0).all()
    assert len(small.match(a, b, prior=prior, max_matches=7)) == 7
    places = small.guide_points(a)
    assert len(places) == 1024
    assert (np.abs(places - [79.5, 59.5]) < [80, 60]).all()
