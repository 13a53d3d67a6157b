"""SQLite databases whose recorder did not close them: the newest messages lie in a second file, the write-ahead log."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import weakref
from pathlib import Path


def has_log(path: Path) -> bool:
    """Whether a database (.db3) has a write-ahead log with content beside it."""
    log = _log_of(path)
    return log.is_file() and log.stat().st_size > 0


class WholeDatabase:
    """A copy of a database with what its write-ahead log holds, in a temporary folder; the recording is not touched.

    Attributes:
        path: the copy; it lives as long as this object.

    Raises:
        OSError: there is no room for the copy.
        sqlite3.Error: the two do not fit together.
    """

    def __init__(self, path: Path):
        folder = Path(tempfile.mkdtemp(prefix="densematch-"))
        self._remove = weakref.finalize(self, shutil.rmtree, folder, True)
        self.path = folder / path.name
        shutil.copyfile(path, self.path)
        shutil.copyfile(_log_of(path), _log_of(self.path))
        connection = sqlite3.connect(self.path)
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("PRAGMA journal_mode=DELETE")
        finally:
            connection.close()


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")
