"""One stage of a run: from its checkpoint or from the start, up to its limit."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch.utils.data import Dataset

from ros2_densematch import __version__
from ros2_densematch.files.atomic import write_text
from ros2_densematch.training.data.dataset import PairDataset
from ros2_densematch.training.data.source import Progress
from ros2_densematch.training.fingerprint import fingerprint
from ros2_densematch.training.images import TrainingDataError
from ros2_densematch.training.recipe import Recipe, StageRecipe
from ros2_densematch.training.run.callbacks import (
    Checkpoints,
    NanGuard,
    Position,
    RandomState,
    Reporter,
    StopOnSignal,
    Validation,
)
from ros2_densematch.training.run.files import read_checkpoint, read_metadata, write_weights
from ros2_densematch.training.run.loader import Batches, ResumableLoader, StepSampler
from ros2_densematch.training.run.processes import Processes
from ros2_densematch.training.run.validation import ValidationPair, measure
from ros2_densematch.training.stages.base import Stage, exported_state
from ros2_densematch.training.stages.registry import build_stage


@dataclass(frozen=True)
class Run:
    """What all stages of a run share.

    Attributes:
        recipe, seed: what is trained.
        out, data: folders.
        processes: that train together.
        validation: pairs that are measured; empty = none.
        report: told about progress.
        note: told about what cannot be done.
    """

    recipe: Recipe
    seed: int
    out: Path
    data: Path
    processes: Processes
    validation: Sequence[ValidationPair]
    report: Progress
    note: Callable[[str], None]


class StageRun:
    """One stage.

    Attributes:
        steps: steps done, those of earlier runs included.
        stopped: number of the signal that stopped it, or None.
        skipped_steps: steps left out by the guard against NaN.
        weights: file of what the stage exports.
    """

    def __init__(
        self,
        run: Run,
        stage: StageRecipe,
        number: int,
        dataset: PairDataset,
        before: dict[str, torch.Tensor],
        left: int | None,
    ) -> None:
        """
        Args:
            run: what all stages share.
            stage: which one.
            number: its place in the recipe.
            dataset: its samples, unless it makes its own.
            before: what the stages before it exported.
            left: steps that --max-steps leaves, or None.
        """
        self._run, self._stage, self._seed = run, stage, run.seed * 1000 + number
        self._dataset, self._before = dataset, before
        folder = run.out / "checkpoints"
        self.checkpoint, self.weights = folder / f"{stage.stage}.ckpt", folder / f"{stage.stage}.safetensors"
        self.limit = stage.max_steps if left is None else min(stage.max_steps, left)
        self.steps = 0
        self.stopped: int | None = None
        self.skipped_steps = 0
        self._measures = bool(run.validation)

    def fit(self) -> None:
        """Trains up to the limit; sets `steps`, `stopped`, `skipped_steps`."""
        run, stage, processes = self._run, self._stage, self._run.processes
        resumed = read_checkpoint(self.checkpoint) if self.checkpoint.exists() else None
        self.steps = int(resumed["global_step"]) if resumed is not None else 0
        if self.steps >= self.limit:
            if resumed is not None and processes.primary:
                self._complete_weights(resumed)
            return
        lightning.seed_everything(self._seed, verbose=False)
        module = build_stage(stage, run.data)
        if self._before:
            module.start_from(self._before)
        pairs = stage.batch_pairs or run.recipe.data.batch_pairs
        batches = Batches(pairs, stage.accumulate, processes.rank, processes.world)
        dataset = self._samples(module)
        if not processes.primary:
            lightning.seed_everything(self._seed + 1_000_003 * processes.rank, verbose=False)
        loader = ResumableLoader(dataset, StepSampler(batches, self.steps, stage.max_steps), run.recipe.data.workers)
        guard, stop = NanGuard(), StopOnSignal(processes)
        callbacks = [
            RandomState(processes),
            Position(loader),
            guard,
            stop,
            Reporter(self._on_step(pairs)),
            Checkpoints(self.checkpoint, run.recipe.checkpoint_every, self._on_saved),  # saves what is above
        ]
        if run.recipe.validation is not None and self._measures:
            callbacks.append(Validation(run.recipe.validation.every, stage.max_steps, self._validate))
        checkpoint = self.checkpoint if resumed is not None else None
        processes.wait()  # all have read the checkpoint before the first one replaces it
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

    def _samples(self, module: Stage) -> Dataset[Any]:
        """The samples that the stage makes of the sources, or else the crops."""
        run, own = self._run, None
        run.report(self._stage.stage, self.steps, self.limit, "preparing samples")
        for turn in (True, False):  # what the first process makes, the others find
            if run.processes.primary == turn:
                own = module.make_dataset(self._dataset.weighted_sources(), run.out, run.recipe.data.photometric)
            run.processes.wait()
        return self._dataset if own is None else own

    def _trainer(self, callbacks: list[Any]) -> lightning.Trainer:
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        stage, processes = self._stage, self._run.processes
        if stage.precision == "16-mixed" and not torch.cuda.is_available():
            raise ValueError(
                f"stage {stage.stage}: precision 16-mixed needs a CUDA device, and there is none: use bf16-mixed or 32"
            )
        strategy: str | Strategy = "auto"
        if processes.world > 1:
            strategy = DDPStrategy(find_unused_parameters=True)
        return lightning.Trainer(
            accelerator="auto",
            devices=processes.local,
            num_nodes=processes.world // processes.local,
            strategy=strategy,
            use_distributed_sampler=False,  # ours shares the samples out
            precision="32-true" if stage.precision == "32" else stage.precision,
            accumulate_grad_batches=stage.accumulate,
            max_steps=self.limit,
            max_epochs=-1,
            min_epochs=0,
            gradient_clip_val=stage.gradient_clip,
            callbacks=callbacks,
            logger=TensorBoardLogger(self._run.out / "tensorboard", name=stage.stage, version=""),
            log_every_n_steps=10,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )

    def _on_step(self, pairs: int) -> Callable[[int, float], None]:
        clock = {"time": time.monotonic(), "step": self.steps}

        def tell(step: int, loss: float) -> None:
            rate = (step - clock["step"]) * pairs / max(time.monotonic() - clock["time"], 1e-9)
            self._run.report(self._stage.stage, step, self.limit, f"loss {loss:.4f}, {rate:.1f} pairs/s")

        return tell

    def _on_saved(self, module: lightning.LightningModule, step: int) -> None:
        assert isinstance(module, Stage)
        state = exported_state(module)
        write_weights(self.weights, state, self._metadata(module, step))
        write_weights(self._run.out / "last.safetensors", self._before | state, self._metadata(module, step))

    def _complete_weights(self, checkpoint: dict[str, Any]) -> None:
        """A run that was killed after its last checkpoint, before its weights were written, left those of an earlier
        step; those of a later stage are left alone."""
        own, last = read_metadata(self.weights), read_metadata(self._run.out / "last.safetensors")
        here = self._stage.stage, str(self.steps)
        done = (own.get("stage"), own.get("step")) == here
        if done and last and (last.get("stage") != here[0] or last.get("step") == here[1]):
            return
        module = build_stage(self._stage, self._run.data)
        if self._before:
            module.start_from(self._before)
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"])
        self._on_saved(module, self.steps)

    def _validate(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Measures the weights as they are: curves and pictures for TensorBoard, figures in validation.json."""
        assert isinstance(module, Stage)
        settings = self._run.recipe.validation
        if settings is None or not self._measures:
            return
        step = trainer.global_step
        file = self._run.out / "checkpoints" / ".validation.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_weights(file, self._before | exported_state(module), self._metadata(module, step))
        try:
            measured = measure(self._run.recipe.matcher, file, self._run.validation, settings)
        except (ValueError, FileNotFoundError) as error:
            # Weights of a first stage may not make a matcher yet; training goes on without figures.
            self._measures = False
            self._run.note(f"no validation in stage {self._stage.stage}: {error}")
            return
        finally:
            file.unlink(missing_ok=True)
        if isinstance(trainer.logger, TensorBoardLogger):
            board = trainer.logger.experiment
            for name, value in measured.values.items():
                board.add_scalar(f"validation/{name}", value, step)
            for k, picture in enumerate(measured.pictures):
                board.add_image(f"matches/{k}", picture, step, dataformats="HWC")
        path = self._run.out / "validation.json"
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        content.setdefault(self._stage.stage, {})[str(step)] = {k: round(v, 4) for k, v in measured.values.items()}
        write_text(path, json.dumps(content, indent=1), durable=True)
        figures = ", ".join(f"{k} {v:.3g}" for k, v in measured.values.items())
        self._run.note(f"{self._stage.stage} step {step}, {len(self._run.validation)} held-out pairs: {figures}")

    def _metadata(self, module: Stage, step: int) -> dict[str, str]:
        recipe = self._run.recipe
        return {
            "matcher": recipe.matcher,
            "recipe": recipe.name,
            "recipe_sha256": fingerprint(recipe.model_dump(mode="json")),
            "stage": self._stage.stage,
            "step": str(step),
            "seed": str(self._run.seed),
            "densematch": __version__,
            **module.metadata(),
        }
