"""The choice of a device, and the layout of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ros2_densematch.nn.device import choose_device, to_channels_last


@pytest.mark.parametrize(("usable", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_takes_the_gpu_where_it_is_usable(monkeypatch: pytest.MonkeyPatch, usable: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: usable)
    assert choose_device("auto").type == expected


def test_a_named_device_is_taken_at_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("cuda") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize("name", ["tpu", "", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cpu:0 "])
def test_an_unknown_device_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=f"unknown device '{name}': choose auto, cpu, cuda or cuda:N"):
        choose_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_a_gpu_that_is_not_there_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"'{name}' was asked for, but .* no usable GPU: use cpu or auto"):
        choose_device(name)


def test_channels_last_changes_the_layout_and_nothing_else() -> None:
    module = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 2, 1), nn.Linear(3, 3))
    before = {k: v.clone() for k, v in module.state_dict().items()}
    assert to_channels_last(module) is module
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
