"""RoMa v2 against the golden arrays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from golden_set import Golden, GoldenSet
from roma_v2_weights import roma_v2_state
from torch import Tensor, nn

from ros2_densematch.matchers.common.dense.keypoints import match_keypoints
from ros2_densematch.matchers.common.dense.precision import predicted_precision
from ros2_densematch.matchers.common.dense.result import DenseResult, to_pixels
from ros2_densematch.matchers.common.dense.sampling import kernel_density
from ros2_densematch.matchers.encoding import Encoding
from ros2_densematch.matchers.roma_v2.encoding import Encoder
from ros2_densematch.matchers.roma_v2.images import prepared
from ros2_densematch.matchers.roma_v2.matcher import RomaV2Matcher
from ros2_densematch.matchers.roma_v2.network import SCALES, Layers, Refined, RomaV2Network
from ros2_densematch.matchers.roma_v2.refiner import confidence_update
from ros2_densematch.matchers.roma_v2.sampling import published_rows
from ros2_densematch.nn.rotary import rotation_of

# of the sheet, section 11: pixel stride per pass and scale, and channels
_STRIDES = {("c", 4): 2, ("c", 2): 4, ("c", 1): 8, ("u", 4): 2, ("u", 2): 8, ("u", 1): 12}
_FLOW_STRIDES = {("c", 4): 1, ("c", 2): 2, ("c", 1): 4, ("u", 4): 2, ("u", 2): 4, ("u", 1): 6}
_PROJECTED = {4: 32, 2: 8, 1: 3}
_EMBEDDED = {4: 16, 2: 6, 1: 2}
_HIDDEN = {4: 64, 2: 16, 1: 4}
_CORRELATED = {4: 4, 2: 1}


@pytest.fixture(scope="module")
def state(golden: Golden) -> dict[str, Tensor]:
    return roma_v2_state(golden.open("roma_v2", "forward"))


@pytest.fixture(scope="module")
def network(state: dict[str, Tensor]) -> RomaV2Network:
    with torch.device("meta"):
        built = RomaV2Network()
    built.load_state_dict(state, assign=True)
    built.drop_unused()
    return built.eval().requires_grad_(False)


class Trace:
    """What modules put out, in the order of the calls."""

    def __init__(self) -> None:
        self.calls: dict[str, list[Any]] = defaultdict(list)

    def watch(self, name: str, module: nn.Module, chosen: Callable[[Any], Any] = lambda output: output) -> None:
        module.register_forward_hook(lambda m, i, o: self.calls[name].append(chosen(o)))

    def both(self, name: str) -> Tensor:
        return torch.cat(self.calls[name])


def as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, grid)


class Run:
    """The network on both images, batch item by batch item: A, B; A -> B, B -> A."""

    def __init__(self, network: RomaV2Network, golden: Golden, expected: GoldenSet) -> None:
        self.network, self.trace = network, Trace()
        sizes = {"c": tuple(expected.settings["coarse_res_hw"]), "u": tuple(expected.settings["upsample_res_hw"])}
        pictures = [golden.image(name) for name in ("A", "B")]
        self.images = {p: [prepared(picture, size) for picture in pictures] for p, size in sizes.items()}
        self._watch()
        self.layers: list[Layers] = [network.layers(image) for image in self.images["c"]]
        self.grid = self.layers[0].grid
        fine = [network.fine_levels(layers) for layers in self.layers]
        self.tokens = [network.joint_tokens(layers) for layers in self.layers]
        joint = network.matcher.mv_vit(self.tokens[0], self.tokens[1], self.grid)
        self.coarse = [
            network.match_coarse(self.layers[i], fine[i], joint[i], joint[1 - i], with_attention=True) for i in (0, 1)
        ]
        self.joint = torch.cat(joint)
        self.maps = {p: [network.projections(image) for image in images] for p, images in self.images.items()}
        self.refined: dict[str, list[dict[int, Refined]]] = {"c": [], "u": []}
        for i in (0, 1):
            found = self.coarse[i]
            low = network.refine(self.maps["c"][i], self.maps["c"][1 - i], found.warp, found.overlap)
            high = network.refine(self.maps["u"][i], self.maps["u"][1 - i], low[1].warp, low[1].confidence)
            self.refined["c"].append(low)
            self.refined["u"].append(high)

    def _watch(self) -> None:
        network, trace = self.network, self.trace
        trace.watch("dino_block0", network.f.blocks[0])
        network.f.blocks[0].register_forward_pre_hook(lambda m, i: trace.calls["dino_tokens"].append(i[0]))
        for i in (0, 1, 11):
            trace.watch(f"mv_block{i}", network.matcher.mv_vit.blocks[i])
        head = network.matcher.head
        trace.watch("dpt_norm", head.norm)
        for i in range(4):
            trace.watch(f"dpt_proj{i}", head.projects[i])
            trace.watch(f"dpt_resize{i}", head.resize_layers[i])
            trace.watch(f"dpt_fuse{i + 1}", head.scratch.get_submodule(f"refinenet{i + 1}"))
        trace.watch("dpt_conv1", head.scratch.output_conv1)
        head.scratch.output_conv2.register_forward_pre_hook(lambda m, i: trace.calls["dpt_up"].append(i[0]))
        # what enters each max-pooling
        for s, i in ((1, 6), (2, 13), (4, 26)):
            layer = network.refiner_features.layers[i]
            if s == 4:  # the last pooling is never run: its input is what the ReLU before it gives
                trace.watch("vgg4", network.refiner_features.layers[i - 1])
            else:
                layer.register_forward_pre_hook(lambda m, i, s=s: trace.calls[f"vgg{s}"].append(i[0]))
        for s in SCALES:
            refiner = network.refiners[str(s)]
            trace.watch(f"block1_{s}", refiner.block1)
            trace.watch(f"hidden_{s}", refiner.hidden_blocks)
            trace.watch(f"out_{s}", refiner)
            refiner.pair_inputs = self._recorded(s, refiner.pair_inputs)

    def _recorded(self, s: int, function: Callable[..., list[Tensor]]) -> Callable[..., list[Tensor]]:
        def recorded(*arguments: Any) -> list[Tensor]:
            parts = function(*arguments)
            self.trace.calls[f"parts_{s}"].append(parts)
            return parts

        return recorded


@pytest.fixture(scope="module")
def run(network: RomaV2Network, golden: Golden) -> Run:
    return Run(network, golden, golden.open("roma_v2", "forward"))


def test_backbone_and_joint_transformer(golden: Golden, run: Run):
    expected = golden.open("roma_v2", "forward")
    for prefix, step in (("c", 4), ("u", 8)):
        for name, image in zip(("A", "B"), run.images[prefix], strict=True):
            expected.compare(f"{prefix}_in_{name}", image[0, :, ::step, ::step])
    network, grid = run.network, run.grid
    for name, rotation in (("dino", network.f.rotation(*grid)), ("mv", network.matcher.mv_vit.rotation(*grid))):
        expected.compare(f"{name}_rope_sin", rotation.sin[::3].float())
        expected.compare(f"{name}_rope_cos", rotation.cos[::3].float())
    for name in ("dino_tokens", "dino_block0"):
        expected.compare(name, run.trace.both(name)[..., ::64])
    for name, layer in (("feat11", "first"), ("feat17", "second")):
        tokens = torch.cat([getattr(layers, layer) for layers in run.layers])
        expected.compare(name, as_map(tokens, grid)[:, ::32])
    expected.compare("mv_in", torch.cat(run.tokens, 1)[..., ::64])
    for i in (0, 1, 11):
        expected.compare(f"mv_block{i}", run.trace.both(f"mv_block{i}")[..., ::64])
    expected.compare("mv_out", as_map(run.joint, grid)[:, ::32])


def test_attention_match_and_prediction_head(golden: Golden, run: Run):
    expected = golden.open("roma_v2", "forward")
    grid, matcher = run.grid, run.network.matcher
    logits = torch.cat([found.attention for found in run.coarse])
    expected.compare("attn_logits", logits[:, ::4])
    top = logits.softmax(2).topk(2).values
    expected.compare("attn_top2prob", as_map(top, grid))
    stored = expected.arrays["attn_top2prob"]
    near_tie = (stored[:, 0] - stored[:, 1]) < 1e-4 * stored[:, 0]
    expected.compare_integers("attn_argmax", logits.argmax(2).unflatten(1, grid), skip=near_tie)
    expected.compare("match_pos_emb", as_map(matcher.position_code(grid)[None], grid)[:, ::32])
    expected.compare("match_emb", as_map(matcher.match_code(logits, grid), grid)[:, ::32])
    norms = run.trace.calls["dpt_norm"]  # first levels of A and B, then second levels of A and B
    for name, calls in (("dpt_norm0", norms[:2]), ("dpt_norm2", norms[2:])):
        expected.compare(name, as_map(torch.cat(calls), grid)[:, ::32])
    for i, channels in enumerate((32, 64, 128, 128)):
        expected.compare(f"dpt_proj{i}", run.trace.both(f"dpt_proj{i}")[:, ::channels])
    for i, channels, step in ((0, 32, 2), (1, 64, 2), (3, 64, 1)):
        expected.compare(f"dpt_resize{i}", run.trace.both(f"dpt_resize{i}")[:, ::channels, ::step, ::step])
    for i, step in ((4, 1), (3, 1), (2, 2), (1, 4)):
        expected.compare(f"dpt_fuse{i}", run.trace.both(f"dpt_fuse{i}")[:, ::32, ::step, ::step])
    expected.compare("dpt_conv1", run.trace.both("dpt_conv1")[:, ::32, ::4, ::4])
    expected.compare("dpt_up", run.trace.both("dpt_up")[:, ::32, ::2, ::2])
    expected.compare("m_warp", torch.cat([found.warp for found in run.coarse]))
    expected.compare("m_overlap", torch.cat([found.overlap for found in run.coarse]))


def test_refiners_in_both_passes(golden: Golden, run: Run):
    expected = golden.open("roma_v2", "forward")
    for s, channels, step in ((1, 8, 16), (2, 16, 8), (4, 32, 4)):
        calls = run.trace.calls[f"vgg{s}"]  # A and B of the low resolution, then of the high one
        expected.compare(f"c_vgg{s}", torch.cat(calls[:2])[:, ::channels, ::step, ::step])
        expected.compare(f"u_vgg{s}", torch.cat(calls[2:])[:, ::channels, ::step, ::step])
    for number, prefix in enumerate(("c", "u")):
        for s in SCALES:
            check_refiner(expected, run, prefix, number, s)


def check_refiner(expected: GoldenSet, run: Run, prefix: str, number: int, s: int) -> None:
    """Inputs and outputs of one refiner in one pass; its calls: A -> B low and high, then B -> A."""
    name, step = f"{prefix}_r{s}_", _STRIDES[prefix, s]
    refined = [direction[s] for direction in run.refined[prefix]]
    delta, raw = (torch.cat(outputs) for outputs in zip(*run.trace.calls[f"out_{s}"][number::2], strict=True))
    before = torch.cat([r.confidence for r in refined]) - confidence_update(raw)
    if (prefix, s) == ("c", 4):
        before = before[:, :1]  # nothing but the overlap enters the very first refiner
    expected.compare(name + "in_warp", torch.cat([r.warp_before for r in refined])[..., ::step, ::step])
    expected.compare(name + "in_conf", before[..., ::step, ::step])
    expected.compare(name + "delta", delta[..., ::step, ::step])
    expected.compare(name + "raw_conf", raw[..., ::step, ::step])
    sampled, embedded, *correlated = run.trace.calls[f"parts_{s}"][number]
    expected.compare(name + "emb", embedded[:, :: _EMBEDDED[s], ::step, ::step])
    if correlated:
        expected.compare(name + "corr", correlated[0][:, :: _CORRELATED[s], ::step, ::step])
    if prefix == "c":
        expected.compare(name + "proj", run.maps["c"][0][s][:, :: _PROJECTED[s], ::step, ::step])
        expected.compare(name + "xhat", sampled[:, :: _PROJECTED[s], ::step, ::step])
        for kind in ("block1", "hidden"):
            inner = run.trace.calls[f"{kind}_{s}"][0]
            expected.compare(name + kind, inner[:, :: _HIDDEN[s], ::step, ::step])
    wide = _FLOW_STRIDES[prefix, s]
    expected.compare(f"{prefix}_flow{s}", torch.cat([r.warp for r in refined])[..., ::wide, ::wide])
    expected.compare(f"{prefix}_conf{s}", torch.cat([r.confidence for r in refined])[..., ::step, ::step])


def test_a_rotary_table_does_not_depend_on_the_resolution():
    periods = torch.tensor([1.0, 10.0])
    small, large = rotation_of(2, 3, periods), rotation_of(6, 9, periods)
    # the centre of a patch of the coarse grid is that of the middle one of nine
    middle = large.sin.unflatten(0, (6, 9))[1::3, 1::3].flatten(0, 1)
    np.testing.assert_allclose(small.sin, middle, atol=1e-6)


@pytest.fixture(scope="module")
def matcher(golden: Golden, state: dict[str, Tensor]) -> RomaV2Matcher:
    settings = golden.open("roma_v2", "forward").settings
    return RomaV2Matcher(
        device="cpu",
        weights=state,
        version="2.0.1",
        coarse_size=tuple(settings["coarse_res_hw"]),
        upsample_size=tuple(settings["upsample_res_hw"]),
        direction="both" if settings["symmetric"] else "reference_to_query",
    )


@pytest.fixture(scope="module")
def encodings(golden: Golden, matcher: RomaV2Matcher) -> tuple[Encoding, Encoding]:
    return matcher.encode(golden.image("A"), reference=True), matcher.encode(golden.image("B"))


@pytest.fixture(scope="module")
def results(matcher: RomaV2Matcher, encodings: tuple[Encoding, Encoding]) -> list[DenseResult]:
    return matcher.dense(*encodings)


def matrices(precision: Tensor) -> Tensor:
    """Entries xx, xy, yy (..., 3) to (..., 2, 2)."""
    return precision[..., [0, 1, 1, 2]].unflatten(-1, (2, 2))


def compare_result(expected: GoldenSet, prefix: str, name: str, result: DenseResult, step: int, matrix_step: int):
    expected.compare(f"{prefix}warp_{name}", result.flow[None, ::step, ::step])
    expected.compare(f"{prefix}overlap_{name}", result.certainty[None, ::step, ::step, None])
    expected.compare(f"{prefix}precision_{name}", matrices(result.precision)[None, ::matrix_step, ::matrix_step])


def test_the_match_in_both_directions(golden: Golden, matcher: RomaV2Matcher, results, encodings):
    expected = golden.open("roma_v2", "forward")
    for name, result in zip(("AB", "BA"), results, strict=True):
        compare_result(expected, "", name, result, 4, 8)
    usual, matcher.config = matcher.config, matcher.config.model_copy(update={"overlap_threshold": 0.7})
    # near the threshold a certainty may flip
    close = (results[0].certainty - 0.7).abs()[::4, ::4] < 1e-4
    thresholded = matcher.dense(*encodings)[0].certainty[::4, ::4]
    matcher.config = usual
    stored = torch.from_numpy(expected.arrays["overlap_AB_threshold_0.7"])[0, ..., 0]
    expected.compare("overlap_AB_threshold_0.7", torch.where(close, stored, thresholded)[None, ..., None])


def test_one_direction_at_one_resolution(golden: Golden, matcher: RomaV2Matcher, monkeypatch):
    expected = golden.open("roma_v2", "forward")
    # the same network with other settings
    changes = {"upsample_size": None, "direction": "reference_to_query", "keep_shares": False}
    settings = matcher.config.model_copy(update=changes)
    monkeypatch.setattr(matcher, "config", settings)
    monkeypatch.setattr(matcher, "_encoder", Encoder(matcher.network, settings.coarse_size, None))
    (result,) = matcher.dense(matcher.encode(golden.image("A")), matcher.encode(golden.image("B")))
    compare_result(expected, "uni_nohr_", "AB", result, 8, 8)


def test_the_published_draw(golden: Golden, results: list[DenseResult]):
    expected = golden.open("roma_v2", "forward")
    step = expected.settings["sample_row_step"]
    found = published_rows(*results)
    expected.compare("sample_rows", found.rows[::step])
    compare_confidence(expected, "sample_confidence", found.rows[::step], found.confidence[::step], results[0])
    expected.compare("sample_precision_A", matrices(found.precision_a[::step]))
    expected.compare("sample_precision_B", matrices(found.precision_b[::step]))
    density = kernel_density(found.rows[::step])
    expected.compare("sample_density", density)
    weight = 1 / (density + 1)
    weight[density < 10] = 1e-7
    # near a density of 10 the weight may flip
    stored = torch.from_numpy(expected.arrays["sample_balance_weight"])
    expected.compare("sample_balance_weight", torch.where((density - 10).abs() < 0.2, stored, weight))
    # information: distances in half precision, up to a tenth away
    half = torch.from_numpy(expected.arrays["sample_density_half"]).float()
    assert ((half - density).abs() <= 0.1 * density).all()
    expected.mark("sample_density_half")
    half_weight = torch.from_numpy(expected.arrays["sample_balance_weight_half"]).float()
    sure = ((density - 10).abs() > 1) | (density < 9)
    assert ((half_weight - weight).abs() <= 0.1 * weight + 1e-6)[sure].all()
    expected.mark("sample_balance_weight_half")
    one = published_rows(results[0], None)
    expected.compare("uni_sample_rows", one.rows[::step][::8])
    compare_confidence(
        expected, "uni_sample_confidence", one.rows[::step][::8], one.confidence[::step][::8], results[0]
    )
    # the released code gives rows of the matrix in the place of two matrices
    for name, row in (("third", 0), ("fourth", 1)):
        expected.compare(f"uni_sample_{name}", matrices(one.precision_b)[::step][::8][:, row])


def compare_confidence(expected: GoldenSet, name: str, rows: Tensor, confidence: Tensor, result: DenseResult) -> None:
    """Rows near the border may flip; those from the grid that lie on it are kept."""
    border = 1 - 1 / result.certainty.shape[0]
    near = (rows.abs().amax(1) - border).abs() < 1e-4
    stored = torch.from_numpy(expected.arrays[name])
    expected.compare(name, torch.where(near, stored, confidence))


def test_what_the_released_draw_gave_are_rows_of_ours(golden: Golden, results: list[DenseResult]):
    expected = golden.open("roma_v2", "forward")
    found = published_rows(*results)
    names = [f"sample_seed0_{part}" for part in ("matches", "confidence", "precision_A", "precision_B")]
    drawn = {name: torch.from_numpy(expected.arrays[name]) for name in names}
    exact = "donot_use_mm_for_euclid_dist"
    away, nearest = torch.cdist(drawn[names[0]], found.rows, compute_mode=exact).min(1)
    assert away.max() < 1e-4
    assert (found.confidence[nearest] - drawn[names[1]]).abs().max() < 1e-3
    # here too the rows of the matrix of B take the place of two matrices
    for row, name in enumerate(names[2:]):
        assert (matrices(found.precision_b[nearest])[:, row] - drawn[name]).abs().max() < 1e-2
    for name in names:
        expected.mark(name)


def test_pixels_and_their_precision(golden: Golden, results: list[DenseResult]):
    expected = golden.open("roma_v2", "forward")
    height_a, width_a, height_b, width_b = expected.settings["pixel_sizes"]
    found = published_rows(*results)
    step = expected.settings["sample_row_step"]
    rows = found.rows[::step][::16].numpy()
    # there pixel centres lie at half-integers
    expected.compare("pixel_A", to_pixels(rows[:, :2], (width_a, height_a)) + 0.5)
    expected.compare("pixel_B", to_pixels(rows[:, 2:], (width_b, height_b)) + 0.5)
    picked = found.precision_b[::step][::16]
    # any map of the match's size: it is the size that counts
    of_that_size = torch.zeros_like(results[0].precision)
    of_that_size.reshape(-1, 3)[: len(picked)] = picked
    got = predicted_precision(of_that_size, torch.arange(len(picked)), (width_b, height_b))
    expected.compare("precision_B_mapped", got)


def test_given_key_points(golden: Golden, results: list[DenseResult]):
    expected = golden.open("roma_v2", "forward")
    sizes = (640, 480), (400, 300)
    given = [to_pixels(expected.arrays[f"kp_{name}"], size) for name, size in zip("AB", sizes, strict=True)]
    found = match_keypoints(results[0], *sizes, *given).index
    for number, name in enumerate("AB"):
        expected.compare_integers(f"kp_index_{name}", found[:, number])
        expected.mark(f"kp_{name}")


def test_version_2_0_0_correlates_the_warped_map(golden: Golden, run: Run, state: dict[str, Tensor]):
    expected = golden.open("roma_v2", "forward")
    with torch.device("meta"):
        older = RomaV2Network(version="2.0.0")
    older.load_state_dict(state, assign=True)
    older.eval().requires_grad_(False)
    correlated: dict[int, Tensor] = {}
    for s in (4, 2):
        refiner = older.refiners[str(s)]
        refiner.pair_inputs = first_correlation(correlated, s, refiner.pair_inputs)
    passes = []
    for i in (0, 1):
        found = run.coarse[i]
        low = older.refine(run.maps["c"][i], run.maps["c"][1 - i], found.warp, found.overlap)
        high = older.refine(run.maps["u"][i], run.maps["u"][1 - i], low[1].warp, low[1].confidence)
        passes.append((low, high[1]))
    for s in SCALES:
        step, wide = _STRIDES["c", s], 8 // s
        if s in correlated:
            expected.compare(f"v200_c_r{s}_corr", correlated[s][:, :: _CORRELATED[s], ::step, ::step])
        expected.compare(f"v200_c_flow{s}", torch.cat([low[s].warp for low, _ in passes])[..., ::wide, ::wide])
        expected.compare(f"v200_c_conf{s}", torch.cat([low[s].confidence for low, _ in passes])[..., ::wide, ::wide])
    for name, (_, refined) in zip(("AB", "BA"), passes, strict=True):
        warp, confidence = (x[0].permute(1, 2, 0) for x in (refined.warp, refined.confidence))
        result = DenseResult(warp, confidence[..., 0].sigmoid(), precision=confidence[..., 1:])
        compare_result(expected, "v200_", name, result, 8, 8)


def first_correlation(into: dict[int, Tensor], s: int, function: Callable[..., list[Tensor]]):
    def recorded(*arguments: Any) -> list[Tensor]:
        parts = function(*arguments)
        into.setdefault(s, parts[-1])
        return parts

    return recorded
