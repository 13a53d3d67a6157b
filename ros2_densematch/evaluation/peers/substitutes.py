"""Stand-ins for torchvision and kornia while a peer's package is imported, where those two are not installed.

The peers' packages import more than the adapters use: image loading, other detectors. Only what ALIKED, LightGlue
and XFeat
run is provided; the rest raises when it is called. The stand-ins are in `sys.modules` during the import alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from ros2_densematch.evaluation.peers.deformable import deform_conv2d


def _unavailable(name: str) -> Any:
    class Unavailable(nn.Module):
        def __init__(self, *_: Any, **__: Any):
            raise ModuleNotFoundError(f"{name} is not installed and not needed by the adapters", name=name)

    return Unavailable


def _conv(size: int) -> Any:
    def build(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
        return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)

    return build


def _grayscale_to_rgb(image: Tensor) -> Tensor:
    return image.expand(-1, 3, -1, -1)


def _modules() -> dict[str, ModuleType]:
    """The stand-ins by full name, parents first."""
    contents: dict[str, dict[str, Any]] = {}
    if find_spec("torchvision") is None:
        contents |= {
            "torchvision": {},
            "torchvision.ops": {"deform_conv2d": deform_conv2d},
            "torchvision.models": {},
            "torchvision.models.resnet": {"conv1x1": _conv(1), "conv3x3": _conv(3)},
        }
    if find_spec("kornia") is None:
        contents |= {
            "kornia": {},
            "kornia.color": {"grayscale_to_rgb": _grayscale_to_rgb, "rgb_to_grayscale": _unavailable("kornia")},
            "kornia.geometry": {},
            "kornia.feature": {
                name: _unavailable("kornia") for name in ("HardNet", "LAFDescriptor", "laf_from_center_scale_ori")
            },
            "kornia.feature.lightglue": {"LightGlue": _unavailable("kornia")},
            "kornia.feature.disk": {},
            "kornia.feature.disk.disk": {"DISK": _unavailable("kornia")},
        }
    modules = {}
    for name, content in contents.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        module.__path__ = []
        modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent in modules:
            setattr(modules[parent], child, module)
    return modules


@contextmanager
def standing_in() -> Iterator[None]:
    """While the context lasts, torchvision and kornia can be imported; afterwards they are as before."""
    added = {name: module for name, module in _modules().items() if name not in sys.modules}
    sys.modules.update(added)
    try:
        yield
    finally:
        for name in added:
            sys.modules.pop(name, None)
