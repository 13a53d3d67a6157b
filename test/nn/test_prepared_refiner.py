"""The refiner for inference against the published one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ros2_densematch.nn import prepared_refiner as module
from ros2_densematch.nn.batch_norm import fold_batch_norms
from ros2_densematch.nn.prepared_refiner import PreparedRefiner
from ros2_densematch.nn.refiner import Refiner, RefinerSpec

SPECS = [
    RefinerSpec(8, 4, 2),
    RefinerSpec(8, 4, None),
    # as DKM at 1: two outputs per input of the first depthwise convolution
    RefinerSpec(3, 6, None, hidden=24),
]


def published(spec: RefinerSpec, *, certainty_first: bool) -> Refiner:
    torch.manual_seed(0)
    refiner = Refiner(spec, certainty_first=certainty_first, displacement_gain=1.25)
    for part in refiner.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, 0, 0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
            nn.init.normal_(part.weight, 1, 0.2)
            nn.init.normal_(part.bias, 0, 0.2)
    return refiner.eval().requires_grad_(False)


def prepared(refiner: Refiner) -> PreparedRefiner:
    fold_batch_norms(refiner)
    return PreparedRefiner(refiner)


def maps(spec: RefinerSpec, batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    query, support = (torch.randn(batch, spec.channels, 13, 17, generator=generator) for _ in range(2))
    return query, support, 2 * torch.rand(batch, 2, 13, 17, generator=generator) - 1


@pytest.mark.parametrize("certainty_first", [True, False])
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("cells", [1, 40, 10**6], ids=["one row", "three rows", "whole map"])
def test_gives_what_the_published_refiner_gives(monkeypatch, spec: RefinerSpec, certainty_first: bool, cells: int):
    monkeypatch.setattr(module, "_STRIP_CELLS", cells)
    monkeypatch.setattr(module, "_STRIP_ELEMENTS", 1)
    refiner = published(spec, certainty_first=certainty_first)
    query, support, flow = maps(spec, 2)
    expected = refiner(query, support, flow, 0.7)
    fast = prepared(refiner)
    for share in (None, fast.share(query)):
        for got, wanted in zip(fast(query, support, flow, 0.7, share), expected, strict=True):
            assert got.shape == wanted.shape
            assert torch.allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize("spec", SPECS)
def test_the_modules_that_run_on_a_gpu_give_the_same(monkeypatch, spec: RefinerSpec):
    fast = prepared(published(spec, certainty_first=True))
    query, support, flow = maps(spec, 2)
    in_strips = fast(query, support, flow)
    monkeypatch.setattr(module, "_strip_devices", ())
    share = fast.share(query)
    for given in (None, share):
        for got, wanted in zip(fast(query, support, flow, 1.0, given), in_strips, strict=True):
            assert torch.allclose(got, wanted, atol=1e-5)


def test_the_share_depends_on_the_query_alone_and_is_left_as_it_is():
    spec = SPECS[0]
    fast = prepared(published(spec, certainty_first=True))
    query, support, flow = maps(spec, 1)
    share = fast.share(query)
    before = share.clone()
    for other, at in ((support, flow), (support.flip(3), flow.flip(2))):
        got = fast(query, other, at, 1.0, share)
        assert all(torch.equal(x, y) for x, y in zip(got, fast(query, other, at), strict=True))
    assert torch.equal(share, before)


def test_bfloat16_gives_nearly_the_same():
    spec = SPECS[0]
    fast = prepared(published(spec, certainty_first=True))
    query, support, flow = maps(spec, 1)
    wanted = fast(query, support, flow)
    out_conv = fast.out_conv
    fast.to(torch.bfloat16)
    fast.out_conv = out_conv.float()
    for got, exact in zip(fast(query.bfloat16(), support.bfloat16(), flow), wanted, strict=True):
        assert got.dtype == torch.float32
        assert torch.allclose(got, exact, atol=0.05)


def test_batch_norms_must_be_folded_before():
    with pytest.raises(ValueError, match="call fold_batch_norms first"):
        PreparedRefiner(Refiner(SPECS[0], certainty_first=True))
