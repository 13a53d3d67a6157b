"""The peers behind our contract: OpenCV's on rendered views, the deformable convolution against its definition, and
those of optional packages where they are installed."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from ros2_densematch.evaluation.peers.deformable import deform_conv2d
from ros2_densematch.evaluation.peers.registry import CLASSICAL, PEERS, available, load_peer
from ros2_densematch.evaluation.peers.substitutes import standing_in


@pytest.fixture(scope="module")
def shifted() -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """An image, and the same seen 6 pixels further right and 3 further down."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 80), np.uint8)
    large = cv2.cvtColor(cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2RGB)
    return large[10:210, 20:290].copy(), large[7:207, 14:284].copy(), (6, 3)


@pytest.mark.parametrize("name", CLASSICAL)
def test_classical_peers_find_a_shift(name: str, shifted: tuple[np.ndarray, np.ndarray, tuple[int, int]]) -> None:
    first, second, shift = shifted
    peer = load_peer(name)
    m = peer.match(peer.encode(first, reference=True), peer.encode(second), max_matches=None)
    assert len(m) > 50
    away = np.linalg.norm(m.query_xy - m.reference_xy - shift, axis=1)
    assert np.median(away) < 0.5
    assert 0 <= m.score.min() <= m.score.max() <= 1
    few = peer.match(peer.encode(first), peer.encode(second), max_matches=20)
    assert len(few) == 20
    if name != "opencv-dis":  # a flow of two black images is zero everywhere, and consistent
        black = peer.encode(np.zeros_like(first))
        assert len(peer.match(black, black)) == 0


def naive(x: torch.Tensor, offset: torch.Tensor, weight: torch.Tensor, pad: int, mask: torch.Tensor) -> torch.Tensor:
    """The definition, value by value: bilinear reading, 0 outside."""
    _, channels, height, width = x.shape
    kernel = weight.shape[-1]
    out = torch.zeros(1, weight.shape[0], *offset.shape[-2:])

    def read(c: int, v: float, u: float) -> float:
        v0, u0 = int(np.floor(v)), int(np.floor(u))
        total = 0.0
        for i, j in ((v0, u0), (v0, u0 + 1), (v0 + 1, u0), (v0 + 1, u0 + 1)):
            if 0 <= i < height and 0 <= j < width:
                total += float(x[0, c, i, j]) * (1 - abs(v - i)) * (1 - abs(u - j))
        return total

    for row in range(out.shape[2]):
        for column in range(out.shape[3]):
            for k in range(kernel * kernel):
                v = row - pad + k // kernel + float(offset[0, 2 * k, row, column])
                u = column - pad + k % kernel + float(offset[0, 2 * k + 1, row, column])
                for c in range(channels):
                    value = read(c, v, u) * float(mask[0, k, row, column])
                    out[0, :, row, column] += weight[:, c, k // kernel, k % kernel] * value
    return out


def test_deformable_convolution_is_its_definition() -> None:
    g = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 2, 5, 6, generator=g), torch.randn(3, 2, 3, 3, generator=g)
    offset, mask = 2 * torch.randn(1, 18, 5, 6, generator=g), torch.rand(1, 9, 5, 6, generator=g)
    bias = torch.randn(3, generator=g)
    found = deform_conv2d(x, offset, weight, bias, padding=1, mask=mask)
    torch.testing.assert_close(
        found, naive(x, offset, weight, 1, mask) + bias[None, :, None, None], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), ((2, 1), (1, 2))])
def test_without_offsets_it_is_an_ordinary_convolution(stride: int, dilation: int) -> None:
    g = torch.Generator().manual_seed(1)
    x, weight = torch.randn(2, 3, 9, 11, generator=g), torch.randn(4, 3, 3, 3, generator=g)
    plain = functional.conv2d(x, weight, None, stride, 1, dilation)
    offset = torch.zeros(2, 18, *plain.shape[-2:])
    found = deform_conv2d(x, offset, weight, None, stride, 1, dilation)
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-4)


def test_several_offset_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="one offset group"):
        deform_conv2d(torch.zeros(1, 2, 4, 4), torch.zeros(1, 36, 4, 4), torch.zeros(1, 2, 3, 3), padding=1)


def test_stand_ins_leave_no_trace() -> None:
    before = {name for name in sys.modules if name.split(".")[0] in ("torchvision", "kornia")}
    with standing_in():
        import torchvision  # type: ignore[import-not-found, unused-ignore]

        assert torchvision is not None
    assert {name for name in sys.modules if name.split(".")[0] in ("torchvision", "kornia")} <= before


@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if peer.distribution])
def test_a_peer_that_is_not_installed_is_named_with_its_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ros2_densematch.evaluation.peers.registry.util.find_spec", lambda _: None)
    with pytest.raises(ValueError, match="pip install --no-deps"):
        load_peer(name)


@pytest.mark.parametrize("name", ["aliked-lightglue", "xfeat"])
def test_installed_peers_find_a_shift(
    name: str, shifted: tuple[np.ndarray, np.ndarray, tuple[int, int]], tmp_path: Path
) -> None:
    if not available(name):
        pytest.skip(f"{PEERS[name].distribution} is not installed (extra [peers])")
    first, second, shift = shifted
    peer = load_peer(name)
    m = peer.match(peer.encode(first), peer.encode(second))
    assert len(m) > 30
    assert np.median(np.linalg.norm(m.query_xy - m.reference_xy - shift, axis=1)) < 1.0
