"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import IO


class AtomicFile:
    """A text file written beside its place and moved there by `close`; used as a context manager.

    Leaving the context closes it also after an error: rows written so far are complete and worth keeping.

    Args:
        path: the file; its folder must exist.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        handle, self._temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.", suffix=".part")
        # mkstemp's files are private; results are as readable as the user's other files.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(self._temporary, 0o666 & ~umask)
        self.stream: IO[str] = os.fdopen(handle, "w", encoding="utf-8", newline="")

    def close(self) -> None:
        """Put the file in its place."""
        if not self.stream.closed:
            self.stream.close()
            os.replace(self._temporary, self.path)

    def __enter__(self) -> AtomicFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
