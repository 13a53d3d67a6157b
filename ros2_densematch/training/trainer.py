"""Runs a recipe: data, stages, checkpoints. A stopped run goes on where it stopped, to the bit on a CPU."""

from __future__ import annotations

import logging
import shutil
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import lightning
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, Sampler

from ros2_densematch import __version__
from ros2_densematch.training.callbacks import Checkpoints, NanGuard, Position, RandomState, Reporter, StopOnSignal
from ros2_densematch.training.dataset import PairDataset
from ros2_densematch.training.recipe import Recipe, StageRecipe
from ros2_densematch.training.run_files import (
    digests,
    fingerprint,
    finish_manifest,
    read_checkpoint,
    read_weights,
    start_manifest,
    write_weights,
)
from ros2_densematch.training.sample import Sample, TrainingDataError
from ros2_densematch.training.sources import Progress, fit_to_data, open_sources, problems
from ros2_densematch.training.stages import build_stage, exported_state, stage_config


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        steps: steps done in each stage, those of earlier runs included.
        finished: every stage has its full length.
        signal: number of the signal that stopped the run, or None.
        skipped: data errors, message -> times.
        skipped_steps: steps left out by the guard against NaN in this run.
        weights: the weights file.
    """

    steps: dict[str, int]
    finished: bool
    signal: int | None
    skipped: Counter[str]
    skipped_steps: int
    weights: Path


class StepSampler(Sampler[int]):
    """Sample numbers in order, from the first one that no earlier run has used."""

    def __init__(self, first: int, total: int) -> None:
        self.first, self.total = first, total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.total))

    def __len__(self) -> int:
        return self.total  # the whole stage: Lightning counts batches of earlier runs as done


class ResumableLoader(DataLoader[Sample]):
    """A DataLoader whose position is part of the checkpoint."""

    def __init__(
        self, dataset: torch.utils.data.Dataset[Sample], batch: int, sampler: StepSampler, workers: int
    ) -> None:
        # A generator of its own: starting the loader must not draw from the one that training draws from.
        super().__init__(
            dataset,
            batch_size=batch,
            sampler=sampler,
            num_workers=workers,
            generator=torch.Generator(),
            persistent_workers=workers > 0,
            worker_init_fn=_start_worker,
        )
        self._pairs = batch
        self.steps_done = sampler.first // batch

    def state_dict(self) -> dict[str, int]:
        return {"next_sample": self.steps_done * self._pairs}

    def load_state_dict(self, state: dict[str, int]) -> None:
        if state["next_sample"] != self.steps_done * self._pairs:
            raise ValueError(f"checkpoint is at sample {state['next_sample']}, not {self.steps_done * self._pairs}")


def _start_worker(_: int) -> None:
    """Ctrl-C reaches the whole process group: a worker must live on until the training process has saved."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def train(
    recipe: Recipe,
    out: Path,
    data: Path,
    *,
    seed: int | None = None,
    max_steps: int | None = None,
    strict: bool = False,
    resume: bool = True,
    on_progress: Progress | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Outcome:
    """Trains all stages of a recipe.

    Args:
        recipe: what to train.
        out: output folder: checkpoints/, tensorboard/, manifest.json, last.safetensors.
        data: folder of the training data.
        seed: overrides the recipe's.
        max_steps: stop after so many steps in all, earlier runs and stages counted; the schedule stays as it is.
        strict: stop at the first damaged file instead of skipping and counting it.
        resume: go on with the run in `out`; otherwise what is there is deleted.
        on_progress: called with (what goes on, done, in all, note).
        on_note: called with what was decided on the user's behalf, one sentence each.

    Raises:
        ValueError: bad recipe, data, or a run in `out` that does not fit; the message names the remedy.
    """
    # Crops are small: threads only compete with the network. And a worker that is forked while OpenCV keeps a pool of
    # threads would wait for them for ever.
    cv2.setNumThreads(1)
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"--max-steps must be at least 1, got {max_steps}")
    for stage in recipe.stages:
        stage_config(stage, data)  # a fault in a late stage must show now, not after hours
    recipe, changed = fit_to_data(recipe, data)
    seed = recipe.seed if seed is None else seed
    note = on_note or (lambda _: None)
    if changed:
        note(changed)
    report = on_progress or (lambda *_: None)
    out.mkdir(parents=True, exist_ok=True)
    if not resume:
        _clear(out)
    skip_log = out / "skipped.txt"
    sources = open_sources(recipe, data, out, report)
    _tell_problems(problems(sources), skip_log, strict=strict)
    files = digests(sorted({p for s, _ in sources for p in s.files()}), data, out)
    start_manifest(out / "manifest.json", recipe, seed, files, resume=resume)
    steps: dict[str, int] = {}
    state: dict[str, torch.Tensor] = {}
    left = max_steps
    stopped: int | None = None
    skipped_steps = 0
    for number, stage in enumerate(recipe.stages):
        # Every stage sees other samples; the stage's place in the recipe decides which.
        dataset = PairDataset(
            sources,
            size=recipe.data.size,
            max_points=recipe.data.max_points,
            seed=seed * 1000 + number,
            photometric=recipe.data.photometric,
            strict=strict,
            skip_log=skip_log,
            dense=recipe.data.dense,
        )
        run = _StageRun(recipe, stage, number, seed, out, data, dataset, state, left, report)
        run.fit()
        steps[stage.stage], stopped = run.steps, run.stopped
        skipped_steps += run.skipped_steps
        left = None if left is None else left - run.steps
        if run.steps < stage.max_steps:
            break
        state = state | read_weights(run.weights)
        if left is not None and left <= 0:
            break
    skipped = Counter(skip_log.read_text(encoding="utf-8").splitlines()) if skip_log.exists() else Counter()
    finish_manifest(out / "manifest.json", steps, skipped)
    finished = all(steps.get(s.stage, 0) >= s.max_steps for s in recipe.stages)
    return Outcome(steps, finished, stopped, skipped, skipped_steps, out / "last.safetensors")


