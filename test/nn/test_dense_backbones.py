"""ResNet, VGG, DINOv2, XFeat and the folding of batch norms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ros2_densematch.nn.batch_norm import fold_batch_norms
from ros2_densematch.nn.dinov2 import Dinov2
from ros2_densematch.nn.match_decoder import anchors_to_coordinates
from ros2_densematch.nn.refiner import Refiner, RefinerSpec
from ros2_densematch.nn.resnet import ResNet
from ros2_densematch.nn.vgg import VggPyramid, vgg_layers
from ros2_densematch.nn.xfeat import XFeatBackbone


def with_statistics(module: nn.Module) -> nn.Module:
    """Batch norms that do something."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, 0, 0.1)
    return module.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("build", "norms"),
    [
        (lambda: ResNet(18), 20),
        (lambda: ResNet(50, stages=2), 1 + 3 * 3 + 1 + 4 * 3 + 1),
        (lambda: VggPyramid(19, count=14), 4),
        (XFeatBackbone, 4 + 2 + 3 + 3 + 4 + 2),
    ],
    ids=["resnet18", "resnet50", "vgg19", "xfeat"],
)
def test_folding_takes_all_batch_norms_and_keeps_the_output(build, norms: int):
    network = with_statistics(build())
    image = torch.rand(2, 3, 64, 96)
    before = network(image)
    assert fold_batch_norms(network) == norms
    after = network(image)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    before, after = (list(x.values()) if isinstance(x, dict) else x for x in (before, after))
    for x, y in zip(before, after, strict=True):
        assert torch.allclose(x, y, atol=1e-4 * float(x.abs().max()))


def test_folding_a_refiner_keeps_its_output():
    refiner = with_statistics(Refiner(RefinerSpec(8, 4, 2), certainty_first=False))
    query, support, flow = torch.randn(1, 8, 12, 16), torch.randn(1, 8, 12, 16), torch.rand(1, 2, 12, 16) - 0.5
    before = refiner(query, support, flow)
    assert fold_batch_norms(refiner) == 9
    for x, y in zip(before, refiner(query, support, flow), strict=True):
        assert torch.allclose(x, y, atol=1e-5)


def test_resnet_rounds_sides_up_and_runs_only_the_stages_that_are_wanted():
    network = ResNet(18).eval()
    sizes = {s: tuple(f.shape[1:]) for s, f in network(torch.zeros(1, 3, 61, 90)).items()}
    assert sizes == {2: (64, 31, 45), 4: (64, 16, 23), 8: (128, 8, 12), 16: (256, 4, 6), 32: (512, 2, 3)}
    network.layer3.register_forward_hook(lambda *_: pytest.fail("layer3 ran"))
    assert list(network(torch.zeros(1, 3, 64, 64), deepest=8)) == [2, 4, 8]


def test_networks_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="depth 20"):
        ResNet(20)
    with pytest.raises(ValueError, match="depth 13"):
        vgg_layers(13, batch_norm=True)
    with pytest.raises(ValueError, match="53 modules, asked for 99"):
        vgg_layers(19, batch_norm=True, count=99)


def test_vgg_gives_what_enters_each_pooling_and_rounds_sides_down():
    network = VggPyramid(16, batch_norm=False).eval()
    assert len(network.layers) == 31
    sizes = {s: tuple(f.shape[1:]) for s, f in network(torch.zeros(1, 3, 70, 90)).items()}
    assert sizes == {1: (64, 70, 90), 2: (128, 35, 45), 4: (256, 17, 22), 8: (512, 8, 11), 16: (512, 4, 5)}


def test_dinov2_interpolates_its_positions_unless_the_grid_is_the_trained_one():
    torch.manual_seed(0)
    network = Dinov2(width=32, depth=1, heads=2, trained_grid=5).eval().requires_grad_(False)
    nn.init.normal_(network.pos_embed)
    assert torch.equal(network._position(5, 5), network.pos_embed[:, 1:])
    assert network._position(4, 7).shape == (1, 28, 32)
    assert network(torch.rand(2, 3, 56, 98)).shape == (2, 32, 4, 7)
    with pytest.raises(ValueError, match="multiples of 14"):
        network(torch.rand(1, 3, 56, 100))


def test_xfeat_refuses_sides_that_are_no_multiples_of_32():
    with pytest.raises(ValueError, match=r"multiples of 32, got \(64, 80\)"):
        XFeatBackbone()(torch.zeros(1, 3, 64, 80))


def anchor_logits(*peaks: tuple[int, float]) -> torch.Tensor:
    logits = torch.full((1, 4096, 1, 1), -30.0)
    for index, value in peaks:
        logits[0, index] = value
    return logits


def test_the_mode_is_refined_over_its_neighbours():
    x, y = anchors_to_coordinates(anchor_logits((64 * 10 + 20, 0.0)))[0, :, 0, 0]
    assert (float(x), float(y)) == pytest.approx((-1 + 41 / 64, -1 + 21 / 64), abs=1e-6)
    # two equal neighbours: half way between them; an anchor farther off does not count
    both = anchor_logits((64 * 10 + 20, 0.0), (64 * 11 + 20, -1e-4), (64 * 40 + 50, -1e-3))
    x, y = anchors_to_coordinates(both)[0, :, 0, 0]
    assert (float(x), float(y)) == pytest.approx((-1 + 41 / 64, -1 + 22 / 64), abs=1e-4)


def test_the_neighbourhood_wraps_across_rows_as_in_the_released_code():
    # the mode at the left border and the last anchor of the row before it
    x, _ = anchors_to_coordinates(anchor_logits((64 * 10, 0.0), (64 * 10 - 1, -1e-4)))[0, :, 0, 0]
    assert float(x) == pytest.approx(0.0, abs=1e-3)
