"""The catalogue of official checkpoints, and how their files are read: checked, and without running what is in them."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ros2_densematch.weights.checkpoint import read_container, read_official
from ros2_densematch.weights.key_tables import Expected, key_table, pack, table_names, tensor_bytes
from ros2_densematch.weights.official import OFFICIAL, Official, official

SMALL = Official("small", "gcm_paper", "CC0-1.0", ("dstl_r2d2",), entry="state_dict", unused=("head.",))


class Bomb:
    """Leaves a folder behind when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self._proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._proof),)


def state_of(table: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.randn(expected.shape, generator=generator) if expected.floating else torch.tensor(7)
        for key, expected in key_table(table).items()
    }


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return state_of("dstl_r2d2")


def saved(path: Path, content: object, **how: Any) -> Path:
    torch.save(content, path, **how)
    return path


@pytest.mark.parametrize("name", sorted(OFFICIAL))
def test_an_entry_is_complete(name: str) -> None:
    entry = official(name)
    assert entry.name == name
    assert entry.licence
    assert entry.url.startswith(("https://", "http://")) or not entry.url
    assert entry.about_bytes > 1_000_000
    for table in entry.key_tables:
        assert not any(key.startswith(entry.unused) for key in key_table(table))
    assert entry.restricted == any(word in entry.licence for word in ("non-commercial", "unclear", "no military"))


def test_every_key_table_is_used() -> None:
    assert set(table_names()) == {table for entry in OFFICIAL.values() for table in entry.key_tables}
    with pytest.raises(ValueError, match=r"no key table 'x': choose one of DKMv3, "):
        key_table("x")


def test_a_key_table_survives_packing() -> None:
    block = {f"block.{i}.{key}": Expected((64, 64, 3, 3), True) for i in range(9) for key in ("conv1.w", "conv2.w")}
    table = {**block, "count": Expected((), False), "bias": Expected((3,), True)}
    content = json.loads(pack({"net": table}))
    assert len(json.dumps(content["tables"])) < 300, "equal blocks stand once"
    assert tensor_bytes("dstl_r2d2") == 1_166_388


def test_the_key_tables_are_those_of_the_golden_checkpoints(repository: Path) -> None:
    folder = Path(os.environ.get("DENSEMATCH_GOLDEN", repository.parent / "shared" / "golden"))
    if not folder.is_dir():
        pytest.skip(f"no golden vectors at {folder} (set DENSEMATCH_GOLDEN)")
    files = sorted([*folder.glob("*/checkpoint.json"), *folder.glob("*/key_table.json")])
    assert files
    for file in files:
        for name, rows in json.loads(file.read_text())["key_tables"].items():
            expected = {key: Expected(tuple(shape), "float" in kind) for key, shape, kind in rows}
            assert key_table({"vgg19_features": "vgg19"}.get(name, name)) == expected, name


@pytest.mark.parametrize("zipped", [True, False])
def test_a_plain_or_wrapped_state_dictionary_is_read(
    tmp_path: Path, state: dict[str, torch.Tensor], zipped: bool
) -> None:
    for content in (state, {"net": "Net()", "state_dict": state}, {"model": state, "n": 3}):
        path = saved(tmp_path / "a.pth", content, _use_new_zipfile_serialization=zipped)
        read = read_official(SMALL, path)
        assert read.keys() == state.keys()
        assert all(torch.equal(read[key], state[key]) for key in state)


def test_keys_are_renamed_as_the_authors_loaders_do(tmp_path: Path) -> None:
    published = state_of("cnngeometric_vgg16_affine")
    old = {f"module.{key.replace('model', 'vgg')}": value for key, value in published.items()}
    path = saved(tmp_path / "a.pth.tar", {"state_dict": old})
    assert read_official(official("cnngeometric_affine"), path).keys() == published.keys()


