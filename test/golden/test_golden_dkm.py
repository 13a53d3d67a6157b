"""DKM v3 against the golden arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dense_trace import DenseTrace, check_refiners, check_scales, kde_rows
from golden_set import Golden

from ros2_densematch.matchers.common.dense.sampling import kernel_density
from ros2_densematch.matchers.dkm.matcher import DkmMatcher

# of the README: (channels, rows and columns) per scale
_FEATURES = {2: (8, 4), 4: (32, 2), 8: (64, 1), 16: (64, 1), 32: (128, 1)}
_EMBEDDING_CHANNELS = {16: 24, 8: 16, 4: 6, 2: 3, 1: 1}
_SAMPLED_CHANNELS = {16: 64, 8: 64, 4: 32, 2: 16, 1: 1}


@pytest.fixture(scope="module")
def dkm(golden: Golden) -> DkmMatcher:
    expected = golden.open("dkm_v3", "forward")
    return DkmMatcher(
        device="cpu",
        weights=expected.state(),
        coarse_size=tuple(expected.settings["coarse_res_hw"]),
        upsample_size=tuple(expected.settings["upsample_res_hw"]),
        direction="both" if expected.settings["symmetric"] else "reference_to_query",
    )


def test_the_symmetric_match_with_upsampling(golden: Golden, dkm: DkmMatcher):
    expected = golden.open("dkm_v3", "forward")
    trace = DenseTrace(dkm, dkm.network.encoder.net)
    a = dkm.encode(golden.image("A"), reference=True)
    b = dkm.encode(golden.image("B"))
    forward, backward = dkm.dense(a, b)
    trace.close()
    for name, image in zip(("c_in_A", "u_in_A", "c_in_B", "u_in_B"), trace.images, strict=True):
        expected.compare(name, image[0, :, ::4, ::4])
    # coarse and upsampling pyramids of A, then of B
    coarse, fine = trace.both(trace.encoder, 0, 2), trace.both(trace.encoder, 1, 2)
    for s, (channels, step) in _FEATURES.items():
        expected.compare(f"c_feat{s}", coarse[s][:, ::channels, ::step, ::step])
    for s in (2, 4, 8):
        channels, step = _FEATURES[s]
        expected.compare(f"u_feat{s}", fine[s][:, ::channels, ::step, ::step])
    for s in (16, 32):
        expected.compare(f"c_proj{s}", trace.concatenated(f"proj{s}")[:, ::32])
        expected.compare(f"c_gp_posterior{s}", trace.concatenated(f"gp{s}")[:, ::8])
    for i, s in enumerate((32, 16)):
        coordinates, certainty, context = trace.both(trace.decoder, i, 2)
        expected.compare(f"c_dfn_coord{s}", coordinates)
        expected.compare(f"c_dfn_certainty{s}", certainty)
        expected.compare(f"c_dfn_context{s}", context[:, ::16])
    check_refiners(expected, trace, _EMBEDDING_CHANNELS, _SAMPLED_CHANNELS)
    check_scales(expected, trace)
    # what training supervises at the coarsest scale
    expected.compare("c_flow32", torch.cat([o[32].flow for o in trace.coarse]))
    expected.compare("c_cert32", torch.cat([o[32].certainty for o in trace.coarse]))
    expected.compare("warp_A_half_B_coords", forward.flow)
    expected.compare("warp_B_half_A_coords", backward.flow)
    certainty = np.concatenate([forward.certainty, backward.certainty], 1)
    expected.compare("certainty", certainty, outliers=0.002)
    expected.compare("kde_input", kde_rows(forward, backward))
    expected.compare("kde_density_f32", kernel_density(kde_rows(forward, backward)))


def test_the_deepest_stages_match_too_where_the_upsampling_pass_leaves_them_out(golden: Golden, dkm: DkmMatcher):
    expected = golden.open("dkm_v3", "forward")
    size = expected.settings["upsample_res_hw"]
    levels = [dkm.network.encoder.net(dkm._prepared(golden.image(name), tuple(size))) for name in ("A", "B")]
    for s in (16, 32):
        both = np.concatenate([level[s].numpy() for level in levels])
        expected.compare(f"u_feat{s}", both[:, :: _FEATURES[s][0]])


def test_one_direction_without_upsampling(golden: Golden, dkm: DkmMatcher, monkeypatch):
    expected = golden.open("dkm_v3", "forward")
    # the same network with other settings
    other = {"upsample_size": None, "direction": "reference_to_query"}
    monkeypatch.setattr(dkm, "config", dkm.config.model_copy(update=other))
    (result,) = dkm.dense(dkm.encode(golden.image("A")), dkm.encode(golden.image("B")))
    expected.compare("nosym_noup_warp_B_coords", result.flow)
    # its float64 gap comes from flips at the image's edge: a fixed tolerance instead
    expected.compare("nosym_noup_certainty", result.certainty[None], tolerance=1e-3, outliers=0.002)
