"""Networks of other libraries as backbones: any module by the names of its layers, timm, torchvision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

FeatureFunction: TypeAlias = Callable[[Tensor], Mapping[int, Tensor]]

STRIDES = (16, 8, 4, 2)


class LayerMaps(nn.Module):
    """Maps of named layers of any module: the adapter for networks that were not written for this.

    A layer may give (B, C, H, W) or, as Swin does, (B, H, W, C). A map whose size does not fit its stride is resized,
    so that networks whose deep layers are dilated (FCN, DeepLabV3) or round their sizes (PSMNet) fit as well.
    """

    def __init__(self, module: nn.Module, layers: Mapping[int, str]) -> None:
        """
        Args:
            module: takes an image (1, 3, H, W); what it returns is not used.
            layers: stride -> dotted name of the layer.

        Raises:
            ValueError: no such layer, or a stride that is not used.
        """
        super().__init__()
        self.module = module
        self._layers = dict(layers)
        named = dict(module.named_modules())
        unknown = [name for name in layers.values() if name not in named]
        if unknown:
            raise ValueError(f"{type(module).__name__} has no layer {', '.join(unknown)}: see named_modules()")
        if not set(layers) <= {0, *STRIDES}:
            raise ValueError(f"strides must be 16, 8, 4, 2 or 0 (first homography), got {sorted(layers)}")

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """The protocol's function."""
        kept: dict[int, Tensor] = {}

        def keep(stride: int) -> Callable[[nn.Module, Any, Tensor], None]:
            # a copy: a layer after it may work in place
            return lambda _module, _inputs, out: kept.update({stride: out.clone()})

        named = dict(self.module.named_modules())
        handles = [named[name].register_forward_hook(keep(stride)) for stride, name in self._layers.items()]
        try:
            self.module(image)
        finally:
            for handle in handles:
                handle.remove()
        return {stride: fitted(drawn, image, stride or 16) for stride, drawn in kept.items()}


def fitted(drawn: Tensor, image: Tensor, stride: int) -> Tensor:
    """A map as (B, C, H / stride, W / stride), whether channels came first or last, resized where it must be."""
    size = (image.shape[-2] // stride, image.shape[-1] // stride)
    if tuple(drawn.shape[1:3]) == size and tuple(drawn.shape[2:]) != size:
        drawn = drawn.permute(0, 3, 1, 2)
    if tuple(drawn.shape[2:]) == size:
        return drawn
    if drawn.shape[2] > size[0] and drawn.shape[3] > size[1]:
        return functional.adaptive_avg_pool2d(drawn, size)
    return functional.interpolate(drawn, size, mode="bilinear", align_corners=False)


def timm_backbone(name: str, *, pretrained: bool) -> FeatureFunction:
    """A timm model's feature maps at the strides that it has of 2, 4, 8 and 16.

    Raises:
        ModuleNotFoundError: timm does not import here.
        ValueError: timm has no such model, or none of its maps has stride 16.
    """
    timm: Any = import_module("timm")

    try:
        try:
            # transformers that otherwise take one image size only
            model = timm.create_model(name, features_only=True, pretrained=pretrained, strict_img_size=False)
        except TypeError:
            model = timm.create_model(name, features_only=True, pretrained=pretrained)
    except RuntimeError as error:
        raise ValueError(f"timm builds no feature extractor {name!r}: {error}") from error
    extractor: nn.Module = model.eval().requires_grad_(False)
    reductions = [int(reduction) for reduction in model.feature_info.reduction()]
    if 16 not in reductions:
        raise ValueError(f"timm's {name} has maps at strides {reductions}, none at 16: choose another")
    return _Extractor(extractor, reductions)


class _Extractor(nn.Module):
    def __init__(self, extractor: nn.Module, reductions: list[int]) -> None:
        super().__init__()
        self.extractor, self._reductions = extractor, reductions

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        drawn = zip(self._reductions, self.extractor(image), strict=True)
        # of several maps of one stride the last is the deepest
        return {stride: fitted(x, image, stride) for stride, x in drawn if stride in STRIDES}


def torchvision_backbone(name: str, *, pretrained: bool) -> FeatureFunction:
    """A torchvision classifier, or the trunk of a segmentation network, as `LayerMaps` of its deepest layers.

    Raises:
        ModuleNotFoundError: torchvision does not import here.
        ValueError: torchvision has no such model, or no layer of it has stride 16 or 8.
    """
    models: Any = import_module("torchvision.models")

    options: dict[str, Any] = {"weights": "DEFAULT" if pretrained else None}
    if name in models.list_models(module=models.segmentation):
        options["weights_backbone"] = None
    try:
        model: nn.Module = models.get_model(name, **options)
    except (ValueError, KeyError) as error:
        raise ValueError(f"torchvision has no model {name!r}: {error}") from error
    trunk = getattr(model, "backbone", model)
    return deepest_layers(trunk.eval().requires_grad_(False))


def deepest_layers(module: nn.Module, side: int = 64) -> LayerMaps:
    """The last layer of every stride of a module, found with a trial image.

    Layers are children at most two levels down that run once and give one map. A dilated network, which never reaches
    stride 16, lends its deepest map of stride 8 to it.

    Raises:
        ValueError: there is no layer of stride 16 or 8.
    """
    wanted = {side // stride: stride for stride in STRIDES}
    seen: list[tuple[int, str]] = []

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, out: Any) -> None:
            if not isinstance(out, Tensor) or out.ndim != 4:
                return
            first, second, third = out.shape[1:]
            for side_of_map in {second if second == third else 0, first if first == second else 0}:
                if side_of_map in wanted:
                    seen.append((wanted[side_of_map], name))

        return hook

    members = [(name, member) for name, member in module.named_modules() if name and name.count(".") < 2]
    handles = [member.register_forward_hook(note(name)) for name, member in members]
    try:
        with torch.inference_mode():
            module(torch.zeros(1, 3, side, side))
    finally:
        for handle in handles:
            handle.remove()
    names = [name for _, name in seen]
    layers = {stride: name for stride, name in seen if names.count(name) == 1}
    if 16 not in layers and 8 in layers:
        layers[16] = layers[8]
    if 16 not in layers:
        raise ValueError(f"{type(module).__name__} has no layer of stride 16 that gives a map: use LayerMaps by name")
    return LayerMaps(module, layers)
