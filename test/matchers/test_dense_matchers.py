"""DKM, RoMa and Tiny RoMa behind the contract of all matchers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ros2_densematch.matchers import network as network_matcher
from ros2_densematch.matchers.base import Encoding
from ros2_densematch.matchers.common.dense.matcher import DenseMatcher, SampledMatcher
from ros2_densematch.matchers.common.dense.result import DenseResult
from ros2_densematch.matchers.dkm.matcher import DkmMatcher
from ros2_densematch.matchers.dkm.network import DkmNetwork
from ros2_densematch.matchers.prior import Prior
from ros2_densematch.matchers.registry import load_matcher
from ros2_densematch.matchers.roma.matcher import RomaMatcher
from ros2_densematch.matchers.roma.network import RomaNetwork
from ros2_densematch.matchers.tiny_roma.matcher import TinyRomaMatcher
from ros2_densematch.matchers.tiny_roma.network import TinyRomaNetwork
from ros2_densematch.nn.dinov2 import Dinov2
from ros2_densematch.nn.gaussian_process import GaussianProcess
from ros2_densematch.nn.grid import cell_centres, resize
from ros2_densematch.nn.prepared_refiner import PreparedRefiner
from ros2_densematch.weights.key_tables import key_table

COARSE, FINE = (64, 80), (80, 96)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Several threads only wait for each other at these sizes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small_dkm(**options) -> DkmMatcher:
    defaults = {"device": "cpu", "weights": "random", "coarse_size": COARSE, "upsample_size": FINE}
    return DkmMatcher(**(defaults | options))


@pytest.fixture(scope="module")
def dkm() -> DkmMatcher:
    return small_dkm()


@pytest.fixture(scope="module")
def tiny() -> TinyRomaMatcher:
    return TinyRomaMatcher(device="cpu", weights="random")


@pytest.fixture(scope="module", params=["dkm", "tiny_roma"])
def matcher(request, dkm, tiny) -> SampledMatcher:
    return {"dkm": dkm, "tiny_roma": tiny}[request.param]


def picture(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 256, (height // 8, width // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)


@pytest.mark.parametrize(
    ("build", "table"),
    [
        (RomaNetwork, "roma"),
        (Dinov2, "dinov2_vitl14"),
        (DkmNetwork, "DKMv3"),
        (TinyRomaNetwork, "tiny_roma_v1"),
    ],
)
def test_state_dictionaries_have_the_official_keys_and_shapes(build, table: str):
    with torch.device("meta"):
        state = build().state_dict()
    assert {k: tuple(v.shape) for k, v in state.items()} == {k: v.shape for k, v in key_table(table).items()}


def identity(reversed_: bool = False) -> DenseResult:
    """Every cell of a 30 x 40 warp lies at the same place of the other image."""
    return DenseResult(cell_centres(30, 40).permute(1, 2, 0), torch.full((30, 40), 0.8), reversed_)


def test_coordinates_are_pixels_of_the_original_images(tiny: TinyRomaMatcher, monkeypatch):
    monkeypatch.setattr(tiny, "dense", lambda reference, query: [identity(), identity(True)])
    a, b = (Encoding("tiny_roma", size, None) for size in ((200, 90), (320, 240)))
    m = tiny.match(a, b, max_matches=None)
    assert len(m) == 2 * 30 * 40
    scale = np.array([320 / 200, 240 / 90])
    assert np.allclose(m.query_xy, (m.reference_xy + 0.5) * scale - 0.5, atol=1e-3)
    # the centre of the first cell, which is 5 x 3 pixels large
    assert m.reference_xy[0] == pytest.approx([2.0, 1.0], abs=1e-4)
    assert m.warp.xy.shape == (30, 40, 2)
    assert m.warp.xy[0, 0] == pytest.approx([3.5, 3.5], abs=1e-4)
    assert m.overlap == pytest.approx(0.8)
    # both directions know the query position equally well: half a cell of the image that was predicted
    forward, backward = m.precision[:1200], m.precision[1200:]
    assert np.allclose(forward, backward, rtol=1e-3, atol=1e-5)
    assert np.allclose(forward[0], [0.8 / 4**2, 0, 0.8 / 4**2], atol=1e-5)


def test_a_pixel_outside_the_other_image_is_no_match(tiny: TinyRomaMatcher, monkeypatch):
    result = identity()
    result.flow[:, :20, 0] = -1.01
    monkeypatch.setattr(tiny, "dense", lambda reference, query: [result])
    a = Encoding("tiny_roma", (200, 90), None)
    m = tiny.match(a, a, max_matches=None)
    assert len(m) == 600
    assert m.reference_xy[:, 0].min() > 99
    assert m.overlap == pytest.approx(0.4)


def test_masked_pixels_neither_match_nor_count(tiny: TinyRomaMatcher, monkeypatch):
    monkeypatch.setattr(tiny, "dense", lambda reference, query: [identity()])
    left, top = np.ones((90, 200), bool), np.ones((90, 200), bool)
    left[:, :100] = False
    top[:45] = False
    a, b = Encoding("tiny_roma", (200, 90), None, left), Encoding("tiny_roma", (200, 90), None, top)
    m = tiny.match(a, b, max_matches=None)
    assert len(m) == 300
    assert m.reference_xy[:, 0].min() >= 100
    assert m.query_xy[:, 1].min() >= 45
    # of the allowed half of the reference, one half leads to masked pixels
    assert m.overlap == pytest.approx(0.4)


def test_match_is_deterministic_bounded_and_sorted(matcher: SampledMatcher):
    a, b = matcher.encode(picture(0), reference=True), matcher.encode(picture(1))
    first, again = matcher.match(a, b, max_matches=100), matcher.match(a, b, max_matches=100)
    other = matcher.match(a, b, max_matches=100, seed=1)
    assert len(first) == 100
    assert np.array_equal(first.reference_xy, again.reference_xy)
    assert not np.array_equal(first.reference_xy, other.reference_xy)
    assert (np.diff(first.score) <= 0).all()
    assert first.score.max() <= 1
    assert first.precision.shape == (100, 3)
    # positive definite
    xx, xy, yy = first.precision.T
    assert (xx > 0).all()
    assert (xx * yy > xy**2).all()
    assert len(matcher.match(a, b, max_matches=0)) == 0


def test_grey_black_and_huge_pictures(matcher: SampledMatcher):
    reference = matcher.encode(picture(0), reference=True)
    grey = picture(1)[..., 0]
    from_grey = matcher.match(reference, matcher.encode(grey), max_matches=50)
    from_rgb = matcher.match(reference, matcher.encode(np.repeat(grey[..., None], 3, 2)), max_matches=50)
    assert np.allclose(from_grey.query_xy, from_rgb.query_xy)
    huge = np.repeat(np.repeat(picture(2, 64, 800), 2, 0), 10, 1)
    for image in (np.zeros((120, 160, 3), np.uint8), huge):
        m = matcher.match(reference, matcher.encode(image), max_matches=50)
        assert all(np.isfinite(x).all() for x in (m.query_xy, m.reference_xy, m.score, m.precision, m.warp.xy))
        assert 0 <= m.overlap <= 1
        assert (m.query_xy <= np.array([image.shape[1], image.shape[0]]) - 0.5).all()
        assert (m.query_xy >= -0.5).all()
    with pytest.raises(ValueError, match="at least 16 x 16"):
        matcher.encode(np.zeros((1, 1, 3), np.uint8))
    with pytest.raises(ValueError, match="drop alpha"):
        matcher.encode(np.zeros((64, 64, 4), np.uint8))


def test_given_key_points_match_through_the_matcher(dkm: DkmMatcher):
    a, b = dkm.encode(picture(0)), dkm.encode(picture(1))
    xy = np.array([[40.0, 30.0], [100.0, 80.0]])
    forward = next(r for r in dkm.dense(a, b) if not r.reversed)
    row, column = (np.floor((xy[:, 1] + 0.5) * 80 / 120), np.floor((xy[:, 0] + 0.5) * 96 / 160))
    carried = forward.flow.numpy()[row.astype(int), column.astype(int)]
    query = (carried + 1) * [80, 60] - 0.5
    found = dkm.match_keypoints(a, b, xy, query, max_distance=0.1)
    assert set(map(tuple, found.index.tolist())) <= {(0, 0), (1, 1)}
    backward = small_dkm(direction="query_to_reference", upsample_size=False)
    with pytest.raises(ValueError, match="direction='both'"):
        backward.match_keypoints(backward.encode(picture(0)), backward.encode(picture(1)), xy, xy)


def flows(matcher: DenseMatcher, a: np.ndarray, b: np.ndarray) -> list[torch.Tensor]:
    return flows_of(matcher, matcher.encode(a), matcher.encode(b))


def flows_of(matcher: DenseMatcher, reference: Encoding, query: Encoding) -> list[torch.Tensor]:
    return [r.flow for r in matcher.dense(reference, query)]


def test_both_directions_are_the_single_ones(dkm: DkmMatcher, monkeypatch):
    both = flows(dkm, picture(0), picture(1))
    for direction, expected in zip(("reference_to_query", "query_to_reference"), both, strict=True):
        settings = dkm.config.model_copy(update={"direction": direction})
        monkeypatch.setattr(dkm, "config", settings)
        (only,) = flows(dkm, picture(0), picture(1))
        assert torch.equal(only, expected)
        # a warp from the query is one from the reference with the pictures exchanged
        if direction == "query_to_reference":
            monkeypatch.setattr(dkm, "config", dkm.config.model_copy(update={"direction": "reference_to_query"}))
            assert torch.allclose(flows(dkm, picture(1), picture(0))[0], expected, atol=1e-5)


class Calls:
    """Counts what a matcher runs."""

    def __init__(self, matcher: DenseMatcher, monkeypatch) -> None:
        self.encoder = self.conditioned = 0
        matcher.network.encoder.register_forward_hook(lambda *_: None)
        pyramid, condition = matcher.network.pyramid, GaussianProcess.condition

        def counted_pyramid(image, *, fine=False):
            self.encoder += 1
            return pyramid(image, fine=fine)

        def counted_condition(process, support):
            self.conditioned += 1
            return condition(process, support)

        monkeypatch.setattr(matcher.network, "pyramid", counted_pyramid)
        monkeypatch.setattr(GaussianProcess, "condition", counted_condition)


def test_a_keyframe_is_encoded_and_conditioned_once(dkm: DkmMatcher, monkeypatch):
    calls = Calls(dkm, monkeypatch)
    reference = dkm.encode(picture(0), reference=True)
    # two passes, and the Gaussian processes of two scales
    assert (calls.encoder, calls.conditioned) == (2, 2)
    frames = [dkm.encode(picture(s)) for s in (1, 2)]
    assert (calls.encoder, calls.conditioned) == (2, 2), "a frame waits until it is known what is needed of it"
    for frame in frames:
        dkm.dense(reference, frame)
    # only the frames' own processes, which the direction from the reference needs
    assert (calls.encoder, calls.conditioned) == (6, 6)
    # a frame that becomes a keyframe keeps what the match made
    dkm.dense(frames[0], reference)
    assert calls.conditioned == 6


def test_a_guided_match_runs_no_deep_stage_and_returns_the_points_of_the_prior(dkm: DkmMatcher, monkeypatch):
    reference, query = dkm.encode(picture(0)), dkm.encode(picture(1))
    # not at the rim, where the enlargement of a coarser flow is flat, as released
    xy = np.stack(np.meshgrid(np.arange(20, 140, 12), np.arange(20, 104, 12)), -1).reshape(-1, 2).astype(float)
    prior = Prior.from_homography(xy, np.array([[1, 0, 4.0], [0, 1, -3.0], [0, 0, 1]]))
    passes = []
    pyramid = dkm.network.pyramid
    plain = dkm.network.match_fine

    def noted(image, *, fine=False):
        passes.append(fine)
        return pyramid(image, fine=fine)

    def still(own, other, flow, certainty, shares=None):
        """Refiners that change nothing."""
        out = plain(own, other, flow, certainty, shares)[1]
        size = tuple(out.flow.shape[-2:])
        return {1: replace(out, flow=resize(flow, size), certainty=resize(certainty, size))}

    monkeypatch.setattr(dkm.network, "pyramid", noted)
    monkeypatch.setattr(dkm.network, "match_fine", still)
    found = dkm.match(reference, query, prior=prior)
    assert passes == [True] * 4
    order = [int(np.flatnonzero((prior.reference_xy == at).all(1))[0]) for at in found.reference_xy]
    assert len(found) > 0.8 * len(prior)
    assert np.abs(found.query_xy - prior.query_xy[order]).max() < 1.0
    # what is too vague for the first refiner is matched in full
    vague = replace(prior, sigma=np.full(len(prior), 100.0))
    monkeypatch.undo()
    assert np.array_equal(dkm.match(reference, query, prior=vague).query_xy, dkm.match(reference, query).query_xy)


def test_a_keyframes_share_of_the_refiners_is_made_once_and_changes_nothing(dkm: DkmMatcher, monkeypatch):
    made = []
    share = PreparedRefiner.share
    monkeypatch.setattr(PreparedRefiner, "share", lambda self, query: made.append(query) or share(self, query))
    monkeypatch.setattr(dkm, "config", dkm.config.model_copy(update={"direction": "reference_to_query"}))
    keyframe = dkm.encode(picture(0), reference=True)
    # scales 16, 8, 4, 2, 1, and all but the first again in the upsampling pass
    assert len(made) == 9
    first = flows_of(dkm, keyframe, dkm.encode(picture(1)))
    flows_of(dkm, keyframe, dkm.encode(picture(2)))
    assert len(made) == 9
    # a frame that becomes a keyframe keeps what the first match made
    promoted = dkm.encode(picture(0))
    assert promoted.data.shares is None
    assert torch.equal(flows_of(dkm, promoted, dkm.encode(picture(1)))[0], first[0])
    assert promoted.data.shares is not None
    # of the last keyframe only: the memory does not grow with their number
    assert keyframe.data.shares is None
    # a matcher that must save memory keeps nothing, with the same result
    monkeypatch.setattr(dkm, "config", dkm.config.model_copy(update={"keep_shares": False}))
    thrifty = dkm.encode(picture(0), reference=True)
    assert torch.equal(flows_of(dkm, thrifty, dkm.encode(picture(1)))[0], first[0])
    assert thrifty.data.shares is None


def test_no_share_is_made_where_only_the_query_is_refined(dkm: DkmMatcher, monkeypatch):
    monkeypatch.setattr(dkm, "config", dkm.config.model_copy(update={"direction": "query_to_reference"}))
    keyframe, frame = dkm.encode(picture(0), reference=True), dkm.encode(picture(1))
    dkm.dense(keyframe, frame)
    assert keyframe.data.shares is None
    assert frame.data.shares is None


def test_encoding_for_reference_gives_the_same_match(dkm: DkmMatcher):
    query = dkm.encode(picture(1))
    first = dkm.match(dkm.encode(picture(0), reference=True), query, max_matches=200)
    second = dkm.match(dkm.encode(picture(0)), query, max_matches=200)
    assert np.array_equal(first.query_xy, second.query_xy)


def test_folded_batch_norms_and_prepared_refiners_give_the_same_warp(dkm: DkmMatcher, monkeypatch):
    # batch norms that do something
    state = DkmNetwork().state_dict()
    generator = torch.Generator().manual_seed(0)
    for key, value in state.items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif key.endswith("running_mean"):
            value.normal_(0, 0.1, generator=generator)
    folded = small_dkm(weights=state)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.network.modules())
    monkeypatch.setattr(network_matcher, "fold_batch_norms", lambda network: 0)
    monkeypatch.setattr(DkmNetwork, "prepare_refiners", lambda network: None)
    plain = small_dkm(weights=state)
    assert any(isinstance(m, nn.BatchNorm2d) for m in plain.network.modules())
    for x, y in zip(flows(folded, picture(0), picture(1)), flows(plain, picture(0), picture(1)), strict=True):
        assert torch.allclose(x, y, atol=1e-4)


def test_half_precision_is_an_argument_and_gives_nearly_the_same_warp(dkm: DkmMatcher):
    half = small_dkm(dtype="bfloat16")
    assert half.encode(picture(0), reference=True).data.coarse[16].dtype == torch.bfloat16
    for x, y in zip(flows(half, picture(0), picture(1)), flows(dkm, picture(0), picture(1)), strict=True):
        assert x.dtype == torch.float32
        assert (x - y).abs().mean() < 0.02


def test_float16_features_keep_gaussian_process_and_last_convolutions_in_float32():
    half = small_dkm(dtype="float16", upsample_size=False)
    encoding = half.encode(picture(0), reference=True).data
    assert encoding.coarse[16].dtype == torch.float16
    assert torch.isfinite(encoding.coarse[16]).all()
    assert encoding.conditioned[16].solved.dtype == torch.float32
    decoder = half.network.decoder
    assert decoder.gps["16"].pos_conv.weight.dtype == decoder.conv_refiner["1"].out_conv.weight.dtype == torch.float32
    assert decoder.conv_refiner["1"].pair.depthwise.weight.dtype == torch.float16


NETWORKS = {"dkm": DkmNetwork, "roma": lambda: RomaNetwork(dinov2=Dinov2(depth=1)), "tiny_roma": TinyRomaNetwork}
SCALES = {"dkm": {32, 16, 8, 4, 2, 1}, "roma": {16, 8, 4, 2, 1}, "tiny_roma": {8, 4}}


def network_and_images(name: str, batch: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    side = {"dkm": 80, "roma": 84, "tiny_roma": 64}[name]
    return NETWORKS[name](), torch.rand(batch, 3, side, side), torch.rand(batch, 3, side, side)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_training_gives_what_the_losses_need_at_every_scale(name: str):
    network, a, b = network_and_images(name, 2)
    outputs = network.train()(a, b)
    assert set(outputs) == SCALES[name]
    for output in outputs.values():
        assert output.flow.shape[:2] == output.flow_before.shape[:2] == (2, 2)
        assert output.certainty.shape[:2] == (2, 1)
    # gradients stop between the scales
    if name == "tiny_roma":
        coarser = network.coarse_matcher[4].weight
    else:
        coarser = network.decoder.conv_refiner["8"].out_conv.weight
    finest = outputs[min(outputs)].flow.sum()
    assert torch.autograd.grad(finest, coarser, retain_graph=True, allow_unused=True) == (None,)
    loss = sum((o.flow**2).mean() + o.certainty.mean() for o in outputs.values())
    if name == "roma":
        assert outputs[16].anchor_logits.shape[:2] == (2, 4096)
        loss = loss + outputs[16].anchor_logits.square().mean()
    loss.backward()
    without = [k for k, p in network.named_parameters() if p.grad is None and ".net.fc." not in k]
    assert without == []


@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_batch_is_its_members(name: str):
    network, a, b = network_and_images(name, 2)
    network.eval()
    with torch.inference_mode():
        together, alone = network(a, b), network(a[1:], b[1:])
    for s, output in alone.items():
        assert torch.allclose(together[s].flow[1:], output.flow, atol=1e-3), s


def test_the_position_rules_of_tiny_roma():
    """Released: the extra logit is the index of the best cell. Where that is large, the best cell's centre wins."""
    from ros2_densematch.matchers.tiny_roma.network import coarse_position

    support = torch.zeros(1, 2, 8, 8)
    support[0, 0, 5, 6] = 3.0
    query = torch.zeros(1, 2, 1, 1)
    query[0, 0] = 3.0
    centre = cell_centres(8, 8)[:, 5, 6]
    assert torch.allclose(coarse_position(query, support, "released")[0, :, 0, 0], centre)
    best = float(9 / 2**0.5)
    weight = np.exp(best) / (np.exp(best) + 4)
    # four blocks without correlation, whose centres cancel out
    assert torch.allclose(coarse_position(query, support, "intended")[0, :, 0, 0], weight * centre, atol=1e-4)
    weight = np.exp(best) / (np.exp(best) + 63)
    exact = coarse_position(query, support, "exact")[0, :, 0, 0]
    assert torch.allclose(exact, centre * (weight - (1 - weight) / 63), atol=1e-4)
    with pytest.raises(ValueError, match="released, intended, exact"):
        TinyRomaNetwork(position_rule="best")


