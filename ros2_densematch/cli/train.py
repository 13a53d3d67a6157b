"""`densematch train`: trains a matcher from a recipe; a stopped run goes on where it stopped."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from ros2_densematch.cli.errors import DONE
from ros2_densematch.cli.options import OutOption, say
from ros2_densematch.cli.progress import Counter, progress_counter


def command(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE", help="Training recipe: a file, or the name of a shipped one (for example condl)."
        ),
    ],
    *,
    out: OutOption = Path("densematch-train"),
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="Folder of the training data, or one recording (default: data in $DENSEMATCH_DATA)."
        ),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option("--max-steps", min=1, help="Stop after this many steps in total; the schedule is not changed."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Overrides the recipe's seed.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first damaged file.")] = False,
    no_resume: Annotated[bool, typer.Option("--no-resume", help="Delete the run in --out and start again.")] = False,
) -> int:
    """Train a matcher from a recipe; goes on with the run in --out where there is one."""
    from ros2_densematch.training.recipe import load_recipe

    recipe = load_recipe(config)  # before the slow imports: a mistake in the recipe shows at once
    from ros2_densematch.training.run.processes import Processes
    from ros2_densematch.training.run.trainer import train

    primary = Processes.from_environment().primary
    with ExitStack() as stack:
        bar = _Bar(stack)
        outcome = train(
            recipe,
            out,
            data or _default_data(),
            seed=seed,
            max_steps=max_steps,
            strict=strict,
            resume=not no_resume,
            on_progress=bar.show,
            on_note=say,
        )
    if not primary:  # of several processes one speaks
        return DONE if outcome.signal is None else 128 + outcome.signal
    done = ", ".join(f"{name} {steps} steps" for name, steps in outcome.steps.items())
    if outcome.skipped:
        message, times = outcome.skipped.most_common(1)[0]
        say(f"{sum(outcome.skipped.values())} samples skipped for damaged data, most often ({times}): {message}")
    if outcome.skipped_steps:
        say(f"{outcome.skipped_steps} steps skipped because their gradient was not finite")
    if outcome.signal is not None:
        say(f"stopped by a signal; run the same command to resume ({done})")
        return 128 + outcome.signal
    state = "finished" if outcome.finished else "stopped at --max-steps; run the same command without it to continue"
    print(f"{state}: {done}; weights in {outcome.weights}")
    return DONE


class _Bar:
    """One progress bar for each thing that goes on, in turn."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._what = ""
        self._counter: Counter | None = None

    def show(self, what: str, done: int, total: int, note: str) -> None:
        if self._counter is None or what != self._what:
            self._stack.close()
            unit = {"render": "group", "label": "pair"}.get(what, "step")
            self._counter = self._stack.enter_context(progress_counter(f"training: {what}", total, unit))
            self._what = what
            if done > 1:
                self._counter.start_at(done - 1)
        while self._counter.done < done:
            self._counter.advance(note)


def _default_data() -> Path:
    """`data` in the folder that DENSEMATCH_DATA names, default ../shared."""
    return Path(os.environ.get("DENSEMATCH_DATA", "../shared")) / "data"
