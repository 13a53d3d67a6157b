"""Files and folders that appear complete or not at all: written under a temporary name beside their place.

The temporary name is hidden and used by one writing only, so several may write the same file; the last one stands.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_PART = re.compile(r"\..+\.[0-9a-f]{8}\.part(-\w+)?")  # names of `_temporary_file`
_NO_ROOM = 1 << 14  # bytes; a writer that gave up may have left some


@contextmanager
def replacing(path: str | Path, *, durable: bool = False) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` at the end, and is removed after an error.

    Args:
        path: the file; its folder must exist.
        durable: wait until the content has reached the disk, so that it also survives a loss of power.

    Raises:
        OSError: the folder does not exist or cannot be written; also where a library that wrote the file said in words
            of its own that the disk is full.
    """
    path = Path(path)
    temporary = _temporary_file(path)
    mode = temporary.stat().st_mode
    try:
        yield temporary
        # Some libraries replace the file by a private one; results are as readable as the user's other files.
        os.chmod(temporary, mode)
        if durable:
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    except (ValueError, TypeError, LookupError):
        raise
    except Exception as error:
        if not isinstance(error, OSError) or error.errno is None:
            refuse_full_disk(path, error)
        raise
    finally:
        temporary.unlink(missing_ok=True)
        for left in temporary.parent.glob(f"{glob.escape(temporary.name)}-*"):  # the journals of a database
            left.unlink(missing_ok=True)


def refuse_full_disk(path: Path, cause: Exception | None = None, *, needed: int = _NO_ROOM) -> None:
    """Asked where a library writes a file by itself, and fails in its own words, in silence, or by its death.

    Args:
        path: the file.
        cause: what the library said.
        needed: bytes that must be free.

    Raises:
        OSError: ENOSPC, there is not so much room beside `path`.
    """
    if shutil.disk_usage(path.parent).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from cause


def remove_parts(folder: Path, *, older_than_s: float = 0.0) -> None:
    """Removes what writers that were killed have left in a folder, below which nobody else writes now.

    Args:
        folder: looked through with all below it.
        older_than_s: seconds since the last change; younger ones may belong to somebody.
    """
    for left in folder.rglob(".*.part*"):
        if _PART.fullmatch(left.name) and time.time() - left.stat().st_mtime >= older_than_s:
            left.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes, *, durable: bool = False) -> None:
    """Writes a file in one step; see `replacing`."""
    with replacing(path, durable=durable) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str, *, durable: bool = False) -> None:
    """Writes a text file (UTF-8, line ends as in `text`) in one step; see `replacing`."""
    write_bytes(path, text.encode("utf-8"), durable=durable)


class AtomicFile:
    """A text file that is written line by line and put in its place by `close`; used as a context manager.

    Leaving the context closes it also after an error: rows written so far are complete and worth keeping.

    Args:
        path: the file; its folder must exist.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._temporary = _temporary_file(self.path)
        self.stream: IO[str] = self._temporary.open("w", encoding="utf-8", newline="")

    def close(self) -> None:
        """Put the file in its place."""
        if not self.stream.closed:
            try:
                self.stream.close()
                os.replace(self._temporary, self.path)
            finally:  # a full disk leaves no part behind
                self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> AtomicFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AtomicFolder:
    """A folder that is filled under a temporary name and put in its place by `close`.

    Args:
        path: the folder; its parent must exist. An older folder there is replaced by `close`.

    Attributes:
        filling: where its content is written; it does not exist yet, as libraries that write bags want it.

    Raises:
        OSError: the parent does not exist or cannot be written.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._around = Path(tempfile.mkdtemp(dir=self.path.parent, prefix=f".{self.path.name}."))
        self.filling = self._around / self.path.name

    def close(self) -> None:
        """Put the folder in its place."""
        if self.path.exists():
            shutil.rmtree(self.path)
        os.replace(self.filling, self.path)
        self._around.rmdir()

    def discard(self) -> None:
        """Remove what was written so far; nothing happens after `close`."""
        shutil.rmtree(self._around, ignore_errors=True)


def _temporary_file(path: Path) -> Path:
    """An empty file that only this call knows, with the permissions of the user's other new files."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return temporary
