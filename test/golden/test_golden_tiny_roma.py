"""Tiny RoMa against the golden arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_set import Golden

from ros2_densematch.matchers.tiny_roma.matcher import TinyRomaMatcher
from ros2_densematch.matchers.tiny_roma.network import coarse_position, correlate


@pytest.fixture(scope="module")
def tiny(golden: Golden) -> TinyRomaMatcher:
    return TinyRomaMatcher(device="cpu", weights=golden.open("tiny_roma", "forward").state())


def test_every_stage(golden: Golden, tiny: TinyRomaMatcher):
    expected = golden.open("tiny_roma", "forward")
    encodings = []
    for name in ("A", "B"):
        height, width = expected.settings[f"crop_{name}_hw"]
        encodings.append(tiny.encode(np.ascontiguousarray(golden.image(name)[:height, :width])))
    a, b = (encoding.data.features for encoding in encodings)
    if a.size == b.size:
        expected.compare("feat_fine_call1", torch.cat([a.fine, b.fine])[:, ::4, ::2, ::2])
        expected.compare("feat_coarse_call1", torch.cat([a.coarse, b.coarse])[:, ::4])
    else:
        # images of two sizes pass one after the other
        expected.compare("feat_fine_call1", a.fine[:, ::4, ::2, ::2])
        expected.compare("feat_coarse_call1", a.coarse[:, ::4])
        if "feat_fine_call2" in expected.arrays:
            expected.compare("feat_fine_call2", b.fine[:, ::4, ::2, ::2])
            expected.compare("feat_coarse_call2", b.coarse[:, ::4])
    grid = a.coarse.shape[-2:]
    # query cells slow: the stored layout has the support cells first
    volume = correlate(a.coarse[0].flatten(1).T, b.coarse[0].flatten(1).T)
    stored = volume.T.reshape(1, *b.coarse.shape[-2:], *grid)
    expected.compare("corr_volume_slice", stored[:, ::4, ::4, ::4, ::4])
    top = volume.topk(2, dim=1).values
    gap = (top[:, 0] - top[:, 1]).reshape(1, *grid)
    expected.compare("corr_top2_gap", gap)
    near_tie = expected.arrays["corr_top2_gap"] < 1e-4 * top[:, 0].reshape(1, *grid).abs().numpy()
    expected.compare_integers("corr_argmax_index", volume.argmax(1).reshape(1, *grid), skip=near_tie)
    outputs = tiny.network.match(a, b)
    expected.compare("coarse_warp_init", outputs[8].flow_before)
    expected.compare("coarse_warp_init_exact_softmax", coarse_position(a.coarse, b.coarse, "exact"))
    expected.compare("coarse_delta", outputs[8].delta)
    expected.compare("fine_delta", outputs[4].delta)
    for s in (8, 4):
        expected.compare(f"flow{s}", outputs[s].flow)
        expected.compare(f"cert_logit{s}", outputs[s].certainty)
    (result,) = tiny.dense(*encodings)
    expected.compare("warp_B_coords", result.flow[None])
    expected.compare("certainty", result.certainty[None])
