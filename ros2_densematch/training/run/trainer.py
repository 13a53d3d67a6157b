"""Runs a recipe: data, stages, checkpoints. A stopped run goes on where it stopped, to the bit on a CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch

from ros2_densematch.files.atomic import remove_parts
from ros2_densematch.files.results_folder import holds_run, read_json, refuse_foreign, refuse_other_runs, remove
from ros2_densematch.training.data.dataset import PairDataset
from ros2_densematch.training.data.recording import Recording
from ros2_densematch.training.data.sample import Part
from ros2_densematch.training.data.source import Opening, PairSource, Progress
from ros2_densematch.training.data.sources import open_sources, problems
from ros2_densematch.training.images import TrainingDataError
from ros2_densematch.training.recipe import Recipe
from ros2_densematch.training.run.files import digests, finish_manifest, read_weights, start_manifest
from ros2_densematch.training.run.fitting import fit_to_data
from ros2_densematch.training.run.processes import Processes
from ros2_densematch.training.run.stage_run import Run, StageRun
from ros2_densematch.training.run.validation import draw_validation_pairs
from ros2_densematch.training.stages.registry import stage_config

_MANIFEST = "manifest.json"
_FILES = ("checkpoints", "tensorboard", "last.safetensors", "skipped.txt", "validation.json")


@dataclass(frozen=True)
class TrainingOutcome:
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
) -> TrainingOutcome:
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
        ValueError: bad recipe, data, or a run in `out` that does not fit, or foreign files; the message names the
            remedy.
    """
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"--max-steps must be at least 1, got {max_steps}")
    recipe, changed = fit_to_data(recipe, data)
    for stage in recipe.stages:
        stage_config(stage, data)  # a fault in a late stage must show now, not after hours
    seed = recipe.seed if seed is None else seed
    with _one_opencv_thread(), Processes.from_environment() as processes:
        silent = not processes.primary
        note: Callable[[str], None] = (lambda _: None) if silent or on_note is None else on_note
        report: Progress = (lambda *_: None) if silent or on_progress is None else on_progress
        if changed:
            note(changed)
        skip_log = out / "skipped.txt"
        if processes.primary:
            out.mkdir(parents=True, exist_ok=True)
            _claim(out, resume=resume)
            recordings: dict[str, Recording] = {}
            opening = Opening(out, report, _part(recipe), dense=recipe.data.dense, recordings=recordings)
            sources = open_sources(recipe.data.sources, data, opening)
            found = problems(sources)
            if found and strict:
                raise TrainingDataError(found[0])
            held_out = _held_out(recipe, data, out, recordings)
            files = sorted({p for s, _ in [*sources, *held_out] for p in s.files()})
            start_manifest(out / _MANIFEST, recipe, seed, digests(files, data, out), resume=resume)
            _tell_problems(found, skip_log)
            processes.wait()
        else:
            processes.wait()  # for what the first one renders and matches
            opening = Opening(out, report, _part(recipe), primary=False, dense=recipe.data.dense)
            sources, held_out = open_sources(recipe.data.sources, data, opening), []
        settings = recipe.validation
        validation = draw_validation_pairs(held_out, settings, recipe.data.size, seed) if settings is not None else []
        if settings is not None and processes.primary and not validation:
            note("no validation: nothing that can be measured (photos, views with depth) is left to hold out")
        run = Run(
            recipe=recipe,
            seed=seed,
            out=out,
            data=data,
            processes=processes,
            validation=validation,
            report=report,
            note=note,
        )
        outcome = _train_stages(run, sources, skip_log, strict, max_steps)
    return outcome


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """Crops are small: threads only compete with the network. And a worker that is forked while OpenCV keeps a pool of
    threads would wait for them for ever.
    """
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _train_stages(
    run: Run, sources: Sequence[tuple[PairSource, float]], skip_log: Path, strict: bool, max_steps: int | None
) -> TrainingOutcome:
    recipe, out = run.recipe, run.out
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
            seed=run.seed * 1000 + number,
            photometric=recipe.data.photometric,
            strict=strict,
            skip_log=skip_log,
            dense=recipe.data.dense,
        )
        stage_run = StageRun(run, stage, number, dataset, state, left)
        stage_run.fit()
        run.processes.wait()  # the first one has written the weights
        steps[stage.stage], stopped = stage_run.steps, stage_run.stopped
        skipped_steps += stage_run.skipped_steps
        left = None if left is None else left - stage_run.steps
        if stage_run.steps < stage.max_steps:
            break
        state = state | read_weights(stage_run.weights)
        if left is not None and left <= 0:
            break
    skipped = Counter(skip_log.read_text(encoding="utf-8").splitlines()) if skip_log.exists() else Counter()
    if run.processes.primary:
        finish_manifest(out / _MANIFEST, steps, skipped)
    finished = all(steps.get(s.stage, 0) >= s.max_steps for s in recipe.stages)
    return TrainingOutcome(steps, finished, stopped, skipped, skipped_steps, out / "last.safetensors")


def _held_out(
    recipe: Recipe, data: Path, out: Path, recordings: dict[str, Recording]
) -> list[tuple[PairSource, float]]:
    """The part of each source that validation has to itself."""
    if recipe.validation is None:
        return []
    part, dense = _part(recipe, held_out=True), recipe.data.dense
    opening = Opening(out, lambda *_: None, part, primary=False, dense=dense, recordings=recordings)
    return open_sources(recipe.data.sources, data, opening)


def _part(recipe: Recipe, *, held_out: bool = False) -> Part:
    return Part(0.0 if recipe.validation is None else recipe.validation.share, held_out)


def _claim(out: Path, *, resume: bool) -> None:
    """Makes the folder this run's own. Without `resume` an earlier run's files are removed; rendered scenes stay, they
    depend on their own settings only.

    Raises:
        ForeignFileError: the folder holds another command's run, or files of these names that no training wrote.
    """
    refuse_other_runs(out, _MANIFEST)
    damaged = (out / _MANIFEST).is_file() and read_json(out / _MANIFEST) is None
    ours = damaged or holds_run(out, _MANIFEST)
    for name in (*_FILES, _MANIFEST):
        refuse_foreign(out / name, ours=ours, writer="a training")
    remove_parts(out)
    if not resume:
        for name in (*_FILES, _MANIFEST):  # the manifest last: by it a run that was killed here is known
            remove(out / name)


def _tell_problems(found: list[str], skip_log: Path) -> None:
    """Notes data that could not be used at opening, once a run."""
    told = set(skip_log.read_text(encoding="utf-8").splitlines()) if skip_log.exists() else set()
    new = [line for line in (" ".join(problem.split()) for problem in found) if line not in told]
    if new:
        with skip_log.open("a", encoding="utf-8") as stream:
            stream.writelines(line + "\n" for line in new)
