"""One evaluation from the command line: data, entries, both stages, the files, and what is said about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from ros2_densematch.cli.errors import BAD_INPUT, DONE, INTERRUPTED, InputError
from ros2_densematch.cli.interrupt import stop_request
from ros2_densematch.cli.options import matcher_named_in, output_folder, say
from ros2_densematch.cli.progress import progress_counter
from ros2_densematch.evaluation.comparison.json_form import write_scores
from ros2_densematch.evaluation.comparison.markdown import write_markdown
from ros2_densematch.evaluation.comparison.page import write_page
from ros2_densematch.evaluation.comparison.run import (
    REPORT,
    SCORES,
    Evaluation,
    drop_results,
    export_all,
    open_folder,
    score_all,
)
from ros2_densematch.evaluation.comparison.tables import Table, sweep_tables, tables
from ros2_densematch.evaluation.comparison.worst_pairs import ShownPair, worst_pairs
from ros2_densematch.evaluation.datasets.base import Dataset, Task
from ros2_densematch.evaluation.datasets.catalogue import KNOWN, TRAJECTORIES, layouts, open_dataset
from ros2_densematch.evaluation.peers.registry import CLASSICAL, PEERS, available
from ros2_densematch.evaluation.predictions.entries import Entry, entry_of
from ros2_densematch.evaluation.predictions.export import Exported
from ros2_densematch.evaluation.protocols import ImageRule, Protocol, with_estimators
from ros2_densematch.evaluation.protocols import protocol as protocol_of
from ros2_densematch.matchers.base import Matcher

TASKS = ("pose", "homography", "dense")
TRAJECTORY = "trajectory"


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for; the fields are its options."""

    task: str
    data: str
    folder: Path | None
    out: Path
    entries: tuple[str, ...]
    device: str | None
    weights: Path | None
    protocol: str
    estimator: str | None
    threshold: str | None
    resume: bool = True


def spec_of(matcher: str | None, preset: str | None, weights: Path | None) -> str:
    """MATCHER[:PRESET] from the options; a weights file names its matcher."""
    name = matcher or (matcher_named_in(weights) if weights is not None else "gcm")
    return f"{name}:{preset}" if preset else name


def task_of(data: str, folder: Path | None) -> str:
    """The task of a short name, or of the layout that a folder has.

    Raises:
        InputError: no layout fits, or those of several tasks do.
    """
    if data in KNOWN:
        return KNOWN[data].task
    if data in TRAJECTORIES:
        return TRAJECTORY
    path = folder or Path(data)
    fitting = [task for task in TASKS if any(layout.recognises(path) for layout in layouts(cast(Task, task)))]
    if len(fitting) != 1:
        found = "no known layout" if not fitting else f"layouts of {' and '.join(fitting)}"
        raise InputError(f"{path} has {found}: add --task pose, homography, dense or trajectory")
    return fitting[0]


def with_peers(entries: Sequence[str], peers: str) -> tuple[str, ...]:
    """The entries, and the peers that stand beside them.

    Raises:
        InputError: `peers` is none of opencv, all, none.
    """
    choices = {"none": (), "opencv": CLASSICAL, "all": tuple(name for name in PEERS if available(name))}
    if peers not in choices:
        raise InputError(f"--peers {peers!r} is not known: choose opencv, all or none")
    ours = list(dict.fromkeys(entries))
    beside = [p for p in choices[peers] if p not in ours and not (p == "opencv-sift" and "sift" in ours)]
    return (*ours, *beside)


def evaluate(wanted: Wanted) -> int:
    """Runs both stages and writes the reports; the exit code."""
    if wanted.task not in TASKS:
        raise InputError(f"--task {wanted.task!r} is not known: choose {', '.join(TASKS)}")
    dataset = open_dataset(cast(Task, wanted.task), wanted.data, wanted.folder)
    protocol = protocol_of(wanted.protocol, dataset.name, dataset.longer_side)
    protocol = with_estimators(protocol, wanted.estimator, wanted.threshold)
    entries = [entry_named(word, wanted.device, wanted.weights) for word in wanted.entries]
    out = output_folder(wanted.out)
    source = {
        "name": wanted.data,
        "folder": None if wanted.folder is None else str(wanted.folder.resolve()),
        "path": str(dataset.folder.resolve()),
    }
    open_folder(out, dataset, protocol, entries, source, resume=wanted.resume)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_request())
        counter = stack.enter_context(progress_counter("match", len(dataset.pairs) * len(entries), "pair"))
        done = export_all(out, dataset, protocol, entries, advance=counter.advance, stop=lambda: bool(stop))
        if stop:
            say_stopped(done, out)
            return INTERRUPTED
    for name, exported in done.items():
        say_exported(name, exported, "pair")
    return _score(out, dataset, protocol, entries)


