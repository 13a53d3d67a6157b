"""The mean of weights files: exact, of one network only, and with its origin in the metadata."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ros2_densematch.matchers.gcm.matcher import GcmMatcher
from ros2_densematch.weights.averaging import average
from ros2_densematch.weights.catalogue import digest, path_of


def written(path: Path, value: float, *, matcher: str = "gcm", name: str = "a") -> Path:
    state = {name: torch.full((2, 3), value), "half": torch.full((2,), value).half(), "steps": torch.tensor(int(value))}
    save_file(state, str(path), {"matcher": matcher, "recipe": "r"})
    return path


def test_the_mean_is_exact_and_says_what_it_came_from(tmp_path: Path) -> None:
    files = [written(tmp_path / f"{v}.safetensors", v) for v in (1.0, 2.0, 6.0)]
    out = average(files, tmp_path / "deep" / "mean.safetensors")
    found = load_file(out)
    torch.testing.assert_close(found["a"], torch.full((2, 3), 3.0), rtol=0, atol=0)
    assert found["half"].dtype == torch.float16
    assert found["half"].tolist() == [3.0, 3.0]
    assert found["steps"].item() == 1
    with safe_open(str(out), framework="np") as opened:
        metadata = opened.metadata()
    assert metadata["matcher"] == "gcm"
    assert metadata["averaged"].split() == [digest(file) for file in files]
    assert [p.name for p in out.parent.iterdir()] == ["mean.safetensors"]


@pytest.mark.parametrize("change", [{"matcher": "condl"}, {"name": "b"}])
def test_another_network_is_refused(tmp_path: Path, change: dict[str, str]) -> None:
    files = [written(tmp_path / "1.safetensors", 1.0), written(tmp_path / "2.safetensors", 2.0, **change)]
    with pytest.raises(ValueError, match=r"2\.safetensors and .*1\.safetensors belong to different networks"):
        average(files, tmp_path / "mean.safetensors")
    assert not (tmp_path / "mean.safetensors").exists()


def test_one_file_is_no_mean(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 weights file given: averaging takes at least two"):
        average([written(tmp_path / "1.safetensors", 1.0)], tmp_path / "mean.safetensors")


def test_the_command_averages_files_that_the_matcher_loads(densematch, tmp_path: Path) -> None:
    shipped, out = path_of("gcm"), tmp_path / "mean.safetensors"
    outcome = densematch("weights", "average", shipped, shipped, "--out", out)
    assert outcome.code == 0, outcome.err
    assert digest(out) in outcome.out
    GcmMatcher(device="cpu", weights=str(out))
    first, second = load_file(shipped), load_file(out)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_command_says_what_is_wrong_in_one_line(densematch, tmp_path: Path) -> None:
    outcome = densematch("weights", "average", tmp_path / "no.safetensors", path_of("gcm"), "--out", tmp_path / "m")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "no weights file" in outcome.err


def test_a_folder_is_no_place_for_the_mean(densematch, tmp_path: Path) -> None:
    shipped = path_of("gcm")
    outcome = densematch("weights", "average", shipped, shipped, "--out", tmp_path)
    assert outcome.code == 2
    assert f"{tmp_path} is a folder: give the file to write" in outcome.err
    assert list(tmp_path.parent.glob(f".{tmp_path.name}*")) == []
