"""An evaluation from end to end: predictions of every entry, then scores. One folder holds one data set and one export.

```
DIR/evaluation.json          what the predictions depend on: data, size of images, entries
DIR/predictions/NAME/        stage 1: manifest.json, NNNNNN.npz a pair, NNNNNN.missing.json, cost.json
DIR/scores.json              stage 2
DIR/report.html, report.md   the same for people
```
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import Protocol as Protocol_

from ros2_densematch import __version__
from ros2_densematch.evaluation.datasets.base import Dataset
from ros2_densematch.evaluation.predictions.entries import Entry
from ros2_densematch.evaluation.predictions.export import Exported, export
from ros2_densematch.evaluation.predictions.store import PredictionStore, StoreError, read_manifest
from ros2_densematch.evaluation.protocols import Protocol
from ros2_densematch.evaluation.scores.dispatch import score_of
from ros2_densematch.evaluation.scores.figures import EntryScores
from ros2_densematch.files.atomic import remove_parts, write_text
from ros2_densematch.files.results_folder import holds_run, refuse_foreign, refuse_other_runs, remove

EVALUATION, PREDICTIONS = "evaluation.json", "predictions"
SCORES, REPORT, MARKDOWN = "scores.json", "report.html", "report.md"


class Described(Protocol_):
    """What reports and folders must know of the data, whatever it consists of."""

    @property
    def name(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def layout(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def counted(self) -> str: ...
    @property
    def licence(self) -> str: ...
    @property
    def research_only(self) -> bool: ...
    def facts(self) -> dict[str, Any]: ...
    def fingerprint(self) -> str: ...


class Rule(Protocol_):
    """What reports and folders must know of the way in which was measured."""

    @property
    def name(self) -> str: ...
    @property
    def judged_label(self) -> str: ...
    def facts(self) -> dict[str, Any]: ...
    def export_settings(self) -> dict[str, Any]: ...


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What the reports are made of.

    Attributes:
        dataset: what was evaluated on.
        protocol: how.
        entries: the scores, in the order of the table.
        notes: what a reader must know besides, one sentence each.
    """

    dataset: Described
    protocol: Rule
    entries: tuple[EntryScores, ...]
    notes: tuple[str, ...] = ()

    @property
    def incomplete(self) -> bool:
        """Whether an entry lacks so many pairs that its figures do not stand for the data set."""
        return any(entry.incomplete for entry in self.entries)


def open_folder(
    out: Path,
    dataset: Described,
    protocol: Rule,
    entries: Sequence[Entry],
    source: dict[str, Any],
    *,
    resume: bool = True,
) -> None:
    """Claims a folder for an evaluation, or recognises it as its own.

    Further entries may join a folder; other data, other image sizes or another weights file of the same name may not.
    Scores and reports of an earlier run are removed: they would not be those of what the folder holds from now on.

    Args:
        out: the folder.
        dataset, protocol, entries: what is evaluated.
        source: how the data set was named, so that it can be scored again without naming it.
        resume: go on with the evaluation in the folder; otherwise it is deleted.

    Raises:
        StoreError: the folder holds another evaluation; the message says what differs.
        ForeignFileError: it holds something else under the names of an evaluation.
    """
    refuse_other_runs(out, EVALUATION)
    if not resume and holds_run(out, EVALUATION):
        drop_results(out)
        remove(out / PREDICTIONS)
        remove(out / EVALUATION)  # last: by it a killed run is known
    wanted: dict[str, Any] = {
        "format": 1,
        "version": __version__,
        "data": {"fingerprint": dataset.fingerprint(), "layout": dataset.layout, "task": dataset.task, **source},
        "export": protocol.export_settings(),
        "entries": {entry.name: entry.facts for entry in entries},
    }
    wanted = json.loads(json.dumps(wanted))
    file = out / EVALUATION
    if file.exists():
        found = read_manifest(file)
        _refuse_other(out, found, wanted)
        wanted["entries"] = {**found["entries"], **wanted["entries"]}
    else:
        for name in (PREDICTIONS, SCORES, REPORT, MARKDOWN):
            refuse_foreign(out / name, ours=False, writer="an evaluation")
    out.mkdir(parents=True, exist_ok=True)
    remove_parts(out, older_than_s=600.0)  # another process may write predictions of another entry
    drop_results(out)
    write_text(file, json.dumps(wanted, indent=1) + "\n")


