"""Damaged or foreign weights files give one clear error, and nothing in them is ever executed."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ros2_densematch.matchers.gcm.matcher import GcmMatcher
from ros2_densematch.weights.catalogue import path_of
from ros2_densematch.weights.loading import load_exactly, read_state


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self._proof = proof

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self._proof),)


@pytest.fixture
def gcm_state() -> dict[str, torch.Tensor]:
    return read_state(path_of("gcm"))


def refused(path: Path, pattern: str, error: type[Exception] = ValueError) -> None:
    with pytest.raises(error, match=pattern) as caught:
        GcmMatcher(device="cpu", weights=str(path))
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 1000


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    whole = path_of("gcm").read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path, "is not a safetensors file .*: give one written by `densematch train`")


def test_a_pickle_under_another_name_is_refused_and_not_executed(tmp_path: Path) -> None:
    proof = tmp_path / "executed"
    path = tmp_path / "evil.safetensors"
    path.write_bytes(pickle.dumps({"weight": Bomb(proof)}))
    refused(path, "is not a safetensors file")
    assert not proof.exists()
    pickle.loads(path.read_bytes())  # the bomb is live: it was the reader that did not touch it
    assert proof.exists()


def test_a_torch_checkpoint_is_refused_and_not_executed(tmp_path: Path) -> None:
    proof = tmp_path / "executed"
    path = tmp_path / "model.pth"
    torch.save({"weight": Bomb(proof)}, path)
    refused(path, "is not a safetensors file")
    assert not proof.exists()


def test_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "readme.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    refused(path, "is not a safetensors file")


def test_a_header_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    refused(path, "is not a safetensors file")


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, gcm_state: dict[str, torch.Tensor]) -> None:
    """They would match nothing, and nobody would know why."""
    path = tmp_path / "nan.safetensors"
    key = next(k for k, v in gcm_state.items() if v.ndim == 4)
    save_file({**gcm_state, key: torch.full_like(gcm_state[key], torch.nan)}, str(path))
    refused(path, f"is damaged: not finite: {key}; copy it again")


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    refused(tmp_path / "none.safetensors", "no weights file .*: give the path", FileNotFoundError)
    refused(tmp_path, "no weights file .*: give the path", FileNotFoundError)


def test_another_network_is_refused_with_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file(nn.Linear(3, 4).state_dict(), str(path))
    refused(path, r"does not fit GcmNetwork: keys \d+ missing \(.*, \.\.\.\); 2 unknown \(bias, weight\)")


def test_a_filter_without_its_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "filter.safetensors"
    save_file({"filter.mean": torch.zeros(14)}, str(path))
    refused(path, r"does not fit GcmNetwork: keys \d+ missing")


def test_a_missing_unknown_or_misshapen_key_is_named(tmp_path: Path, gcm_state: dict[str, torch.Tensor]) -> None:
    key = "smooth4.0.weight"
    path = tmp_path / "changed.safetensors"
    save_file({k: v for k, v in gcm_state.items() if k != key}, str(path))
    refused(path, rf"keys 1 missing \({key}\)$")
    save_file({**gcm_state, "extra": torch.zeros(1)}, str(path))
    refused(path, r"keys 1 unknown \(extra\)$")
    save_file({**gcm_state, key: gcm_state[key][:-1].contiguous()}, str(path))
    refused(path, rf"keys 1 of another shape \({key}\)$")


def test_a_file_without_a_filter_gives_a_matcher_without_that_stage(
    tmp_path: Path, gcm_state: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "descriptor.safetensors"
    save_file({k: v for k, v in gcm_state.items() if not k.startswith("filter.")}, str(path))
    matcher = GcmMatcher(device="cpu", weights=str(path))
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    encoding = matcher.encode(image).data
    candidates = matcher.candidates(encoding, encoding)
    assert len(candidates) > 0
    assert matcher.score(encoding, encoding, candidates) == pytest.approx(candidates.correlation.clip(0, 1))


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    module = nn.Linear(3, 4)
    path = tmp_path / "weights.safetensors"
    save_file(module.state_dict(), str(path))
    other = nn.Linear(3, 4)
    load_exactly(other, read_state(path), path)
    assert torch.equal(other.weight, module.weight)
    assert torch.equal(other.bias, module.bias)