def test_unused_heads_and_missing_counters_are_no_fault(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    older = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    read = read_official(SMALL, saved(tmp_path / "a.pth", {**older, "head.weight": torch.zeros(9)}))
    assert read.keys() == state.keys()
    assert read["ops.1.num_batches_tracked"].item() == 0


def test_half_precision_comes_out_in_float32(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    halves = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    read = read_official(SMALL, saved(tmp_path / "a.pth", halves))
    assert read["ops.0.weight"].dtype == torch.float32


def test_a_second_permitted_table_is_taken(tmp_path: Path) -> None:
    nine = state_of("cnngeometric_vgg16_hom9")
    read = read_official(official("cnngeometric_homography"), saved(tmp_path / "a.pth.tar", {"state_dict": nine}))
    assert read["FeatureRegression.linear.bias"].shape == (9,)


def test_all_that_does_not_fit_is_listed(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    wrong = {**state, "extra": torch.zeros(1), "clf.weight": torch.zeros(2, 64, 1, 1)}
    del wrong["sal.bias"]
    with pytest.raises(
        ValueError, match=r"a\.pth is not small: keys 1 missing \(sal\.bias\); 1 unknown \(extra\)"
    ) as caught:
        read_official(SMALL, saved(tmp_path / "a.pth", wrong))
    assert "1 with another shape or type (clf.weight (2, 64, 1, 1) instead of (2, 128, 1, 1))" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_model_or_no_model_is_refused(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match=r"is not roma_outdoor: keys .* missing"):
        read_official(official("roma_outdoor"), saved(tmp_path / "a.pth", state))
    with pytest.raises(ValueError, match="is not small: not tensors: state_dict"):
        read_official(SMALL, saved(tmp_path / "b.pth", {"state_dict": "text"}))
    with pytest.raises(ValueError, match="is not small: it holds a list"):
        read_official(SMALL, saved(tmp_path / "c.pth", [1, 2]))


def test_values_that_are_not_finite_are_refused(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = saved(tmp_path / "a.pth", {**state, "sal.bias": torch.tensor([float("nan")])})
    with pytest.raises(ValueError, match=r"is damaged: not finite: sal\.bias"):
        read_official(SMALL, path)


def test_an_expanded_tensor_is_never_unfolded(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    # 4 TB if anything made it contiguous before its shape is compared
    bomb = torch.zeros(1).expand(10**12)
    with pytest.raises(ValueError, match=r"sal\.bias \(1000000000000,\) instead of \(1,\)"):
        read_official(SMALL, saved(tmp_path / "a.pth", {**state, "sal.bias": bomb}))


@pytest.mark.parametrize("zipped", [True, False])
def test_old_files_with_a_command_line_and_losses_are_read(
    tmp_path: Path, state: dict[str, torch.Tensor], zipped: bool
) -> None:
    container = {
        "epoch": 5,
        "args": argparse.Namespace(ncons_kernel_sizes=[5, 5, 5], lr=0.1),
        "state_dict": state,
        "best_test_loss": np.float64(0.25),
        "train_loss": np.arange(3.0),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
    }
    path = saved(tmp_path / "old.pth.tar", container, _use_new_zipfile_serialization=zipped)
    assert read_official(SMALL, path).keys() == state.keys()
    read = read_container(path)
    assert read["args"].ncons_kernel_sizes == [5, 5, 5]
    np.testing.assert_array_equal(read["train_loss"], np.arange(3.0))


def test_numpys_old_module_names_are_known(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = saved(tmp_path / "old.pth", {"a": np.arange(3.0)}, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    for name in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        other = content.replace(b"numpy._core.multiarray", name).replace(b"numpy.core.multiarray", name)
        path.write_bytes(other)
        np.testing.assert_array_equal(read_container(path)["a"], np.arange(3.0))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("hidden_in", ["args", "train_loss", "state_dict"])
def test_the_hostile_twin_is_refused_and_not_executed(
    tmp_path: Path, state: dict[str, torch.Tensor], zipped: bool, hidden_in: str
) -> None:
    proof = tmp_path / "executed"
    bomb: Any = Bomb(proof)
    container = {
        "args": argparse.Namespace(lr=bomb if hidden_in == "args" else 0.1),
        "train_loss": np.array([bomb], object) if hidden_in == "train_loss" else np.arange(3.0),
        "state_dict": {**state, "sal.bias": bomb} if hidden_in == "state_dict" else state,
    }
    path = saved(tmp_path / "evil.pth.tar", container, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        ValueError, match=r"evil\.pth\.tar is refused: .*nothing was executed .*(mkdir|ObjectDType)"
    ) as caught:
        read_official(SMALL, path)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value), "the remedy is not to switch the restriction off"
    assert not proof.exists()
    torch.load(path, weights_only=False)  # the bomb is live: it was the reader that did not touch it
    assert proof.exists()


def test_a_plain_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    proof = tmp_path / "executed"
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Bomb(proof)))
    with pytest.raises(ValueError, match=r"evil\.pth"):
        read_official(SMALL, path)
    assert not proof.exists()


def test_a_stand_in_keeps_items_and_runs_nothing(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    from collections import defaultdict

    losses: defaultdict[str, list[float]] = defaultdict(list, loss=[1.0])
    path = saved(tmp_path / "a.pt", {"state_dict": state, "training_losses": losses})
    with pytest.raises(ValueError, match=r"refused.*defaultdict"):
        read_official(SMALL, path)
    lenient = dataclasses.replace(SMALL, inert=OFFICIAL["faster2d2_WASF_N16"].inert)
    assert read_official(lenient, path).keys() == state.keys()
    proof = tmp_path / "executed"
    path = saved(tmp_path / "b.pt", {"state_dict": state, "training_losses": losses, "x": Bomb(proof)})
    with pytest.raises(ValueError, match="refused"):
        read_official(lenient, path)
    assert not proof.exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_checkpoint_is_one_clear_error(
    tmp_path: Path, state: dict[str, torch.Tensor], zipped: bool, share: float
) -> None:
    path = saved(tmp_path / "cut.pth", state, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"cut\.pth is (refused|not a checkpoint)") as caught:
        read_official(SMALL, path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "content", [b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\n", b"\x80\x02}."]
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "page.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"page\.pth is"):
        read_official(SMALL, path)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights file .*none\.pth: give the path of a checkpoint"):
        read_official(SMALL, tmp_path / "none.pth")


def test_compressed_records_are_refused_before_they_unpack(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    plain = saved(tmp_path / "plain.pth", {**state, "head.weight": torch.zeros(10_000_000)})
    bomb = tmp_path / "bomb.pth"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert bomb.stat().st_size < plain.stat().st_size / 10
    with pytest.raises(ValueError, match=r"bomb\.pth is refused: it contains compressed records \(.*\.\.\.\)"):
        read_official(SMALL, bomb)
    assert read_official(SMALL, plain).keys() == state.keys()
