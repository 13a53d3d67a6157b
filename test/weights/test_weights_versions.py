"""Weights whose version decides how they are used: it is read or asked for, never guessed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ros2_densematch.weights import mapped, store, versions
from ros2_densematch.weights.catalogue import digest
from ros2_densematch.weights.key_tables import key_table
from ros2_densematch.weights.official import OFFICIAL, official

TABLE = "dstl_r2d2"


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    table = key_table(TABLE).items()
    return {k: torch.ones(e.shape) if e.floating else torch.zeros(e.shape, dtype=torch.int64) for k, e in table}


@pytest.fixture(autouse=True)
def small_catalogue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The two versions, with a small key table and nothing pinned."""
    monkeypatch.setenv("DENSEMATCH_WEIGHTS", str(tmp_path / "store"))
    for name in ("roma_v2_2.0.0", "roma_v2_2.0.1"):
        monkeypatch.setitem(OFFICIAL, name, replace(official(name), key_tables=(TABLE,), sha256=""))


def written(path: Path, state: dict[str, torch.Tensor], **metadata: str) -> Path:
    save_file(state, str(path), metadata)
    return path


def test_an_unknown_version_is_asked_for(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(state, tmp_path / "a.pt")
    for file in (tmp_path / "a.pt", written(tmp_path / "a.safetensors", state)):
        with pytest.raises(
            ValueError, match=r"does not state the version.*: give --version 2\.0\.1 or --version 2\.0\.0"
        ):
            store.import_checkpoint(file, "roma_v2")
    with pytest.raises(ValueError, match=r"unknown version '3' of roma_v2 for .*a\.pt"):
        store.import_checkpoint(tmp_path / "a.pt", "roma_v2", version="3")
    with pytest.raises(ValueError, match=r"dkm_outdoor has no versions: omit --version"):
        store.import_checkpoint(tmp_path / "a.pt", "dkm_outdoor", version="2.0.1")


@pytest.mark.parametrize("version", ["2.0.0", "2.0.1"])
def test_the_version_stands_in_the_stored_file(tmp_path: Path, state: dict[str, torch.Tensor], version: str) -> None:
    torch.save(state, tmp_path / "a.pt")
    stored = store.import_checkpoint(tmp_path / "a.pt", "roma_v2", version=version)
    assert stored == store.stored_file(f"roma_v2_{version}")
    with safe_open(str(stored), framework="np") as file:
        assert file.metadata()["version"] == version
    # and need not be said again
    assert store.import_checkpoint(stored, "roma_v2") == stored


def test_a_digest_or_metadata_say_the_version_and_a_contradiction_is_refused(
    tmp_path: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(state, tmp_path / "a.pt")
    pinned = replace(official("roma_v2_2.0.0"), sha256=digest(tmp_path / "a.pt"))
    monkeypatch.setitem(OFFICIAL, "roma_v2_2.0.0", pinned)
    assert versions.entry_for("roma_v2", tmp_path / "a.pt", None) == "roma_v2_2.0.0"
    newer = written(tmp_path / "b.safetensors", state, version="2.0.1")
    assert versions.entry_for("roma_v2", newer, None) == "roma_v2_2.0.1"
    for name, file, asked in (
        ("roma_v2", tmp_path / "a.pt", "2.0.1"),
        ("roma_v2_2.0.1", tmp_path / "a.pt", None),
        ("roma_v2_2.0.0", newer, None),
        ("roma_v2_2.0.1", newer, "2.0.0"),
    ):
        with pytest.raises(ValueError, match=r"not 2\.0\.|is version 2\.0\.1, not 2\.0\.0"):
            versions.entry_for(name, file, asked)


class Two(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = torch.nn.Linear(3, 3), torch.nn.Linear(2, 2)


def test_what_is_never_run_is_checked_by_key_and_not_read(tmp_path: Path) -> None:
    written(tmp_path / "two.safetensors", Two().state_dict())
    read: list[str] = []
    whole = mapped.open_mapped(official("roma_v2_2.0.1"), tmp_path / "two.safetensors")

    def noted(key: str) -> torch.Tensor:
        read.append(key)
        return whole.read(key)

    with torch.device("meta"):
        module, lacking = Two(), torch.nn.Linear(3, 3)

    def prune() -> None:
        del module.spare

    state = mapped.MappedState(whole.shapes, noted, whole.where)
    mapped.load_mapped(module, state, prune=prune, dtype_of=lambda key: torch.bfloat16)
    assert sorted(read) == ["used.bias", "used.weight"]
    assert module.used.weight.dtype == torch.bfloat16
    with pytest.raises(
        ValueError, match=r"two\.safetensors does not fit Linear: keys 2 missing \(bias, weight\); 4 unknown"
    ):
        mapped.load_mapped(lacking, state)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    damaged = torch.nn.Linear(2, 2).state_dict()
    damaged["bias"] = torch.tensor([1.0, float("nan")])
    with torch.device("meta"):
        module = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="not finite: bias"):
        mapped.load_mapped(module, mapped.held(damaged, Path("a.safetensors")))
