"""An output folder belongs to one run: a new run replaces the results of the one before whole, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from ros2_densematch.files.atomic import write_text

SUMMARY = "summary.json"
# Lies in the folder while a run writes: a run that was killed leaves it, with the names of what it may have written.
_UNDER_WAY = ".densematch-run.json"


class ForeignFileError(ValueError):
    """A file that would be overwritten was not written by this program."""


def refuse_foreign(path: Path, *, ours: bool) -> None:
    """A file that a command writes where the user says, not in a folder of results.

    Raises:
        ForeignFileError: it exists and is not `ours`; it stays as it is.
    """
    if os.path.lexists(path) and not ours:
        raise ForeignFileError(f"{path} exists and was not written by densematch: name another place with --out")


class ResultsFolder:
    """The results of one command in a folder.

    Args:
        folder: where they go; it exists.
        planned: names that the command may write, beside summary.json.
    """

    def __init__(self, folder: Path, planned: Collection[str]):
        self.folder = folder
        self._planned = [*dict.fromkeys([*planned, SUMMARY])]
        self._begun = False

    def begin(self) -> None:
        """Removes the results of the run before; called before the first file is written, again without effect.

        Raises:
            ForeignFileError: a file of a planned name is not a result of this program; nothing was removed.
        """
        if self._begun:
            return
        old = _results_of_finished_run(self.folder) | _results_of_killed_run(self.folder)
        foreign = [name for name in self._planned if name not in old and os.path.lexists(self.folder / name)]
        if foreign:
            raise ForeignFileError(
                f"{self.folder / foreign[0]} exists and is no result of densematch: name another folder with --out"
            )
        write_text(self.folder / _UNDER_WAY, json.dumps(sorted({*self._planned, *old})))
        for name in sorted(old):
            _remove(self.folder / name)
            for left in self.folder.glob(f".{name}.*"):  # what a killed run was writing
                _remove(left)
        self._begun = True

    def go_on(self) -> None:
        """Keeps what the run before left, and goes on with it: called instead of `begin`."""
        old = _results_of_finished_run(self.folder) | _results_of_killed_run(self.folder)
        write_text(self.folder / _UNDER_WAY, json.dumps(sorted({*self._planned, *old})))
        self._begun = True

    def finish(self) -> None:
        """All files are in their place; summary.json, written last, names them from now on."""
        (self.folder / _UNDER_WAY).unlink(missing_ok=True)


def _results_of_finished_run(folder: Path) -> set[str]:
    """Names in the folder that its summary.json, where it is ours, says to be results."""
    content = _json(folder / SUMMARY)
    if not isinstance(content, dict) or "command" not in content or "densematch" not in (content.get("versions") or {}):
        return set()
    files = content.get("files")
    return _inside({SUMMARY, *(files if isinstance(files, list) else [])})


def _results_of_killed_run(folder: Path) -> set[str]:
    names = _json(folder / _UNDER_WAY)
    return _inside(set(names)) if isinstance(names, list) else set()


def _inside(names: set[Any]) -> set[str]:
    """Those that are plain names: what a file says must not lead out of the folder."""
    return {name for name in names if isinstance(name, str) and name and Path(name).name == name and name != ".."}


def _json(file: Path) -> Any:
    with suppress(OSError, ValueError):
        return json.loads(file.read_text("utf-8"))
    return None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
