"""Deformable convolution in plain PyTorch, for ALIKED: torchvision's compiled operator is not asked for.

Dai et al., "Deformable convolutional networks", ICCV 2017, equation 2; Zhu et al., "Deformable ConvNets v2", CVPR 2019,
equation 1, for the mask: y(p) = sum_k w_k m_k(p) x(p + p_k + d_k(p)), with x read bilinearly and 0 outside the image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """Deformable convolution with one offset group and no channel groups; arguments are named as torchvision's.

    Args:
        input: (B, C, H, W).
        offset: (B, 2 K, H', W') with K = kernel height times width: dy, dx of tap 0, dy, dx of tap 1, ... in pixels.
        weight: (O, C, kernel height, kernel width).
        bias: (O,) or None.
        stride, padding, dilation: of the output grid, one number or (y, x).
        mask: (B, K, H', W') factors of the taps, or None for 1.

    Returns:
        (B, O, H', W').

    Raises:
        ValueError: offsets belong to several groups, or channels are grouped.
    """
    batch, channels, height, width = input.shape
    outputs, group_channels, kernel_y, kernel_x = weight.shape
    taps = kernel_y * kernel_x
    rows, columns = offset.shape[-2:]
    if offset.shape[1] != 2 * taps or group_channels != channels:
        raise ValueError(
            f"one offset group and no channel groups are supported, got {offset.shape[1]} offsets for {taps} taps and "
            f"{group_channels} of {channels} channels"
        )
    (stride_y, stride_x), (pad_y, pad_x), (step_y, step_x) = (_pair(v) for v in (stride, padding, dilation))
    like = {"device": input.device, "dtype": input.dtype}
    y = torch.arange(rows, **like)[:, None] * stride_y - pad_y  # type: ignore[call-overload]
    x = torch.arange(columns, **like)[None, :] * stride_x - pad_x  # type: ignore[call-overload]
    shift = offset.reshape(batch, taps, 2, rows, columns)
    result = input.new_zeros(batch, outputs, rows, columns)
    # one tap at a time: memory is that of one sampled image, not of all taps
    for k in range(taps):
        v = y + (k // kernel_x) * step_y + shift[:, k, 0]
        u = x + (k % kernel_x) * step_x + shift[:, k, 1]
        # pixel centres at whole numbers: grid_sample without aligned corners maps -1 and 1 to the outer edges
        grid = torch.stack([(2 * u + 1) / width - 1, (2 * v + 1) / height - 1], -1)
        sampled = functional.grid_sample(input, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        if mask is not None:
            sampled = sampled * mask[:, k : k + 1]
        result = result + torch.einsum("oc,bchw->bohw", weight[:, :, k // kernel_x, k % kernel_x], sampled)
    return result if bias is None else result + bias[None, :, None, None]


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
