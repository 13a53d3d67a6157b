"""An output folder belongs to one run: a new run replaces the results of the one before whole, and nothing else."""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ros2_densematch.files.atomic import write_text

SUMMARY = "summary.json"
# Lies in the folder while a run writes: a run that was killed leaves it, with the names of what it may have written.
_UNDER_WAY = ".densematch-run.json"
# Runs that are gone on with: the file that tells of one, what it is, and keys by which the file is known to be ours.
_RUNS = {
    "evaluation.json": ("an evaluation", {"entries", "data", "export"}),
    "batch.json": ("a batch", {"version", "configuration", "matcher"}),
    "manifest.json": ("a training run", {"recipe", "densematch"}),
}


class ForeignFileError(ValueError):
    """A file that would be overwritten was not written by this program."""


def refuse_foreign(path: Path, *, ours: bool, writer: str = "densematch") -> None:
    """A file that a command writes where the user says, not in a folder of results.

    Args:
        path: the file.
        ours: whether `writer` wrote it.
        writer: who may replace it, in words.

    Raises:
        ForeignFileError: it exists and is not `ours`; it stays as it is.
    """
    if os.path.lexists(path) and not ours:
        raise ForeignFileError(f"{path} exists and was not written by {writer}: choose another place with --out")


def make_room(folder: Path, names: Sequence[str], *, ours: bool) -> None:
    """Removes what an earlier run wrote under names that one command always writes together.

    They are removed from the last to the first, and to be written from the first to the last: so a run that is killed
    leaves the first one, by which the next run knows its own, wherever it leaves any.

    Args:
        folder: where they lie.
        names: the files; the first one tells whose they are.
        ours: what it told.

    Raises:
        ForeignFileError: one of them exists and they are not `ours`; nothing was removed.
    """
    for name in names:
        refuse_foreign(folder / name, ours=ours)
    for name in reversed(names):
        remove(folder / name)


class ResultsFolder:
    """The results of one command in a folder.

    Args:
        folder: where they go; it exists.
        planned: names that the command may write, beside summary.json; "*" stands for any characters.
        reads: files and folders that the command reads: they are not removed, whoever wrote them.

    Attributes:
        written: names of files that the calling command has written since `begin`, for the summary.
    """

    def __init__(self, folder: Path, planned: Collection[str], reads: Collection[Path] = ()):
        self.folder = folder
        self.written: list[str] = []
        self._planned = [*dict.fromkeys([*planned, SUMMARY])]
        self._reads = reads
        self._begun = False

    def begin(self) -> None:
        """Removes the results of the run before; called before the first file is written, again without effect.

        Raises:
            ForeignFileError: a file of a planned name is not a result of this program, or the folder holds a run that
                can be gone on with, or what is read; nothing was removed.
        """
        if self._begun:
            return
        refuse_other_runs(self.folder)
        old = _results_of_finished_run(self.folder) | _results_of_killed_run(self.folder)
        replaced = {self.folder.resolve() / name for name in old}
        for path in self._reads:
            if not replaced.isdisjoint([path.resolve(), *path.resolve().parents]):
                raise ForeignFileError(
                    f"{path} is an input and would be replaced with the results in {self.folder}: choose another "
                    f"folder with --out"
                )
        foreign = [name for wanted in self._planned for name in _found(self.folder, wanted) if name not in old]
        if foreign:
            raise ForeignFileError(
                f"{self.folder / foreign[0]} exists and is not a result of densematch: choose another folder with --out"
            )
        for left in self.folder.glob(f".{_UNDER_WAY}.*.part"):  # of a run that was killed at this very place
            remove(left)
        write_text(self.folder / _UNDER_WAY, json.dumps(sorted({*self._planned, *old})))
        for name in sorted(old, key=lambda name: (name != SUMMARY, name)):  # no summary without its files
            remove(self.folder / name)
            for left in self.folder.glob(f".{glob.escape(name)}.*"):  # what a killed run was writing
                remove(left)
        self._begun = True

    def go_on(self) -> None:
        """Keeps what the run before left, and goes on with it: called instead of `begin`."""
        old = _results_of_finished_run(self.folder) | _results_of_killed_run(self.folder)
        write_text(self.folder / _UNDER_WAY, json.dumps(sorted({*self._planned, *old})))
        self._begun = True

    def finish(self) -> None:
        """All files are in their place; summary.json, written last, names them from now on."""
        (self.folder / _UNDER_WAY).unlink(missing_ok=True)


def refuse_other_runs(folder: Path, own: str = "") -> None:
    """Hours of work that a command goes on with (an evaluation, a batch, a training) are no other command's to replace.

    Args:
        folder: for results.
        own: the file by which the asking command knows its own run.

    Raises:
        ForeignFileError: the folder holds such a run of another command.
    """
    for name, (what, _) in _RUNS.items():
        if name != own and holds_run(folder, name):
            raise ForeignFileError(f"{folder} contains {what} ({name}): choose another folder with --out")


def holds_run(folder: Path, name: str) -> bool:
    """Whether the file by which a command knows its own run is there, and is that of such a run."""
    content = read_json(folder / name)
    return isinstance(content, dict) and _RUNS[name][1] <= content.keys()


def no_summary(folder: Path, command: str) -> FileNotFoundError:
    """The error of a reader that finds no summary.json.

    Args:
        folder: where it looked.
        command: the one whose results it wants.
    """
    if is_half_done(folder):
        return FileNotFoundError(
            f"the run in {folder} was killed or is still writing: run `densematch {command}` again"
        )
    return FileNotFoundError(f"{folder} contains no {SUMMARY}: give the --out folder of `densematch {command}`")


def is_half_done(folder: Path) -> bool:
    """Whether a run that wrote results there was killed, or still writes."""
    return (folder / _UNDER_WAY).is_file()


def _results_of_finished_run(folder: Path) -> set[str]:
    """Names in the folder that its summary.json, where it is ours, says to be results."""
    content = read_json(folder / SUMMARY)
    if not isinstance(content, dict) or "command" not in content or "densematch" not in (content.get("versions") or {}):
        return set()
    files = content.get("files")
    return _inside({SUMMARY, *(files if isinstance(files, list) else [])})


def _results_of_killed_run(folder: Path) -> set[str]:
    names = read_json(folder / _UNDER_WAY)
    planned = _inside(set(names)) if isinstance(names, list) else set()
    return {name for wanted in planned for name in (wanted, *_found(folder, wanted)) if "*" not in name}


def _found(folder: Path, name: str) -> list[str]:
    """What there is of a name, or of a pattern."""
    if "*" in name:
        return sorted(path.name for path in folder.glob(name))
    return [name] if os.path.lexists(folder / name) else []


def _inside(names: set[Any]) -> set[str]:
    """Those that are plain names: what a file says must not lead out of the folder."""
    return {name for name in names if isinstance(name, str) and name and Path(name).name == name and name != ".."}


def read_json(file: Path) -> Any:
    """The content of a file; None where it is not there or no JSON."""
    with suppress(OSError, ValueError):
        return json.loads(file.read_text("utf-8"))
    return None


def remove(path: Path) -> None:
    """A file, a link or a folder with all that is in it; nothing where it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