def drop_results(out: Path) -> None:
    """Removes scores and reports from an evaluation's folder, so that those of two runs never lie side by side."""
    for name in (MARKDOWN, REPORT, SCORES):
        remove(out / name)


def _refuse_other(out: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    if not isinstance(found.get("entries"), dict) or not isinstance(found.get("data"), dict):
        raise StoreError(f"{out / EVALUATION} is damaged: remove the folder or choose another --out")
    other = [key for key in ("format", "version", "export") if found.get(key) != wanted[key]]
    other += ["data"] if found["data"].get("fingerprint") != wanted["data"]["fingerprint"] else []
    kept = found["entries"]
    other += [f"entry {n}" for n, facts in wanted["entries"].items() if n in kept and kept[n] != facts]
    if not set(kept) <= set(wanted["entries"]):
        missing = ", ".join(sorted(set(kept) - set(wanted["entries"])))
        raise StoreError(
            f"{out} also contains an evaluation of {missing}: name it as well (eval compare), choose another --out, "
            f"or start again with --no-resume"
        )
    if other:
        details = "; ".join(f"{key}: {_short(found, key)}, not {_short(wanted, key)}" for key in other)
        raise StoreError(
            f"{out} contains an evaluation with other settings ({details}): choose another --out, or start again with "
            "--no-resume"
        )


def _short(content: dict[str, Any], key: str) -> str:
    value = content["entries"][key[6:]] if key.startswith("entry ") else content.get(key)
    return json.dumps(value)[:120]


def store_of(out: Path, dataset: Dataset, protocol: Protocol, entry: Entry) -> PredictionStore:
    """The predictions of one entry in an evaluation's folder."""
    settings = {
        "version": __version__,
        "data": dataset.fingerprint(),
        "export": protocol.export_settings(),
        "entry": entry.facts,
    }
    return PredictionStore(out / PREDICTIONS / entry.name, settings)


def export_all(
    out: Path,
    dataset: Dataset,
    protocol: Protocol,
    entries: Sequence[Entry],
    *,
    advance: Callable[[str], None] = lambda name: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Exported]:
    """Stage 1 of every entry, one after the other."""
    done = {}
    for entry in entries:

        def on_pair(name: str = entry.name) -> None:
            advance(name)

        done[entry.name] = export(
            dataset, protocol, entry, store_of(out, dataset, protocol, entry), advance=on_pair, stop=stop
        )
        if done[entry.name].stopped:
            break
    return done


def score_all(
    out: Path,
    dataset: Dataset,
    protocol: Protocol,
    entries: Sequence[Entry],
    *,
    advance: Callable[[str], None] = lambda name: None,
) -> Evaluation:
    """Stage 2 of every entry: no matcher runs, and the same predictions give the same scores."""
    score = score_of(dataset)
    scored = []
    for entry in entries:
        scored.append(score(dataset, store_of(out, dataset, protocol, entry), entry, protocol))
        advance(entry.name)
    return Evaluation(dataset, protocol, tuple(scored), dataset.notes)


def claimed(out: Path) -> dict[str, Any]:
    """What `evaluation.json` of a folder says, for scoring it again.

    Raises:
        StoreError: the folder holds no evaluation, or a damaged one.
    """
    file = out / EVALUATION
    if not file.is_file():
        raise StoreError(
            f"{out} contains no evaluation ({EVALUATION} is missing): run eval pose, homography, dense or trajectory "
            f"first"
        )
    content = read_manifest(file)
    if not isinstance(content.get("entries"), dict) or not isinstance(content.get("data"), dict):
        raise StoreError(f"{file} is damaged: remove the folder and run the evaluation again")
    return content