def score_again(out: Path, content: dict[str, Any], name: str, estimator: str | None, threshold: str | None) -> int:
    """Stage 2 alone, on what a folder of pairs holds; the exit code.

    Args:
        out: the folder.
        content: its `claimed` settings.
        name, estimator, threshold: as on the command line.
    """
    data = content["data"]
    known = data.get("name") in KNOWN
    folder = Path(data["path"])
    dataset = open_dataset(data["task"], data["name"] if known else str(folder), folder if known else None)
    if dataset.fingerprint() != data["fingerprint"]:
        raise InputError(
            f"the data in {folder} changed since {out} was made: run the evaluation again with another --out"
        )
    protocol = protocol_of(name, dataset.name, dataset.longer_side)
    if protocol.export_settings() != content["export"]:
        if name != "default":
            raise InputError(
                f"{out} was made with {content['export']}, but protocol {name} asks for "
                f"{protocol.export_settings()}: run the evaluation again with --protocol {name}"
            )
        images = content["export"]["images"]
        exact = images["exact_size"]
        rule = ImageRule(**{**images, "exact_size": None if exact is None else tuple(exact)})
        protocol = replace(protocol, images=rule, max_matches=content["export"]["max_matches"])
    protocol = with_estimators(protocol, estimator, threshold)
    return _score(out, dataset, protocol, stored_entries(content))


def stored_entries(content: dict[str, Any]) -> list[Entry]:
    """The entries whose predictions a folder holds; none of them can match."""
    found = content["entries"].items()
    return [Entry(key, facts, _no_matcher, facts["matcher"] in PEERS) for key, facts in found]


def _no_matcher() -> Matcher:
    raise RuntimeError("scoring must not run a matcher")


def entry_named(word: str, device: str | None, weights: Path | None) -> Entry:
    """The entry of a word: MATCHER[:PRESET], a peer, or a weights file."""
    if word.endswith(".safetensors"):
        file = Path(word)
        return entry_of(matcher_named_in(file), device=device or "auto", weights=file)
    return entry_of(word, device=device or "auto", weights=weights)


def _score(out: Path, dataset: Dataset, protocol: Protocol, entries: Sequence[Entry]) -> int:
    with progress_counter("score", len(entries), "matcher") as counter:
        evaluation = score_all(out, dataset, protocol, entries, advance=counter.advance)
    return write_reports(out, evaluation, worst_pairs(out, dataset, protocol, evaluation, entries))


def write_reports(out: Path, evaluation: Evaluation, shown: Sequence[ShownPair]) -> int:
    """Writes scores and pages and says what came out; the exit code."""
    drop_results(out)
    write_scores(out, evaluation)
    write_markdown(out, evaluation)
    write_page(out, evaluation, shown)
    for line in _conclusion(evaluation):
        print(line)
    print(f"{out / REPORT}, {out / SCORES}")
    return BAD_INPUT if evaluation.incomplete else DONE


def say_stopped(done: dict[str, Exported], out: Path) -> None:
    """Says what a run that was stopped leaves."""
    kept = sum(d.stored + d.matched for d in done.values())
    say(f"stopped: {kept} predictions are kept in {out}; run the same command to resume")


def say_exported(name: str, exported: Exported, unit: str) -> None:
    """Says which predictions of an entry were there already."""
    if exported.replaced:
        say(f"{name}: {exported.replaced} damaged predictions were made again")
    if exported.stored:
        say(f"{name}: {exported.stored} stored predictions used, {exported.matched} {unit}s matched now")


def _conclusion(evaluation: Evaluation) -> Iterator[str]:
    dataset = evaluation.dataset
    licence = f" ({dataset.licence}; research only)" if dataset.research_only else ""
    unit = dataset.unit
    if dataset.task == "bag":
        yield from evaluation.notes
    yield f"{dataset.name}: {dataset.counted}{licence}, protocol {evaluation.protocol.name}"
    for table in [*tables(evaluation), *sweep_tables(evaluation)]:
        yield ""
        yield f"{table.title} [{table.setting}]"
        yield from _text(table)
    for entry in evaluation.entries:
        failed, missing = entry.count("failed"), entry.count("missing")
        if failed or missing:
            yield f"{entry.name}: {failed} {unit}s failed and count as wrong, {missing} are missing and left out"
        if entry.incomplete:
            yield f"{entry.name}: INCOMPLETE, more than 1 % of the {unit}s are missing"


def _text(table: Table) -> Iterator[str]:
    rows = [("", *table.columns), *((name, *(c.text for c in cells)) for name, cells in table.rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        yield (
            "  "
            + row[0].ljust(widths[0])
            + "  "
            + "  ".join(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))
        )
