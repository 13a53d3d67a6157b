"""Graphs that take one image, as those of several matchers do."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from ros2_densematch.arrays import Image
from ros2_densematch.graphs.graph import Graph
from ros2_densematch.matchers.common.working_image import to_tensor


def encoder_graph(
    matcher: str,
    encoder: nn.Module,
    rgb: Image,
    outputs: Mapping[str, str],
    *,
    multiple: int = 0,
    table: tuple[str, ...] = (),
) -> Graph:
    """The graph of an encoder.

    Args:
        matcher: its name.
        encoder: takes a float image (1, 3, H, W), RGB in [0, 1]; in evaluation mode.
        rgb: uint8 (H, W, 3), the working image on which it is checked.
        outputs: name -> what it is.
        multiple: where the sides may be left open, what they must be multiples of.
        table: see `Graph`.
    """
    height, width = rgb.shape[:2]
    resized = "averaged over areas (OpenCV's INTER_AREA) where the camera's image is larger"
    return Graph(
        f"{matcher} encoder",
        encoder,
        {"image": to_tensor(rgb, torch.device("cpu"))},
        outputs,
        {"image": f"RGB, divided by 255, planes (1, 3, H, W), {resized}"},
        multiple,
        table,
        {"working_size": [width, height]},
    )


def network_graph(matcher: str, network: nn.Module, outputs: Mapping[str, str], *, multiple: int) -> Graph:
    """The graph of a network as its matcher calls it, for any size.

    Args:
        matcher: its name.
        network: takes a float image (1, 3, H, W); in evaluation mode.
        outputs: name -> what it is.
        multiple: the sides of the image are multiples of it.
    """
    # compared with PyTorch on blurred noise, which has structure of every size
    noise = torch.rand(1, 3, 12 * multiple, 8 * multiple, generator=torch.Generator().manual_seed(0))
    image = 0.5 * (noise + functional.avg_pool2d(noise, 5, 1, 2))
    return Graph(
        f"{matcher} network", network, {"image": image}, outputs, {"image": "as the matcher makes it"}, multiple
    )
