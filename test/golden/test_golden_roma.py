"""RoMa against the golden arrays."""

from __future__ import annotations

import numpy as np
import pytest
from dense_trace import DenseTrace, check_refiners, check_scales, kde_rows
from golden_set import Golden

from ros2_densematch.matchers.common.dense.sampling import kernel_density
from ros2_densematch.matchers.roma.matcher import RomaMatcher

# of the README: (channels, rows and columns) per scale
_FEATURES = {1: (8, 8), 2: (16, 4), 4: (32, 2), 8: (64, 2), 16: (64, 1)}
_PROJECTIONS = {1: (3, 8), 2: (16, 4), 4: (64, 2), 8: (64, 2), 16: (32, 1)}
_EMBEDDING_CHANNELS = {16: 24, 8: 16, 4: 6, 2: 3, 1: 1}
_SAMPLED_CHANNELS = {16: 64, 8: 64, 4: 32, 2: 16, 1: 3}


@pytest.fixture(scope="module")
def roma(golden: Golden) -> RomaMatcher:
    expected = golden.open("roma", "forward")
    return RomaMatcher(
        device="cpu",
        weights=expected.state("roma"),
        dinov2_weights=expected.state("dinov2_vitl14"),
        coarse_size=tuple(expected.settings["coarse_res_hw"]),
        upsample_size=tuple(expected.settings["upsample_res_hw"]),
        direction="both" if expected.settings["symmetric"] else "reference_to_query",
    )


def test_the_symmetric_match_with_upsampling(golden: Golden, roma: RomaMatcher):
    expected = golden.open("roma", "forward")
    trace = DenseTrace(roma, roma.network.encoder.cnn)
    transformer = DenseTrace(roma, roma.network.dinov2)
    a = roma.encode(golden.image("A"), reference=True)
    b = roma.encode(golden.image("B"))
    forward, backward = roma.dense(a, b)
    transformer.close()
    trace.close()
    for name, image in zip(("c_in_A", "u_in_A", "c_in_B", "u_in_B"), trace.images, strict=True):
        expected.compare(name, image[0, :, ::4, ::4])
    coarse, fine = trace.both(trace.encoder, 0, 2), trace.both(trace.encoder, 1, 2)
    coarse[16] = np.concatenate(transformer.encoder)
    for s, (channels, step) in _FEATURES.items():
        expected.compare(f"c_feat{s}", coarse[s][:, ::channels, ::step, ::step])
        if s != 16:
            expected.compare(f"u_feat{s}", fine[s][:, ::channels, ::step, ::step])
    for s, (channels, step) in _PROJECTIONS.items():
        calls = 1 if s == 16 else 2
        expected.compare(f"c_proj{s}", trace.concatenated(f"proj{s}", 0, calls)[:, ::channels, ::step, ::step])
        if s != 16:
            expected.compare(f"u_proj{s}", trace.concatenated(f"proj{s}", 1, 2)[:, ::channels, ::step, ::step])
    expected.compare("c_gp_posterior", trace.concatenated("gp16")[:, ::16])
    logits, certainty = trace.both(trace.decoder, 0, 1)
    expected.compare("c_anchor_logits", logits[:, ::64])
    expected.compare("c_gm_certainty", certainty)
    top = logits.softmax(1).topk(2, dim=1).values
    expected.compare("c_anchor_top2prob", top)
    stored = expected.arrays["c_anchor_top2prob"]
    near_tie = (stored[:, 0] - stored[:, 1]) < 1e-4 * stored[:, 0]
    expected.compare_integers("c_anchor_argmax", logits.argmax(1), skip=near_tie)
    before = np.concatenate([o[16].flow_before for o in trace.outputs[::2]])
    expected.compare("c_flow_pre_refine16", before)
    check_refiners(expected, trace, _EMBEDDING_CHANNELS, _SAMPLED_CHANNELS)
    check_scales(expected, trace)
    expected.compare("warp_A_half_B_coords", forward.flow[None])
    expected.compare("warp_B_half_A_coords", backward.flow[None])
    expected.compare("certainty", np.concatenate([forward.certainty, backward.certainty], 1)[None], outliers=0.002)
    rows = kde_rows(forward, backward)
    width = forward.certainty.shape[1]
    corner = kde_rows(forward, backward, step=1, limit=None).reshape(-1, 2 * width, 4)[:3, :3, :2]
    expected.compare("warp_A_half_A_coords_corner", corner[None])
    expected.compare("kde_input", rows)
    expected.compare("kde_density_f32", kernel_density(rows))


@pytest.mark.parametrize("attenuates", [True, False])
def test_one_direction_without_upsampling(golden: Golden, roma: RomaMatcher, monkeypatch, attenuates: bool):
    expected = golden.open("roma", "forward")
    # the same network with other settings
    other = {"upsample_size": None, "direction": "reference_to_query", "attenuate_certainty": attenuates}
    monkeypatch.setattr(roma, "config", roma.config.model_copy(update=other))
    (result,) = roma.dense(roma.encode(golden.image("A")), roma.encode(golden.image("B")))
    expected.compare("nosym_noup_warp_B_coords", result.flow[None])
    name = "nosym_noup_certainty" if attenuates else "nosym_noup_noatt_certainty"
    expected.compare(name, result.certainty[None], outliers=0.002)
