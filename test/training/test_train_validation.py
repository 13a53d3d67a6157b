"""Validation: held-out material is measured with the weights at hand, and training does not notice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file

from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.training.data.sample import DenseTruth
from ros2_densematch.training.images import TrainingDataError
from ros2_densematch.training.recipe import Recipe, ValidationRecipe
from ros2_densematch.training.run.trainer import train
from ros2_densematch.training.run.validation import draw_validation_pairs, judge
from ros2_densematch.training.stages import registry as stages
from ros2_densematch.training.stages.base import Stage
from ros2_densematch.weights.catalogue import path_of


class FrozenConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    max_steps: int = 4
    whole: bool = True


class Frozen(Stage):
    """Trains a scrap beside the weights of `gcm` that ship, and exports those."""

    hook = None

    def __init__(self, config: FrozenConfig) -> None:
        super().__init__()
        self.config = config
        self.scrap = torch.nn.Conv2d(3, 2, 3)

    def export_state(self):
        return load_file(path_of("gcm")) if self.config.whole else {"scrap": self.scrap.weight}

    def training_step(self, batch, index):
        if Frozen.hook is not None:
            Frozen.hook(index)
        return (self.scrap(batch["image0"]) + torch.rand(1)).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.scrap.parameters(), lr=0.01)


@pytest.fixture(autouse=True)
def frozen_stage(monkeypatch):
    module = ModuleType("frozen_training_stage")
    module.Frozen, module.FrozenConfig = Frozen, FrozenConfig
    monkeypatch.setitem(sys.modules, "frozen_training_stage", module)
    monkeypatch.setitem(stages.STAGES, "frozen", ("frozen_training_stage", "Frozen", "FrozenConfig"))
    monkeypatch.setattr(Frozen, "hook", None)


def texture(seed: int, width: int, height: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.uniform(0, 255, (height // s, width // s, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
        for s in (8, 20)
    ]
    return np.clip(np.mean(layers, 0) * 1.6 - 76, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Photos, and a recording along a wall 2 m away."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "train_photos").mkdir()
    for k in range(6):
        cv2.imwrite(str(folder / "train_photos" / f"{k}.png"), texture(k, 320, 240))
    bag = folder / "walk"
    (bag / "rgb").mkdir(parents=True)
    (bag / "depth").mkdir()
    wall = texture(9, 800, 192)
    lines = ["index,timestamp_ns,image,depth,tx,ty,tz,qx,qy,qz,qw"]
    for k in range(8):
        shift = np.array([[1, 0, -100 - 20 * k], [0, 1, 0]], np.float64)  # 0.2 m at 200 px and 2 m
        cv2.imwrite(str(bag / f"rgb/{k}.png"), cv2.warpAffine(wall, shift, (256, 192)))
        cv2.imwrite(str(bag / f"depth/{k}.png"), np.full((192, 256), 2000, np.uint16))
        lines.append(f"{k},{10**9 + k * 10**8},rgb/{k}.png,depth/{k}.png,{0.2 * k},0,0,0,0,0,1")
    (bag / "frames.csv").write_text("\n".join(lines))
    camera = {"width": 256, "height": 192, "K": [200, 0, 127.5, 0, 200, 95.5, 0, 0, 1], "depth_scale": 1000}
    (bag / "camera.json").write_text(json.dumps(camera))
    return folder


def recipe(kind: str = "photos", stage: dict | None = None, **validation) -> Recipe:
    folder = {"photos": "train_photos", "bag": "walk"}[kind]
    return Recipe.model_validate(
        {
            "name": "frozen",
            "matcher": "gcm",
            "data": {
                "size": 96,
                "max_points": 32,
                "batch_pairs": 2,
                "sources": [{"kind": kind, "weight": 1, "folder": folder}],
            },
            "validation": {"share": 0.34, "pairs": 2, "every": 2, **validation},
            "stages": [{"stage": "frozen", "max_steps": 3, **(stage or {})}],
        }
    )


def scrap(out: Path) -> torch.Tensor:
    return torch.load(out / "checkpoints" / "frozen.ckpt", weights_only=True)["state_dict"]["scrap.weight"]


def test_good_weights_measure_well_and_figures_curves_and_pictures_are_kept(data, tmp_path):
    said: list[str] = []
    train(recipe("bag"), tmp_path, data, on_note=said.append)
    kept = json.loads((tmp_path / "validation.json").read_text())["frozen"]
    assert kept.keys() == {"2", "3"}  # every 2 steps and at the end
    assert kept["2"] == kept["3"]  # the weights are the same
    assert kept["2"].keys() == {"mma@1", "mma@3", "mma@5", "auc@5", "auc@10", "auc@20", "matches"}
    assert kept["2"]["mma@3"] > 0.8
    assert kept["2"]["matches"] > 100
    assert 0 <= kept["2"]["auc@5"] <= kept["2"]["auc@20"] <= 1
    assert any("frozen step 2, 2 held-out pairs: mma@1" in line for line in said)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "tensorboard" / "frozen"))
    board.Reload()
    assert [e.step for e in board.Scalars("validation/mma@3")] == [2, 3]
    picture = cv2.imdecode(np.frombuffer(board.Images("matches/0")[0].encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] == 960
    assert not [p for p in tmp_path.rglob(".*") if p.is_file()]


def test_photos_are_measured_without_poses_on_photos_that_are_not_trained_on(data, tmp_path):
    train(recipe(), tmp_path, data, max_steps=2)
    kept = json.loads((tmp_path / "validation.json").read_text())["frozen"]["2"]
    assert "auc@5" not in kept
    assert kept["mma@3"] > 0.4  # few matches of tiny photos; a matcher that finds nothing has 0
    assert len(json.loads((tmp_path / "manifest.json").read_text())["files"]) == 6  # held-out ones are listed too


def test_measuring_changes_nothing_in_training(data, tmp_path):
    train(recipe(every=1, pairs=1), tmp_path / "often", data, max_steps=2)
    train(recipe(every=100, pairs=1), tmp_path / "rarely", data, max_steps=2)
    assert torch.equal(scrap(tmp_path / "often"), scrap(tmp_path / "rarely"))


def test_weights_that_make_no_matcher_yet_are_said_once_and_training_goes_on(data, tmp_path):
    said: list[str] = []
    unfinished = recipe(stage={"settings": {"whole": False}}, every=1)
    assert train(unfinished, tmp_path, data, on_note=said.append).finished
    assert len([line for line in said if line.startswith("no validation in stage frozen")]) == 1
    assert not (tmp_path / "validation.json").exists()


def test_where_nothing_can_be_held_out_it_is_said(data, tmp_path):
    said: list[str] = []
    train(recipe(share=0.02), tmp_path, data, max_steps=1, on_note=said.append)
    assert any(line.startswith("no validation: nothing that can be measured") for line in said)


def test_the_same_pairs_are_measured_every_time(data, tmp_path):
    from ros2_densematch.training.data.photos import HomographyPairs

    source = HomographyPairs(data / "train_photos")
    first, second = (draw_validation_pairs([(source, 1.0)], ValidationRecipe(pairs=3), 64, seed=5) for _ in range(2))
    assert len(first) == 3
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.image0, b.image0)
        assert np.array_equal(a.truth.warp, b.truth.warp, equal_nan=True)


def test_matches_are_judged_by_the_dense_truth():
    grid = np.stack(np.meshgrid(np.arange(8, dtype=np.float32), np.arange(6, dtype=np.float32)), -1)
    valid, known = np.ones((6, 8), bool), np.ones((6, 8), bool)
    valid[:, :2] = False  # not visible in the second image
    valid[5], known[5] = False, False
    truth = DenseTruth(grid + 10, valid, known)
    reference = np.array([[3, 2], [4.25, 2], [3, 2], [1, 2], [3, 5]], np.float32)
    query = np.array([[13, 12], [14.25, 12], [16, 16], [11, 12], [13, 15]], np.float32)
    matches = Correspondences(reference, query, np.ones(5, np.float32), 1.0, (8, 6), (32, 32))
    error, judged = judge(truth, matches)
    assert np.allclose(error, [0, 0, 5, np.inf, np.inf])
    assert judged.tolist() == [True, True, True, True, False]


def test_half_precision_trains_and_needs_cuda_only_where_it_must(data, tmp_path):
    train(recipe(every=100, pairs=1), tmp_path / "full", data, max_steps=2)
    train(recipe(stage={"precision": "bf16-mixed"}, every=100, pairs=1), tmp_path / "half", data, max_steps=2)
    full, half = scrap(tmp_path / "full"), scrap(tmp_path / "half")
    assert not torch.equal(full, half)
    assert torch.allclose(full, half, atol=0.01)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="16-mixed needs a CUDA device"):
            train(recipe(stage={"precision": "16-mixed"}), tmp_path / "cuda", data)


def test_a_signal_between_the_parts_of_a_step_waits_for_the_steps_end(data, tmp_path, monkeypatch):
    plain = recipe(stage={"accumulate": 2, "settings": {"whole": False}}, share=0.02)
    train(plain, tmp_path / "straight", data)

    def kill_in_the_first_part_of_the_second_step(index: int) -> None:
        if index == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Frozen, "hook", staticmethod(kill_in_the_first_part_of_the_second_step))
    stopped = train(plain, tmp_path / "resumed", data)
    assert (stopped.steps, stopped.signal) == ({"frozen": 2}, signal.SIGTERM)
    monkeypatch.setattr(Frozen, "hook", None)
    assert train(plain, tmp_path / "resumed", data).finished
    assert torch.equal(scrap(tmp_path / "straight"), scrap(tmp_path / "resumed"))


def test_faults_of_a_recording_are_counted_once_or_end_a_strict_run(data, tmp_path):
    shutil.copytree(data / "walk", tmp_path / "walk")
    cv2.imwrite(str(tmp_path / "walk" / "depth" / "3.png"), np.zeros((192, 256), np.uint16))
    plain = recipe("bag", {"settings": {"whole": False}}, share=0.02)
    for steps in (1, 2):  # a resumed run counts no fault again
        outcome = train(plain, tmp_path / "out", tmp_path, max_steps=steps)
        assert sum(outcome.skipped.values()) == 1
        assert "the depth of frame 3" in next(iter(outcome.skipped))
    with pytest.raises(TrainingDataError, match="the depth of frame 3"):
        train(plain, tmp_path / "strict", tmp_path, strict=True)
