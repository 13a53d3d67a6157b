"""`densematch batch`: many recordings replayed and scored, on this machine or on a Ray cluster, into one summary."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ros2_densematch.cli.errors import BAD_INPUT, DONE, INTERRUPTED, InputError
from ros2_densematch.cli.interrupt import stop_request
from ros2_densematch.cli.options import ConfigOption, MatcherOption, OutOption, PresetOption, output_folder, say
from ros2_densematch.cli.progress import progress_counter

if TYPE_CHECKING:
    from ros2_densematch.evaluation.fleet.job import RecordingOutcome

BATCH = "batch.json"


def command(
    source: Annotated[
        Path, typer.Argument(metavar="DIR_OR_LIST", help="Folder of recordings, or a file with one path per line.")
    ],
    *,
    out: OutOption = Path("densematch-batch"),
    config: ConfigOption = None,
    matcher: MatcherOption = None,
    preset: PresetOption = None,
    ground_truth_topic: Annotated[
        str | None,
        typer.Option(
            "--ground-truth-topic", help="Ground-truth poses (default: a topic with a name such as ground_truth)."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Number of recordings processed in parallel (default: one per core)."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", help="Address of a Ray cluster; auto finds it (default: only this machine)."),
    ] = None,
    serial: Annotated[
        bool, typer.Option("--serial", help="Process recordings one after the other, without Ray.")
    ] = False,
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", min=0.1, help="Time limit per recording in seconds.")
    ] = None,
    memory_limit: Annotated[
        float | None, typer.Option("--memory-limit", min=1, help="Memory limit per recording in MiB (Linux).")
    ] = None,
    no_resume: Annotated[bool, typer.Option("--no-resume", help="Delete the batch in --out and start again.")] = False,
) -> int:
    """Replay and score many recordings; resumes, names what failed, and lists the worst first."""
    from ros2_densematch.evaluation.fleet.job import Limits, read_outcome
    from ros2_densematch.evaluation.fleet.recordings import find_recordings
    from ros2_densematch.evaluation.fleet.schedule import run_on_ray, run_serially
    from ros2_densematch.evaluation.fleet.summary import REPORT, write_summary

    recordings = find_recordings(source)
    arguments = _arguments(config, matcher, preset, ground_truth_topic)
    settings = _settings(config, matcher, preset, ground_truth_topic, time_limit, memory_limit)
    folder = output_folder(out)
    _claim(folder, settings, {r.name for r in recordings}, resume=not no_resume)
    outcomes: dict[str, RecordingOutcome] = {}
    for recording in recordings:
        earlier = read_outcome(folder, recording)
        if earlier is not None and earlier.done:
            outcomes[recording.name] = earlier
    left = [r for r in recordings if r.name not in outcomes]
    if outcomes:
        say(f"{len(outcomes)} of {len(recordings)} recordings are already done: running the other {len(left)}")
    limits = Limits(time_limit, memory_limit)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_request())
        counter = stack.enter_context(progress_counter("batch", len(recordings), "recording"))
        counter.start_at(len(outcomes))
        if serial or not left:
            running = run_serially(left, folder, arguments, limits, lambda: bool(stop))
        else:
            running = run_on_ray(left, folder, arguments, limits, lambda: bool(stop), workers=workers, address=address)
        for outcome in running:
            outcomes[outcome.name] = outcome
            counter.advance(f"{outcome.name}: {outcome.reason or 'done'}")
            if not outcome.done:
                say(f"{outcome.name} failed: {outcome.reason}")
    summary = write_summary(folder, recordings, list(outcomes.values()), settings)
    print(f"{summary['done']} of {summary['recordings']} recordings done, {summary['failed']} failed")
    for row in summary["rows"]:
        if row["status"] == "failed":
            print(f"  {row['name']}: {row['reason']}")
    print(f"report: {folder / REPORT}")
    if stop:
        return INTERRUPTED
    return DONE if summary["done"] == summary["recordings"] else BAD_INPUT


def _arguments(config: Path | None, matcher: str | None, preset: str | None, truth: str | None) -> list[str]:
    """Options of `densematch replay` for every recording."""
    if config is not None and not config.is_file():
        raise FileNotFoundError(f"there is no configuration file {config}: check --config")
    given = {
        "--config": None if config is None else str(config.resolve()),
        "--matcher": matcher,
        "--preset": preset,
        "--ground-truth-topic": truth,
    }
    return [word for key, value in given.items() if value is not None for word in (key, value)]


def _settings(
    config: Path | None,
    matcher: str | None,
    preset: str | None,
    truth: str | None,
    time_limit: float | None,
    memory_limit: float | None,
) -> dict[str, Any]:
    """What the results depend on; the configuration by its content, so that it may lie elsewhere."""
    import hashlib

    from ros2_densematch import __version__

    content = "built-in" if config is None else hashlib.sha256(config.read_bytes()).hexdigest()[:16]
    return {
        "version": __version__,
        "configuration": content,
        "matcher": matcher or "of the configuration",
        "preset": preset or "of the configuration",
        "ground_truth_topic": truth or "found by name",
        "time_limit_s": time_limit,
        "memory_limit_mb": memory_limit,
    }


def _claim(folder: Path, settings: dict[str, Any], names: set[str], *, resume: bool) -> None:
    """Notes the settings in the folder, or refuses one that holds results under others. Limits may change.

    What an earlier run left is removed: its summary, which is not that of what the folder holds from now on, and
    recordings that are not among `names`; without `resume` all.
    """
    from ros2_densematch.evaluation.fleet.job import forget, known_names
    from ros2_densematch.evaluation.fleet.summary import FILES
    from ros2_densematch.files.atomic import remove_parts, write_text
    from ros2_densematch.files.results_folder import holds_run, refuse_foreign, refuse_other_runs, remove

    file = folder / BATCH
    refuse_other_runs(folder, BATCH)
    if file.exists():
        if resume or not holds_run(folder, BATCH):
            _refuse_other(file, settings)
        gone = sorted(known_names(folder) - (names if resume else set()))
        if gone and resume:
            say(f"removing the results of {len(gone)} recordings that are no longer listed: {', '.join(gone)}")
        for name in gone:
            forget(folder, name)
        for name in FILES:
            remove(folder / name)
    else:
        for name in (*FILES, "outcomes", "recordings", "running"):
            refuse_foreign(folder / name, ours=False, writer="a batch")
    remove_parts(folder, older_than_s=600.0)  # another machine of the cluster may write
    write_text(file, json.dumps(settings, indent=1) + "\n")


def _refuse_other(file: Path, settings: dict[str, Any]) -> None:
    limits = ("time_limit_s", "memory_limit_mb")
    try:
        found = json.loads(file.read_text("utf-8"))
        other = [k for k in settings if k not in limits and found.get(k) != settings[k]]
    except (ValueError, AttributeError) as error:
        raise InputError(f"{file} is damaged ({error}): choose another --out, or remove the folder") from error
    if other:
        words = "; ".join(f"{k} {found.get(k)}, not {settings[k]}" for k in other)
        raise InputError(
            f"{file.parent} holds a batch with {words}: choose another --out, or start again with --no-resume"
        )
