"""`densematch train`: a run that is stopped and goes on equals one that never stopped, and faults are told plainly."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path
from types import ModuleType

import cv2
import lightning
import numpy as np
import pytest
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import safe_open
from safetensors.torch import load_file

from ros2_densematch.cli.main import main
from ros2_densematch.training.recipe import Recipe, load_recipe
from ros2_densematch.training.run.callbacks import TrainingDiverged
from ros2_densematch.training.run.trainer import train
from ros2_densematch.training.stages import registry as stages
from ros2_densematch.training.stages.base import Stage


class TinyConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    rate: float = Field(1e-2, gt=0)
    max_steps: int = 4
    prefix: str = "tiny"


class Tiny(Stage):
    """Draws from all three random generators, has batch statistics, momentum and a schedule: all must be resumed."""

    hook = None
    started_from: dict | None = None

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        self.network = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3, stride=4), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.3), torch.nn.Conv2d(4, 2, 1)
        )

    def export_state(self):
        return {f"{self.config.prefix}.{k}": v for k, v in self.network.state_dict().items()}

    def start_from(self, state):
        Tiny.started_from = state

    def training_step(self, batch, index):
        if Tiny.hook is not None:
            Tiny.hook(self.global_step)
        noise = random.random() + np.random.rand()  # noqa: NPY002
        first, second = self.network(batch["image0"]), self.network(batch["image1"] + 0.01 * noise)
        loss = (first - second).square().mean() + (first.std() - 1).square()
        if Tiny.hook is poison:
            loss = loss * float("nan")
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=self.config.rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def poison(step: int) -> None:
    """Marks that the loss is to become NaN."""


@pytest.fixture(autouse=True)
def tiny_stage(monkeypatch):
    module = ModuleType("tiny_training_stage")
    module.Tiny, module.TinyConfig = Tiny, TinyConfig
    monkeypatch.setitem(sys.modules, "tiny_training_stage", module)
    monkeypatch.setitem(stages.STAGES, "tiny", ("tiny_training_stage", "Tiny", "TinyConfig"))
    monkeypatch.setitem(stages.STAGES, "second", ("tiny_training_stage", "Tiny", "TinyConfig"))
    monkeypatch.setattr(Tiny, "hook", None)
    monkeypatch.setattr(Tiny, "started_from", None)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "train_photos").mkdir()
    for k in range(4):
        noise = np.random.default_rng(k).uniform(0, 255, (12, 16, 3))
        picture = cv2.resize(noise, (160, 120), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / "train_photos" / f"{k}.jpg"), np.clip(picture, 0, 255).astype(np.uint8))
    return folder


def recipe(stage_list: list[dict] | None = None, **changes) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "matcher": "gcm",
            "checkpoint_every": 2,
            "data": {"size": 64, "max_points": 32, "batch_pairs": 2, "sources": [{"kind": "photos", "weight": 1}]},
            "stages": stage_list or [{"stage": "tiny", "max_steps": 4}],
            **changes,
        }
    )


def same(first: Path, second: Path) -> bool:
    a, b = load_file(first), load_file(second)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def training_state(out: Path) -> dict:
    return torch.load(out / "checkpoints" / "tiny.ckpt", weights_only=True)


def assert_equal_state(first, second) -> None:
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_equal_state(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for a, b in zip(first, second, strict=True):
            assert_equal_state(a, b)
    else:
        assert first == second


def assert_same_run(straight: Path, resumed: Path) -> None:
    assert same(straight / "last.safetensors", resumed / "last.safetensors")
    a, b = training_state(straight), training_state(resumed)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "random_state", "global_step"):
        assert_equal_state(a[key], b[key])
    assert a["loops"]["fit_loop"]["state_dict"]["combined_loader"] == [{"next_sample": 8}]
    assert b["loops"]["fit_loop"]["state_dict"]["combined_loader"] == [{"next_sample": 8}]


def test_two_steps_a_stop_and_two_more_equal_four_steps_to_the_bit(data, tmp_path):
    straight = train(recipe(), tmp_path / "straight", data)
    assert (straight.steps, straight.finished) == ({"tiny": 4}, True)
    first = train(recipe(), tmp_path / "resumed", data, max_steps=2)
    assert (first.steps, first.finished) == ({"tiny": 2}, False)
    assert not same(tmp_path / "straight/last.safetensors", tmp_path / "resumed/last.safetensors")
    random.seed(99)
    torch.manual_seed(99)  # another process would start anywhere
    second = train(recipe(), tmp_path / "resumed", data)
    assert (second.steps, second.finished) == ({"tiny": 4}, True)
    assert_same_run(tmp_path / "straight", tmp_path / "resumed")


def test_a_run_that_an_older_version_began_goes_on(tmp_path):
    """`interrupted_run` is what commit 13bd089, before training was put into rooms, left behind after two of these four
    steps: `train(recipe(), run, data, max_steps=2)` of this file as it stood there."""
    kept = Path(__file__).parent / "interrupted_run"
    shutil.copytree(kept, tmp_path / "kept")
    photos, resumed = tmp_path / "kept" / "data", tmp_path / "kept" / "run"
    outcome = train(recipe(), resumed, photos)
    assert (outcome.steps, outcome.finished) == ({"tiny": 4}, True)
    train(recipe(), tmp_path / "straight", photos)
    a, b = training_state(tmp_path / "straight"), training_state(resumed)
    assert b["global_step"] == a["global_step"] == 4
    assert b["loops"]["fit_loop"]["state_dict"]["combined_loader"] == [{"next_sample": 8}]
    assert b["lr_schedulers"] == a["lr_schedulers"]
    # Not to the bit, because the first two steps were made by that computer's libraries. The bias before the batch norm
    # has no gradient but rounding noise, which Adam scales up: it and the mean that it shifts say nothing.
    for key in set(a["state_dict"]) - {"network.0.bias", "network.1.running_mean"}:
        torch.testing.assert_close(b["state_dict"][key], a["state_dict"][key], rtol=1e-2, atol=1e-3)


def test_worker_processes_change_nothing(data, tmp_path):
    train(recipe(), tmp_path / "alone", data)
    settings = recipe().data.model_copy(update={"workers": 1})
    helped = recipe().model_copy(update={"data": settings})
    train(helped, tmp_path / "helped", data, max_steps=2)
    train(helped, tmp_path / "helped", data)
    assert same(tmp_path / "alone/last.safetensors", tmp_path / "helped/last.safetensors")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_step_end_and_the_run_goes_on_to_the_same_bits(data, tmp_path, monkeypatch, number):
    train(recipe(checkpoint_every=100), tmp_path / "straight", data)

    def kill_in_the_third_step(step: int) -> None:
        if step == 2:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    monkeypatch.setattr(Tiny, "hook", staticmethod(kill_in_the_third_step))
    stopped = train(recipe(checkpoint_every=100), tmp_path / "resumed", data)
    assert (stopped.steps, stopped.signal, stopped.finished) == ({"tiny": 3}, number, False)
    assert signal.getsignal(number) == before
    monkeypatch.setattr(Tiny, "hook", None)
    assert train(recipe(checkpoint_every=100), tmp_path / "resumed", data).finished
    assert_same_run(tmp_path / "straight", tmp_path / "resumed")


def test_a_crash_loses_only_the_steps_since_the_last_checkpoint(data, tmp_path, monkeypatch):
    train(recipe(), tmp_path / "straight", data)

    def crash_in_the_fourth_step(step: int) -> None:
        if step == 3:
            raise MemoryError("the machine gave up")

    monkeypatch.setattr(Tiny, "hook", staticmethod(crash_in_the_fourth_step))
    with pytest.raises(MemoryError):
        train(recipe(), tmp_path / "resumed", data)
    assert training_state(tmp_path / "resumed")["global_step"] == 2
    monkeypatch.setattr(Tiny, "hook", None)
    train(recipe(), tmp_path / "resumed", data)
    assert_same_run(tmp_path / "straight", tmp_path / "resumed")


@pytest.mark.parametrize("workers", [0, 1])
def test_strict_runs_end_with_one_line_that_names_the_file(data, tmp_path, capsys, workers):
    folder = tmp_path / "data" / "train_photos"
    folder.mkdir(parents=True)
    (folder / "bad.jpg").write_bytes(b"no photo")
    config = write_recipe(tmp_path / "tiny.yaml", TINY_YAML.replace("size: 64", f"workers: {workers}, size: 64"))
    command = ["train", str(config), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--strict"]
    assert main(command) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert "bad.jpg" in said[-1]
    assert "Traceback" not in said[-1]


def test_a_finished_run_is_left_as_it_is(data, tmp_path):
    train(recipe(), tmp_path, data)
    content = (tmp_path / "last.safetensors").read_bytes()
    assert train(recipe(), tmp_path, data).finished
    assert (tmp_path / "last.safetensors").read_bytes() == content


def test_another_seed_gives_other_weights_and_does_not_mix_with_a_run(data, tmp_path):
    train(recipe(), tmp_path / "a", data, max_steps=1)
    train(recipe(), tmp_path / "b", data, max_steps=1, seed=1)
    assert not same(tmp_path / "a/last.safetensors", tmp_path / "b/last.safetensors")
    with pytest.raises(ValueError, match="another seed"):
        train(recipe(), tmp_path / "a", data, seed=1)
    assert train(recipe(), tmp_path / "a", data, seed=1, resume=False, max_steps=1).steps == {"tiny": 1}
    assert same(tmp_path / "a/last.safetensors", tmp_path / "b/last.safetensors")


@pytest.mark.parametrize("name", ["checkpoints/mine.ckpt", "last.safetensors", "manifest.json"])
@pytest.mark.parametrize("resume", [True, False])
def test_files_that_no_training_wrote_are_not_touched(data, tmp_path, name, resume):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match="was not written by a training"):
        train(recipe(), tmp_path, data, max_steps=1, resume=resume)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == [name]


def test_a_run_that_is_begun_again_leaves_nothing_of_the_one_before(data, tmp_path):
    both = [{"stage": "tiny", "max_steps": 1}, {"stage": "second", "max_steps": 1, "settings": {"prefix": "other"}}]
    train(recipe(both), tmp_path, data)
    (tmp_path / "notes.txt").write_text("mine")
    train(recipe(), tmp_path, data, max_steps=1, resume=False)
    assert not list(tmp_path.rglob("*second*"))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_changed_data_or_recipe_is_refused_with_its_name(data, tmp_path):
    (tmp_path / "data" / "train_photos").mkdir(parents=True)
    for photo in (data / "train_photos").iterdir():
        (tmp_path / "data" / "train_photos" / photo.name).write_bytes(photo.read_bytes())
    train(recipe(), tmp_path / "out", tmp_path / "data", max_steps=1)
    with pytest.raises(ValueError, match="another recipe"):
        train(recipe(checkpoint_every=3), tmp_path / "out", tmp_path / "data")
    (tmp_path / "data" / "train_photos" / "2.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 files differ, the first is train_photos/2\.jpg"):
        train(recipe(), tmp_path / "out", tmp_path / "data")


def test_weights_name_their_matcher_and_the_manifest_names_every_file(data, tmp_path):
    import hashlib

    train(recipe(), tmp_path, data, max_steps=2)
    with safe_open(tmp_path / "last.safetensors", "pt") as weights:
        metadata = weights.metadata()
    assert metadata["matcher"] == "gcm"
    assert metadata["recipe"] == "tiny"
    assert metadata["step"] == "2"
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    photo = data / "train_photos" / "1.jpg"
    assert manifest["files"]["train_photos/1.jpg"] == hashlib.sha256(photo.read_bytes()).hexdigest()
    assert len(manifest["files"]) == 4
    assert manifest["steps"] == {"tiny": 2}
    assert list((tmp_path / "tensorboard" / "tiny").glob("events*"))
    assert not [p for p in tmp_path.rglob(".*") if p.is_file()]  # no temporary file is left


def test_a_second_stage_starts_from_the_first_and_the_weights_hold_both(data, tmp_path):
    both = recipe(
        [
            {"stage": "tiny", "max_steps": 2},
            {"stage": "second", "max_steps": 2, "batch_pairs": 3, "settings": {"prefix": "other"}},
        ]
    )
    first = train(both, tmp_path, data, max_steps=3)
    assert first.steps == {"tiny": 2, "second": 1}
    assert Tiny.started_from is not None
    outcome = train(both, tmp_path, data)
    assert outcome.finished
    names = load_file(tmp_path / "last.safetensors").keys()
    assert {name.split(".")[0] for name in names} == {"tiny", "other"}
    tiny = load_file(tmp_path / "checkpoints" / "tiny.safetensors")
    assert torch.equal(Tiny.started_from["tiny.0.weight"], tiny["tiny.0.weight"])


def test_steps_with_a_gradient_that_is_not_finite_leave_the_weights_alone(data, tmp_path, monkeypatch):
    monkeypatch.setattr(Tiny, "hook", staticmethod(poison))
    outcome = train(recipe([{"stage": "tiny", "max_steps": 2}]), tmp_path / "a", data)
    assert outcome.skipped_steps == 2
    trained = load_file(tmp_path / "a" / "last.safetensors")
    lightning.seed_everything(0, verbose=False)
    fresh = Tiny(TinyConfig()).export_state()
    assert torch.equal(trained["tiny.0.weight"], fresh["tiny.0.weight"])
    with pytest.raises(TrainingDiverged, match="in a row"):
        train(recipe([{"stage": "tiny", "max_steps": 20}]), tmp_path / "b", data)


def test_a_damaged_checkpoint_is_named(data, tmp_path):
    train(recipe(), tmp_path, data, max_steps=2)
    path = tmp_path / "checkpoints" / "tiny.ckpt"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"tiny\.ckpt.*--no-resume"):
        train(recipe(), tmp_path, data)


def write_recipe(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


TINY_YAML = """
name: tiny
matcher: gcm
data: {size: 64, max_points: 32, batch_pairs: 2, sources: [{kind: photos, weight: 1}]}
stages: [{stage: tiny, max_steps: 2}]
"""


def test_the_command_trains_skips_damaged_photos_and_says_where_the_weights_are(data, tmp_path, capsys):
    folder = tmp_path / "data"
    (folder / "train_photos").mkdir(parents=True)
    (folder / "train_photos" / "good.jpg").write_bytes((data / "train_photos" / "0.jpg").read_bytes())
    (folder / "train_photos" / "bad.jpg").write_bytes(b"no photo")
    config = write_recipe(tmp_path / "tiny.yaml", TINY_YAML.replace("max_steps: 2", "max_steps: 6"))
    command = ["train", str(config), "--data", str(folder), "--out"]
    assert main([*command, str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "finished: tiny 6 steps" in said.out
    assert "bad.jpg" in said.err
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert any("bad.jpg" in message for message in manifest["skipped"])
    assert main([*command, str(tmp_path / "strict"), "--strict"]) == 2
    assert "bad.jpg" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "not valid YAML"),
        ("just words", "must hold name"),
        (TINY_YAML.replace("size: 64", "size: 65"), "data.size: input should be a multiple of 16 (got 65)"),
        (TINY_YAML.replace("max_steps: 2", "max_step: 2"), "stages.0.max_step"),
        (TINY_YAML.replace("stage: tiny", "stage: tinny"), "unknown training stage 'tinny'"),
        (
            TINY_YAML.replace("max_steps: 2", "max_steps: 2, settings: {rate: -1}"),
            "rate: input should be greater than 0",
        ),
    ],
)
def test_a_faulty_recipe_gives_one_line_and_exit_code_2(data, tmp_path, capsys, text, message):
    config = write_recipe(tmp_path / "recipe.yaml", text)
    assert main(["train", str(config), "--data", str(data), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1


def test_missing_recipe_or_data_is_named(data, tmp_path, capsys):
    assert main(["train", str(tmp_path / "none.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert "none.yaml" in capsys.readouterr().err
    config = write_recipe(tmp_path / "tiny.yaml", TINY_YAML)
    assert main(["train", str(config), "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_shipped_recipes_are_valid(repository):
    paths = sorted((repository / "config" / "training").glob("*.yaml"))
    assert paths
    for path in paths:
        shipped = load_recipe(path)
        assert shipped.name == path.stem
        for stage in shipped.stages:
            stages.stage_config(stage, repository)
