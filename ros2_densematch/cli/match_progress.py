"""What a list of pairs has come to, written pair by pair: the same command goes on where it was stopped or killed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ros2_densematch.cli.pairs import Pair

PROGRESS = ".densematch-pairs.jsonl"


def fingerprint_of(pairs: Sequence[Pair], settings: Any) -> str:
    """A checksum of all that decides the results: the pairs with their images' sizes and times, and the settings."""
    files = sorted({file for pair in pairs for file in (pair.reference, pair.query) if not pair.problem})
    states = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    lines = [
        (
            p.index,
            str(p.reference),
            str(p.query),
            p.problem,
            *(None if m is None else m.tolist() for m in (p.reference_K, p.query_K, p.T_query_from_reference)),
        )
        for p in pairs
    ]
    text = json.dumps([states, lines, settings], default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class MatchProgress:
    """The pairs done so far, with the names of their files.

    Args:
        folder: of the results.
        fingerprint: of `fingerprint_of`; what another one left is not used.

    Attributes:
        rows: entry of summary.json by number of the pair, of pairs whose files are all there.
        files: their names.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._file = folder / PROGRESS
        self._fingerprint = fingerprint
        self.rows: dict[int, dict[str, Any]] = {}
        self.files: list[str] = []
        lines = self._file.read_text("utf-8", errors="replace").splitlines() if self._file.is_file() else []
        if not lines or lines[0] != fingerprint:
            return
        for line in lines[1:]:
            try:
                row, names = json.loads(line)
            except ValueError:
                break  # cut while it was written
            if all((folder / name).is_file() for name in names):
                self.rows[row["index"]] = row
                self.files += [name for name in names if name not in self.files]

    def begin(self) -> None:
        """Writes the file anew with what is known; called once, before the first `add`."""
        names = {i: [name for name in self.files if name.startswith(f"{i:06d}.")] for i in self.rows}
        known = [json.dumps([row, names[i]]) for i, row in self.rows.items()]
        self._file.write_text("\n".join([self._fingerprint, *known]) + "\n", "utf-8")

    def add(self, row: dict[str, Any], files: list[str]) -> None:
        """A pair is done, its files are in their place."""
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps([row, files]) + "\n")

    def forget(self) -> None:
        """Everything is done: a later run starts from the beginning."""
        self._file.unlink(missing_ok=True)