def test_the_paper_without_local_correlation():
    with torch.device("meta"):
        network = DkmNetwork(local_correlation=False)
    assert network.decoder.conv_refiner["16"].block1[0].in_channels == 2 * 512 + 128
    matcher = small_dkm(local_correlation=False, upsample_size=False, direction="reference_to_query")
    assert len(flows(matcher, picture(0), picture(1))) == 1


@pytest.mark.parametrize(
    ("name", "checkpoint"),
    [("roma", "dinov2_vitl14"), ("roma", "roma_outdoor"), ("dkm", "dkm_outdoor"), ("tiny_roma", "tiny_roma_outdoor")],
)
def test_missing_weights_name_checkpoint_licence_and_command(monkeypatch, tmp_path, name: str, checkpoint: str):
    monkeypatch.setenv("DENSEMATCH_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"{checkpoint} .*licence.*densematch weights fetch {checkpoint}"):
        load_matcher(name, device="cpu")


@pytest.mark.parametrize("preset", ["turbo", "fast", "base", "precise"])
@pytest.mark.parametrize("cls", [RomaMatcher, DkmMatcher])
def test_presets_have_sizes_that_the_network_takes(cls: type[DenseMatcher], preset: str):
    settings = cls.PRESETS[preset]
    multiple = 14 if cls is RomaMatcher else 1
    assert settings.coarse_size[0] % multiple == settings.coarse_size[1] % multiple == 0
    assert (settings.upsample_size is None) == (preset in ("turbo", "fast"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "best"}, "choose one of turbo, fast, base, precise"),
        ({"dtype": "int8"}, r"dkm\.dtype = 'int8': input should be 'float32', 'float16' or 'bfloat16'"),
        ({"direction": "up"}, r"dkm\.direction = 'up': input should be 'both', 'reference_to_query' or"),
        ({"coarse_size": (32, 32)}, r"dkm\.coarse_size = \(32, 32\): sides must be at least 64 pixels"),
        ({"device": "tpu"}, "choose auto, cpu"),
    ],
)
def test_bad_options_are_refused(options, message: str):
    with pytest.raises(ValueError, match=message):
        small_dkm(**options)


def test_a_coarse_size_that_is_no_multiple_of_14_gets_the_nearest_one():
    with pytest.raises(ValueError, match=r"roma\.coarse_size = \(560, 570\): .* multiples of 14: use \(560, 574\)"):
        RomaMatcher(device="cpu", weights="random", coarse_size=(560, 570))


def test_weights_of_another_network_are_refused():
    with pytest.raises(ValueError, match=r"keys .* missing"):
        DkmMatcher(device="cpu", weights={"conv.weight": torch.zeros(1)})
