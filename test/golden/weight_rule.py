"""Test weights from nothing but key names and shapes: the rule of the golden folder's README."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# rows of a key table: [key, shape, dtype]
KeyTable = list[list]


def draw(key: str, shape: tuple[int, ...], prefix: str = "") -> NDArray[np.float64]:
    """The standard normal numbers of a key."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32((prefix + key).encode())))
    return np.asarray(generator.standard_normal(size=shape))


def fill(key: str, shape: tuple[int, ...], dtype: str, prefix: str = "") -> Tensor:
    """The test value of one entry of a state dictionary."""
    if "int" in dtype:
        return torch.zeros(shape, dtype=getattr(torch, dtype))
    return torch.from_numpy(np.asarray(unrounded(key, shape, prefix), np.float32))


def unrounded(key: str, shape: tuple[int, ...], prefix: str = "") -> NDArray[np.float64]:
    """The same before it is rounded to float32, for a floating-point entry."""
    x = draw(key, shape, prefix)
    last = key.rsplit(".", 1)[-1]
    if last == "running_var":
        value = 0.8 + 0.2 * np.abs(x)
    elif last in ("running_mean", "bias"):
        value = 0.05 * x
    elif last == "gamma":
        value = 0.1 + 0.02 * x
    elif last in ("cls_token", "pos_embed", "mask_token"):
        value = 0.2 * x
    elif len(shape) <= 1:
        value = 0.5 + 0.05 * x if key.endswith("bn3.weight") else 1 + 0.1 * x
    elif len(shape) == 6:
        f = np.prod(shape) / shape[1]
        value = x / np.sqrt(f) + 1.5 / f
    else:
        gain = 2.0 if len(shape) >= 4 and shape[-1] > 1 else 1.0
        value = x * np.sqrt(gain / np.prod(shape[1:]))
        if key.endswith("out_conv.weight"):
            value = value * 0.3
    return value


def fill_table(table: KeyTable, prefix: str = "") -> dict[str, Tensor]:
    """The test state dictionary of a key table."""
    return {key: fill(key, tuple(shape), dtype, prefix) for key, shape, dtype in table}


def check_weights(state: dict[str, Tensor], expected: list[dict]) -> None:
    """Compares filled tensors with the `weight_check` entries of a JSON file."""
    for entry in expected:
        got = state[entry["key"]].double().numpy()
        np.testing.assert_allclose(got.ravel()[:3], entry["first3"][: got.size], rtol=1e-6, err_msg=entry["key"])
        np.testing.assert_allclose(got.sum(), entry["sum"], rtol=1e-5, atol=1e-5, err_msg=entry["key"])
        np.testing.assert_allclose((got**2).sum(), entry["sumsq"], rtol=1e-5, err_msg=entry["key"])
