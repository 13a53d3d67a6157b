"""The weight rule of the RoMa v2 set: the general one, and the exceptions of its sheet, section 10."""

from __future__ import annotations

import numpy as np
import torch
from golden_set import GoldenSet
from torch import Tensor
from weight_rule import check_weights, draw, fill, unrounded


def roma_v2_state(expected: GoldenSet) -> dict[str, Tensor]:
    """The state dictionary of the set, verified."""
    head_bias = expected.settings["head_bias"]
    state = {
        key: _value(key, tuple(shape), dtype, expected.prefix, head_bias) for key, shape, dtype in expected.table()
    }
    check_weights(state, expected.settings["weight_check"] + expected.settings["weight_check_extra"])
    return state


def _value(key: str, shape: tuple[int, ...], dtype: str, prefix: str, head_bias: list[float]) -> Tensor:
    if key.endswith("bias_mask"):
        mask = np.ones(shape)
        mask[shape[0] // 3 : 2 * shape[0] // 3] = 0
        return _float32(mask)
    if key.endswith("rope_embed.periods"):
        periods = torch.from_numpy(100.0 ** (np.arange(shape[0]) / shape[0])).float()
        return periods.bfloat16().float() if key.startswith("matcher.") else periods
    if key == "matcher.scale":
        return torch.ones(shape, dtype=torch.int64)
    if key == "matcher.temp":
        return torch.full(shape, 0.1)
    if key == "matcher.omega":
        return _float32(2 * np.pi * draw(key, shape, prefix))
    if key == "matcher.head.scratch.output_conv2.2.bias":
        return torch.tensor(head_bias)
    if "int" in dtype:
        return fill(key, shape, dtype, prefix)
    return _float32(unrounded(key, shape, prefix) * _factor(key))


def _factor(key: str) -> float:
    if key.startswith("matcher.mv_vit.blocks.") and key.endswith(("attn.proj.weight", "mlp.fc2.weight")):
        return 0.3
    if key.startswith("matcher.head.scratch.refinenet") and key.endswith("out_conv.weight"):
        return 1 / 0.3  # takes the general rule's factor back
    if key.startswith("refiners.") and key.endswith(".proj.weight"):
        return 0.3
    return 0.15 if key == "matcher.head.scratch.output_conv2.2.weight" else 1.0


def _float32(value: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(value, np.float32))
