"""Fetches official checkpoints: streamed with their digest, resumed, atomic; from publisher, mirror or folder."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ros2_densematch.weights.official import Official, official
from ros2_densematch.weights.store import (
    check_digest,
    import_checkpoint,
    store_folder,
    stored_file,
    verify_stored,
)

Progress = Callable[[int, int], None]

_BLOCK = 1 << 20
_TIMEOUT_S = 30.0


def fetch(
    name: str,
    *,
    source: str | None = None,
    offline: bool = False,
    accept_license: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Brings a checkpoint into the store; does nothing when it is there and intact.

    Args:
        name: in the catalogue.
        source: a mirror (http or https address of a folder) or a local folder that holds the published file under its
            published name; None takes `$DENSEMATCH_WEIGHTS_MIRROR`, or else the publisher's address.
        offline: use no network: only what is stored or lies in a local folder.
        accept_license: the user consents to a licence that restricts the use.
        progress: called with bytes done and bytes in all (0 where unknown).

    Returns:
        The stored safetensors file.

    Raises:
        ValueError: unknown name, no consent, wrong digest, or a file that is not this checkpoint.
        FileNotFoundError: nothing to be had from a folder, or offline.
        ConnectionError: the server cannot be reached, broke off, or does not have the file; what came stays, and the
            next call resumes.
    """
    entry = official(name)
    if stored_file(name).is_file() and verify_stored(name) is None:
        return stored_file(name)
    if entry.restricted and not accept_license:
        raise ValueError(
            f"{name} has a restrictive licence ({entry.licence}): add --accept-license if it covers your use"
        )
    origin = source if source is not None else os.environ.get("DENSEMATCH_WEIGHTS_MIRROR") or None
    if origin is not None and not _is_address(origin):
        return _from_folder(entry, Path(origin).expanduser())
    if offline:
        raise FileNotFoundError(
            f"{name} is not in {store_folder()} and the network may not be used: give a local folder with --from"
        )
    if origin is None and not entry.url:
        raise ValueError(
            f"no address is published for {name}: run `densematch weights import FILE --as {name}` with your copy"
        )
    address = entry.url if origin is None else f"{origin.rstrip('/')}/{entry.file}"
    return _from_address(entry, address, progress)


def _from_folder(entry: Official, folder: Path) -> Path:
    for candidate in (folder / entry.file, folder / f"{entry.name}.safetensors"):
        if candidate.is_file():
            return import_checkpoint(candidate, entry.name, source=str(candidate))
    raise FileNotFoundError(f"{folder} contains neither {entry.file} nor {entry.name}.safetensors: put the file there")


def _from_address(entry: Official, address: str, progress: Progress | None) -> Path:
    folder = store_folder() / "partial"
    folder.mkdir(parents=True, exist_ok=True)
    # the suffix of the published file says how it is to be read
    part = folder / f"{entry.name}{_suffix(entry.file)}"
    with _only_one(folder / f"{entry.name}.lock", entry.name):
        found = _download(entry, address, part, progress)
        try:
            check_digest(entry, found, address)
            stored = import_checkpoint(part, entry.name, source=address)
        except ValueError as error:
            # whatever this was, it is not worth resuming
            _discard(part)
            raise ValueError(str(error).replace(str(part), address)) from error
        _discard(part)
        return stored


def _download(entry: Official, address: str, part: Path, progress: Progress | None) -> str:
    """Streams the address into `part`, going on where an earlier call stopped; returns the SHA-256."""
    have, state, sha = _earlier(address, part)
    request = urllib.request.Request(address, headers={"User-Agent": "densematch"})
    if have:
        # without the tag the server could have changed the file in between
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", state["tag"])
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            if have and response.status != 206:
                have, sha = 0, hashlib.sha256()
            length = response.headers.get("Content-Length")
            total = have + int(length) if length and length.isdigit() else 0
            _check_room(entry, part.parent, total - have)
            tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            if tag.startswith("W/"):
                tag = ""
            _state_file(part).write_text(json.dumps({"address": address, "tag": tag}), "utf-8")
            with part.open("ab" if have else "wb") as file:
                have = _copy(response, file, sha, have, total, progress)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            # nothing follows what is here: all of it came, and the earlier call was ended before it was stored
            if have and error.headers.get("Content-Range", "").endswith(f"/{have}"):
                return sha.hexdigest()
            _discard(part)
        raise ConnectionError(
            f"{address} answers {error.code} {error.reason}: try again, or give a mirror with --from"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ConnectionError(
            f"{address} cannot be read ({reason}): run the command again to resume, or give a mirror with --from"
        ) from error
    if total and have < total:
        raise ConnectionError(f"{address} stopped after {have} of {total} bytes: run the command again to resume")
    return sha.hexdigest()


def _copy(
    response: http.client.HTTPResponse,
    file: IO[bytes],
    sha: hashlib._Hash,
    done: int,
    total: int,
    progress: Progress | None,
) -> int:
    while True:
        try:
            block = response.read(_BLOCK)
        except http.client.IncompleteRead as error:
            file.write(error.partial)
            raise
        if not block:
            return done
        file.write(block)
        sha.update(block)
        done += len(block)
        if progress is not None:
            progress(done, total)


def _earlier(address: str, part: Path) -> tuple[int, dict[str, str], hashlib._Hash]:
    """Bytes of an earlier, broken download that can be gone on with, its state, and their digest so far."""
    sha = hashlib.sha256()
    try:
        state = json.loads(_state_file(part).read_text("utf-8"))
        usable = part.is_file() and state["address"] == address and bool(state["tag"])
    except (OSError, ValueError, KeyError, TypeError):
        usable = False
    if not usable:
        _discard(part)
        return 0, {}, sha
    with part.open("rb") as file:
        while block := file.read(_BLOCK):
            sha.update(block)
    return part.stat().st_size, state, sha


def _check_room(entry: Official, folder: Path, wanted: int) -> None:
    # the published file and the safetensors file lie side by side for a moment
    needed = wanted + entry.about_bytes
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(
            f"{entry.name} needs {needed / 1e9:.1f} GB in {folder}, {free / 1e9:.1f} GB are free: "
            "make room, or set DENSEMATCH_WEIGHTS to another folder"
        )


@contextmanager
def _only_one(lock: Path, name: str) -> Iterator[None]:
    """Two processes that fetch the same file would write into each other's part."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f"{name} is being fetched by another process: wait for it") from error
        yield


def _discard(part: Path) -> None:
    for path in (part, _state_file(part)):
        with suppress(FileNotFoundError):
            path.unlink()


def _state_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.state")


def _suffix(file: str) -> str:
    return ".pth.tar" if file.endswith(".pth.tar") else Path(file).suffix


def _is_address(origin: str) -> bool:
    return origin.startswith(("http://", "https://"))
