"""A training that is killed at any step, or while any of its files takes its place, goes on to the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).parent / "killed_run.py"
STEPS, FILES = 4, 8  # of the training there: steps, and files that take their place


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    "points",
    [
        ["step:1", "after:4"],
        pytest.param(
            [f"step:{n}" for n in range(STEPS)] + [f"{at}:{n}" for n in range(FILES) for at in ("before", "after")],
            marks=[pytest.mark.slow, pytest.mark.exhaustive],
        ),
    ],
    ids=["two", "all"],
)
def test_it_goes_on_to_the_same_bits(tmp_path: Path, points: list[str]) -> None:
    photos = tmp_path / "data" / "train_photos"
    photos.mkdir(parents=True)
    for k in range(4):
        noise = np.random.default_rng(k).uniform(0, 255, (12, 16, 3))
        picture = cv2.resize(noise, (160, 120), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(photos / f"{k}.jpg"), np.clip(picture, 0, 255).astype(np.uint8))
    out = tmp_path / "out"
    out.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2]), "OMP_NUM_THREADS": "1"}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, str(SCRIPT), str(photos.parent), str(out), *points]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == [f"{point} killed" for point in points], "every point was reached"
    straight = load_file(out / "straight" / "last.safetensors")
    for point in points:
        resumed = load_file(out / point / "last.safetensors")
        assert resumed.keys() == straight.keys(), point
        assert all(torch.equal(resumed[k], straight[k]) for k in straight), point
        left = {path.name for path in (out / point).iterdir()}
        assert left == {path.name for path in (out / "straight").iterdir()}, point
