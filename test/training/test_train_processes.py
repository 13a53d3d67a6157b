"""A step is the same however its pairs are shared out: in one batch, in parts, over two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ros2_densematch.training.run.loader import Batches, StepSampler

SCRIPT = Path(__file__).parent / "two_processes.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "train_photos").mkdir()
    for k in range(4):
        noise = np.random.default_rng(k).uniform(0, 255, (12, 16, 3))
        picture = cv2.resize(noise, (160, 120), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / "train_photos" / f"{k}.jpg"), np.clip(picture, 0, 255).astype(np.uint8))
    return folder


def start(words: list[str]) -> None:
    package = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(package), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory) -> Path:
    """Output folders of several runs: name, processes, steps, parts, with dropout or without."""
    out = tmp_path_factory.mktemp("runs")
    wanted = [
        ("alone", 1, 4, 1, "even"),
        ("short", 1, 3, 1, "even"),
        ("parts", 1, 4, 2, "even"),
        ("together", 2, 4, 1, "even"),
        ("straight", 2, 4, 2, "noisy"),
        ("resumed", 2, 2, 2, "noisy"),
        ("resumed", 2, 4, 2, "noisy"),
    ]
    jobs = [
        {"processes": processes, "words": [str(data), str(out / name), str(steps), str(parts), noisy]}
        for name, processes, steps, parts, noisy in wanted
    ]
    (out / "jobs.json").write_text(json.dumps(jobs))
    start([str(SCRIPT), str(out / "jobs.json")])
    return out


def same(first: Path, second: Path, *, tolerance: float = 0.0) -> bool:
    a, b = load_file(first), load_file(second)
    return a.keys() == b.keys() and all(torch.allclose(a[k], b[k], rtol=0, atol=tolerance) for k in a)


@pytest.mark.parametrize(("parts", "world"), [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_each_sample_of_a_step_is_used_once_whoever_uses_it(parts, world):
    everybody = [Batches(12, parts, rank, world) for rank in range(world)]
    for step in range(3):
        used = [number for batches in everybody for number in batches.samples(step)]
        assert sorted(used) == list(range(12 * step, 12 * step + 12))
    assert all(len(list(StepSampler(b, 2, 5))) == 3 * 12 // world for b in everybody)


def test_pairs_that_cannot_be_shared_out_evenly_are_refused():
    with pytest.raises(ValueError, match=r"batch_pairs is 4: .* accumulate \(3\) times the number of processes \(1\)"):
        Batches(4, 3)


def test_two_processes_and_two_parts_train_what_one_process_trains(runs):
    weights = {name: runs / name / "last.safetensors" for name in ("alone", "parts", "together", "short")}
    assert same(weights["alone"], weights["parts"], tolerance=1e-5)
    assert same(weights["alone"], weights["together"], tolerance=1e-5)
    assert not same(weights["alone"], weights["short"], tolerance=1e-5)
    written = {p.relative_to(runs / "together").as_posix() for p in (runs / "together").rglob("*")}
    assert {"manifest.json", "checkpoints/even.ckpt", "last.safetensors"} <= written
    assert not [name for name in written if Path(name).name.startswith(".")]


def test_two_processes_that_were_stopped_in_an_accumulating_run_go_on_to_the_bit(runs):
    assert same(runs / "straight" / "last.safetensors", runs / "resumed" / "last.safetensors")


@pytest.mark.slow
def test_torchrun_starts_the_same_run(data, runs, tmp_path):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    start([*launcher, str(SCRIPT), str(data), str(tmp_path), "4", "1", "even"])
    assert same(runs / "together" / "last.safetensors", tmp_path / "last.safetensors")
