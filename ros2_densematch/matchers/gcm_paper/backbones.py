"""Backbones of `gcm_paper`: anything that turns an image into maps can drive it.

The protocol is one function: a float image (1, 3, H, W), ImageNet-normalised, with sides that are multiples of 16, goes
in; a mapping from stride to map (1, C, H / stride, W / stride) comes out. Strides 16, 8, 4 and 2 are used, and 0 may
hold one more map of stride 16 for the first homography. Stride 16 is required; the others are filled with the patch
descriptor, averaged over the cells, where they are absent (Swin has no stride 2, a ViT only one).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from ros2_densematch.matchers.gcm_paper.adapters import STRIDES, FeatureFunction, timm_backbone, torchvision_backbone
from ros2_densematch.matchers.network import Weights, load_network
from ros2_densematch.nn.resnet import ResNet
from ros2_densematch.nn.vgg_maps import VggMaps

# stride -> module of VGG-19; 0 is the map for the first homography
VGG_TAPS = {2: 7, 4: 12, 8: 21, 16: 30, 0: 32}
BUILT_IN = (
    "vgg19",
    "resnet18",
    "resnet50",
    "resnet101",
    "mobilenet_v3",
    "efficientnet_v2",
    "efficientnet_lite0",
    "dinov2",
    "average",
)


def build_backbone(backbone: str | FeatureFunction, weights: str | None) -> FeatureFunction:
    """The feature function of a name, or the given function itself.

    Args:
        backbone: one of `BUILT_IN`, "timm:NAME", "torchvision:NAME", or a function of the protocol (a module too).
        weights: None for the published ones, "random", or a file of them.

    Raises:
        ValueError: unknown name.
        FileNotFoundError: the weights were not fetched; the message names licence and command.
        ModuleNotFoundError: timm or torchvision is not installed.
    """
    if not isinstance(backbone, str):
        return backbone
    if backbone.startswith("timm:"):
        return timm_backbone(backbone.removeprefix("timm:"), pretrained=weights is None)
    if backbone.startswith("torchvision:"):
        return torchvision_backbone(backbone.removeprefix("torchvision:"), pretrained=weights is None)
    if backbone not in BUILT_IN:
        raise ValueError(
            f"unknown backbone {backbone!r}: choose one of {', '.join(BUILT_IN)}, timm:NAME, torchvision:NAME, "
            "or give a function"
        )
    if backbone == "average":
        return no_maps
    return _built_in(backbone, weights)


def official_backbone(backbone: str | FeatureFunction) -> list[str]:
    """The official checkpoint of a backbone, where the catalogue has one."""
    fetched = isinstance(backbone, str) and backbone in BUILT_IN and backbone not in ("efficientnet_lite0", "average")
    return [_checkpoint(str(backbone))] if fetched else []


def no_maps(image: Tensor) -> dict[int, Tensor]:
    """The paper's control: no network at all; every map is the patch descriptor, averaged over the cells."""
    return {}


def complete(maps: Mapping[int, Tensor], descriptor: Tensor, image: Tensor) -> dict[int, Tensor]:
    """Checks what a feature function gave and fills strides that it lacks with the averaged patch descriptor.

    Args:
        maps: what it gave.
        descriptor: (1, C, H, W).
        image: (1, 3, H, W).

    Raises:
        ValueError: a map has a size that does not fit its stride; the message names both.
    """
    height, width = image.shape[-2:]
    result = dict(maps)
    for stride, drawn in result.items():
        coarse = stride or 16
        wanted = (height // coarse, width // coarse)
        if drawn.ndim != 4 or tuple(drawn.shape[-2:]) != wanted:
            raise ValueError(
                f"the backbone's map of stride {stride} must be (1, C, {wanted[0]}, {wanted[1]}) for an image of "
                f"{width} x {height}, got {tuple(drawn.shape)}: resize it with interpolate, or name its true stride"
            )
    for stride in STRIDES:
        if stride not in result:
            result[stride] = functional.avg_pool2d(descriptor, stride)
    return result


def _built_in(name: str, weights: str | None) -> FeatureFunction:
    chosen: Weights = weights
    if name == "efficientnet_lite0" and weights is None:
        from ros2_densematch.weights.packages import efficientnet_lite0_state

        # deeper blocks and the classifier are left out
        wanted = _new(name).state_dict()
        chosen = {key: value for key, value in efficientnet_lite0_state().items() if key in wanted}
    module = load_network(lambda _: _new(name), _checkpoint(name), chosen)
    module.eval().requires_grad_(False)
    if name == "dinov2":
        return DinoMaps(module)
    if name.startswith("resnet"):
        return _ResNetMaps(module)
    return module


def _new(name: str) -> nn.Module:
    if name == "vgg19":
        return VggMaps(VGG_TAPS)
    if name.startswith("resnet"):
        return ResNet(int(name.removeprefix("resnet")), stages=3)
    if name == "mobilenet_v3":
        from ros2_densematch.nn.mobilenet_v3 import MobileNetV3

        return MobileNetV3()
    if name == "efficientnet_v2":
        from ros2_densematch.nn.efficientnet_v2 import EfficientNetV2

        return EfficientNetV2()
    if name == "efficientnet_lite0":
        from ros2_densematch.nn.efficientnet_lite import EfficientNetLite0

        return EfficientNetLite0()
    from ros2_densematch.nn.dinov2 import Dinov2

    return Dinov2()


def _checkpoint(name: str) -> str:
    return "dinov2_vitl14" if name == "dinov2" else name


class _ResNetMaps(nn.Module):
    def __init__(self, resnet: nn.Module) -> None:
        super().__init__()
        self.resnet = resnet

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        maps: dict[int, Tensor] = self.resnet(image, deepest=16)
        return maps


class DinoMaps(nn.Module):
    """DINOv2's patches are 14 pixels wide: the image is reduced so that each patch is a cell of 16."""

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        rows, columns = (side // 16 for side in image.shape[-2:])
        resized = functional.interpolate(image, (14 * rows, 14 * columns), mode="bicubic", align_corners=False)
        return {16: self.vit(resized)}
