"""Every weights file that ships is in the catalogue, whole, small, and of known descent."""

from __future__ import annotations

from pathlib import Path

import pytest

from ros2_densematch.matchers.registry import list_matchers
from ros2_densematch.weights import catalogue
from ros2_densematch.weights.catalogue import SHIPPED, digest, path_of
from ros2_densematch.weights.loading import read_state

FOLDER = Path(catalogue.__file__).parent
LARGEST = 8 * 1024 * 1024
TRAINED_FROM_NOTHING = {"condl", "gcm_guided", "gcm_pair"}  # and without a teacher


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_file_is_what_the_catalogue_says(name: str) -> None:
    entry = SHIPPED[name]
    path = path_of(name)
    assert entry.name == name
    assert path.name == entry.file
    assert path.stat().st_size == entry.size
    assert digest(path) == entry.sha256


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_file_is_at_most_8_mib(name: str) -> None:
    assert path_of(name).stat().st_size <= LARGEST


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_file_has_finite_values_for_a_known_matcher(name: str) -> None:
    entry = SHIPPED[name]
    assert entry.matcher in list_matchers()
    state = read_state(path_of(name))
    assert all(tensor.isfinite().all() for tensor in state.values())


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_licence_and_ancestors_are_named(name: str) -> None:
    entry = SHIPPED[name]
    assert entry.licence == "Apache-2.0"
    assert entry.ancestors or name in TRAINED_FROM_NOTHING
    for ancestor in entry.ancestors:
        assert any(licence in ancestor for licence in ("Apache-2.0", "MIT", "BSD")), ancestor


def test_no_weights_file_lies_in_the_package_without_an_entry() -> None:
    suffixes = {".safetensors", ".pt", ".pth", ".ckpt", ".onnx", ".bin", ".npz"}
    files = {path.name for path in FOLDER.iterdir() if path.suffix in suffixes}
    assert files == {entry.file for entry in SHIPPED.values()}


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no shipped weights 'roma': choose one of .*gcm"):
        path_of("roma")


def test_a_file_missing_from_the_installation_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(catalogue, "_FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"gcm\.safetensors is missing from the installation"):
        path_of("gcm")


def test_the_digest_is_sha_256(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
