"""What happens around each training step: random state, position, checkpoints, guard against NaN, signals, progress."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from ros2_densematch.files.atomic import replacing
from ros2_densematch.training.run.processes import Processes

MAX_BAD_STEPS = 10


class TrainingDiverged(ValueError):
    """The loss or its gradient is not finite, step after step."""


def step_is_done(trainer: lightning.Trainer, batch_idx: int) -> bool:
    """Whether the optimiser's step followed this batch (it does not in the middle of an accumulation)."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0


class RandomState(Callback):
    """Keeps Python's, NumPy's and torch's random state in the checkpoint and restores it before the next step.

    It is restored at the first batch rather than at loading, because building loaders and loggers draws numbers too.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._restored: dict[str, Any] | None = None

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002  (others may draw from it)
        checkpoint["random_state"] = {
            "python": random.getstate(),
            "numpy": (name, np.asarray(keys).tolist(), int(position), int(has_gauss), float(gauss)),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        others = self._processes.gathered(checkpoint["random_state"])[1:]
        if others:
            checkpoint["random_state_of_others"] = others

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        states = [checkpoint["random_state"], *checkpoint.get("random_state_of_others", [])]
        # With another number of processes there is no such thing as going on to the bit: each keeps its own start.
        self._restored = states[self._processes.rank] if len(states) == self._processes.world else None

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._restored is None:
            return
        state, self._restored = self._restored, None
        version, internal, gauss = state["python"]
        random.setstate((version, tuple(internal), gauss))
        name, keys, position, has_gauss, cached = state["numpy"]
        np.random.set_state((name, np.array(keys, np.uint32), position, has_gauss, cached))  # noqa: NPY002
        torch.set_rng_state(state["torch"])
        if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
            torch.cuda.set_rng_state_all(state["cuda"])


class Checkpoints(Callback):
    """Saves the whole training state every few steps and at the end, atomically, and tells `on_saved`."""

    def __init__(
        self,
        path: Path,
        every: int,
        on_saved: Callable[[lightning.LightningModule, int], None],
    ) -> None:
        self._path, self._every, self._on_saved = path, every, on_saved
        self._saved_at = -1

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not step_is_done(trainer, batch_idx):
            return
        if trainer.global_step % self._every == 0 or trainer.should_stop or trainer.global_step >= trainer.max_steps:
            self.save(trainer, pl_module)

    def save(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if trainer.global_step == self._saved_at:
            return
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise TrainingDiverged(
                    f"{name} is not finite at step {trainer.global_step}: {self._path} was left at the last good step; "
                    "lower the learning rate and start again with --no-resume"
                )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._saved_at = trainer.global_step
        if not trainer.is_global_zero:
            trainer.save_checkpoint(self._path)  # takes part in gathering the state; only the first process writes
            return
        with replacing(self._path, durable=True) as temporary:
            trainer.save_checkpoint(temporary)
        self._on_saved(module, trainer.global_step)


class NanGuard(Callback):
    """Leaves out a step whose gradient is not finite; ends training when that happens many times in a row."""

    def __init__(self) -> None:
        self.skipped_steps = 0
        self._in_a_row = 0

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        if not gradients:
            return
        if torch.isfinite(torch.stack(torch._foreach_norm(gradients))).all():
            self._in_a_row = 0
            return
        self.skipped_steps += 1
        self._in_a_row += 1
        # Without gradients the optimiser leaves parameters and its own state alone.
        for parameter in pl_module.parameters():
            parameter.grad = None
        # In half precision the loss scale starts high and halves with each overflow.
        most = MAX_BAD_STEPS + (20 if trainer.precision == "16-mixed" else 0)
        if self._in_a_row >= most:
            raise TrainingDiverged(
                f"the gradient was not finite in {most} steps in a row, up to step {trainer.global_step}: "
                "lower the learning rate and start again with --no-resume"
            )


class StopOnSignal(Callback):
    """SIGTERM and Ctrl-C let the step end, so that the checkpoint after it is whole; a second Ctrl-C ends at once.

    A context manager: on leaving it the handlers of before come back.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopOnSignal:
        self._before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # Here and not in __enter__: the trainer installs handlers of its own before training starts.
        if threading.current_thread() is threading.main_thread():
            for number in self._before:
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Between the parts of a step a checkpoint would lose the gradient so far.
        if step_is_done(trainer, batch_idx) and self._processes.any(self.received is not None):
            if self.received is None:
                self.received = signal.SIGTERM  # another process got it
            trainer.should_stop = True


class Reporter(Callback):
    """Tells `on_step` the step and its loss."""

    def __init__(self, on_step: Callable[[int, float], None]) -> None:
        self._on_step = on_step
        self._loss = 0.0

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        # Lightning has divided it by the number of parts of the step.
        self._loss += float("nan") if loss is None else float(loss)
        if step_is_done(trainer, batch_idx):
            self._on_step(trainer.global_step, self._loss)
            self._loss = 0.0


class Validation(Callback):
    """Tells `measure` when it is time: every few steps and at the end of the stage, after the checkpoint."""

    def __init__(self, every: int, last: int, measure: Callable[[lightning.Trainer, lightning.LightningModule], None]):
        self._every, self._last, self._measure = every, last, measure

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = trainer.global_step % self._every == 0 or trainer.global_step == self._last
        if due and trainer.is_global_zero and step_is_done(trainer, batch_idx):
            self._measure(trainer, pl_module)


class Position(Callback):
    """Keeps the loader's position equal to what has been trained on, whatever was fetched ahead."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._loader.steps_done = trainer.global_step