def _clear(out: Path) -> None:
    """Removes an earlier run's files; rendered scenes stay, they depend on their own settings only."""
    for folder in ("checkpoints", "tensorboard"):
        shutil.rmtree(out / folder, ignore_errors=True)
    for name in ("manifest.json", "last.safetensors", "skipped.txt"):
        (out / name).unlink(missing_ok=True)


def _tell_problems(found: list[str], skip_log: Path, *, strict: bool) -> None:
    """Data that could not be used at opening: counted once a run, or an error."""
    if found and strict:
        raise TrainingDataError(found[0])
    told = set(skip_log.read_text(encoding="utf-8").splitlines()) if skip_log.exists() else set()
    new = [line for line in (" ".join(problem.split()) for problem in found) if line not in told]
    if new:
        with skip_log.open("a", encoding="utf-8") as stream:
            stream.writelines(line + "\n" for line in new)


class _StageRun:
    """One stage, from its checkpoint or from the start."""

    def __init__(
        self,
        recipe: Recipe,
        stage: StageRecipe,
        number: int,
        seed: int,
        out: Path,
        data: Path,
        dataset: PairDataset,
        before: dict[str, torch.Tensor],
        left: int | None,
        report: Progress,
    ) -> None:
        self._recipe, self._stage, self._seed = recipe, stage, seed * 1000 + number
        self._out, self._data, self._dataset, self._before = out, data, dataset, before
        self._report = report
        self.checkpoint = out / "checkpoints" / f"{stage.stage}.ckpt"
        self.weights = out / "checkpoints" / f"{stage.stage}.safetensors"
        self.limit = stage.max_steps if left is None else min(stage.max_steps, left)
        self.steps = 0
        self.stopped: int | None = None
        self.skipped_steps = 0

    def fit(self) -> None:
        """Trains up to the limit; sets `steps`, `stopped`, `skipped_steps`."""
        resumed = read_checkpoint(self.checkpoint) if self.checkpoint.exists() else None
        self.steps = int(resumed["global_step"]) if resumed is not None else 0
        if self.steps >= self.limit:
            return
        lightning.seed_everything(self._seed, verbose=False)
        module = build_stage(self._stage, self._data)
        start_from: Any = getattr(module, "start_from", None)
        if self._before and start_from is not None:
            start_from(self._before)
        pairs = self._stage.batch_pairs or self._recipe.data.batch_pairs
        sampler = StepSampler(self.steps * pairs, self._stage.max_steps * pairs)
        make_dataset: Any = getattr(module, "make_dataset", None)
        dataset = self._dataset
        if make_dataset is not None:
            self._report(self._stage.stage, self.steps, self._stage.max_steps, "preparing samples")
            dataset = make_dataset(dataset.weighted_sources(), self._out, self._recipe.data.photometric)
        loader = ResumableLoader(dataset, pairs, sampler, self._recipe.data.workers)
        guard, stop = NanGuard(), StopOnSignal()
        callbacks = [
            RandomState(),
            Position(loader),
            guard,
            stop,
            Reporter(self._on_step(pairs)),
            Checkpoints(
                self.checkpoint, self._recipe.checkpoint_every, self._on_saved
            ),  # the last: saves what is above
        ]
        checkpoint = self.checkpoint if resumed is not None else None
        with stop, warnings.catch_warnings():
            # Hints for other uses of the trainer: more workers, a log interval, a resumable loader (ours is).
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            trainer = self._trainer(callbacks)
            try:
                trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
            except TrainingDataError as error:
                # From a worker process the message comes wrapped in a traceback; its last line is the message.
                last = str(error).strip().splitlines()[-1]
                raise TrainingDataError(last.split("TrainingDataError: ")[-1]) from error
        self.steps, self.stopped, self.skipped_steps = trainer.global_step, stop.received, guard.skipped_steps

    def _trainer(self, callbacks: list[Any]) -> lightning.Trainer:
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        return lightning.Trainer(
            accelerator="auto",
            devices=1,
            max_steps=self.limit,
            max_epochs=-1,
            min_epochs=0,
            gradient_clip_val=self._stage.gradient_clip,
            callbacks=callbacks,
            logger=TensorBoardLogger(self._out / "tensorboard", name=self._stage.stage, version=""),
            log_every_n_steps=10,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )

    def _on_step(self, pairs: int) -> Callable[[int, float], None]:
        clock = {"time": time.monotonic(), "step": self.steps}

        def tell(step: int, loss: float) -> None:
            rate = (step - clock["step"]) * pairs / max(time.monotonic() - clock["time"], 1e-9)
            self._report(self._stage.stage, step, self._stage.max_steps, f"loss {loss:.4f}, {rate:.1f} pairs/s")

        return tell

    def _on_saved(self, module: lightning.LightningModule, step: int) -> None:
        state = exported_state(module)
        write_weights(self.weights, state, self._metadata(step))
        write_weights(self._out / "last.safetensors", self._before | state, self._metadata(step))

    def _metadata(self, step: int) -> dict[str, str]:
        recipe = self._recipe
        return {
            "matcher": recipe.matcher,
            "recipe": recipe.name,
            "recipe_sha256": fingerprint(recipe.model_dump(mode="json")),
            "stage": self._stage.stage,
            "step": str(step),
            "seed": str(self._seed // 1000),
            "densematch": __version__,
        }
