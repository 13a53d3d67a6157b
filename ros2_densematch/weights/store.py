"""The folder with the official checkpoints that were fetched or imported: a safetensors file and a record each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from ros2_densematch.files.atomic import replacing, write_text
from ros2_densematch.files.user_cache import cache_folder
from ros2_densematch.weights.catalogue import digest
from ros2_densematch.weights.checkpoint import read_official
from ros2_densematch.weights.loading import read_state
from ros2_densematch.weights.official import Official, official
from ros2_densematch.weights.versions import entry_for


class MissingCheckpoint(FileNotFoundError):
    """An official checkpoint that is not in the store; the message names it, its licence and the command."""


@dataclass(frozen=True)
class Record:
    """What is known about a stored checkpoint.

    Attributes:
        sha256: digest of the file as published.
        size: its bytes.
        source: address or path that it came from.
        stored_sha256: digest of the safetensors file that was made from it.
    """

    sha256: str
    size: int
    source: str
    stored_sha256: str


def store_folder() -> Path:
    """`$DENSEMATCH_WEIGHTS`, else `densematch/weights` in the user's cache folder."""
    return cache_folder("weights", "DENSEMATCH_WEIGHTS")


def stored_file(name: str) -> Path:
    """Where the store keeps a checkpoint, whether or not it is there."""
    return store_folder() / f"{name}.safetensors"


def checkpoint_path(name: str) -> Path:
    """The stored safetensors file of an official checkpoint.

    Raises:
        ValueError: no such name in the catalogue.
        MissingCheckpoint: it was not fetched yet.
    """
    entry = official(name)
    path = stored_file(name)
    if not path.is_file():
        raise MissingCheckpoint(missing_message(entry))
    return path


def require(names: Iterable[str]) -> None:
    """One error for all of these official checkpoints that are not in the store.

    Raises:
        ValueError: no such name in the catalogue.
        MissingCheckpoint: the message names every missing one, its licence and its command.
    """
    missing = []
    for name in names:
        try:
            checkpoint_path(name)
        except MissingCheckpoint as error:
            missing.append(str(error))
    if missing:
        raise MissingCheckpoint("; ".join(missing))


def missing_message(entry: Official) -> str:
    """One sentence: which checkpoint, under which licence, and how to get it."""
    consent = " --accept-license" if entry.restricted else ""
    if entry.url:
        how = f"run `densematch weights fetch {entry.name}{consent}`"
    else:
        how = (
            f"no address is published: get the file and run `densematch weights import FILE --as {entry.name}{consent}`"
        )
    return f"this needs the checkpoint {entry.name} (licence: {entry.licence}): {how}"


def read_checkpoint(name: str, weights: str | Path | None = None) -> dict[str, Tensor]:
    """The state dictionary of an official checkpoint, with the official keys, in float32.

    Args:
        name: in the catalogue.
        weights: a file to read instead of the stored one: the published file, or a safetensors file. The keys of a
            safetensors file are not compared with the catalogue: the network that loads them compares.

    Raises:
        ValueError: damaged, or of another network.
        FileNotFoundError: no such file, or not fetched yet (`MissingCheckpoint`).
    """
    if weights is None:
        return read_state(checkpoint_path(name))
    path = Path(weights)
    return read_state(path) if path.suffix == ".safetensors" else read_official(official(name), path)


def import_checkpoint(path: Path, name: str, *, version: str | None = None, source: str | None = None) -> Path:
    """Checks a published checkpoint and stores its tensors as safetensors, in place of an earlier one, atomically.

    Args:
        path: the published file, or a safetensors file with the same keys.
        name: in the catalogue, or a matcher of which several versions are.
        version: which of those; None where the file or the name says it.
        source: what the record names as origin; the file's name when None.

    Returns:
        The stored file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, of another network, or not the one that is pinned or was recorded before; or
            its version is not known.
    """
    from safetensors.torch import save_file

    if not path.is_file():
        raise FileNotFoundError(f"no weights file {path}: give the path of a checkpoint")
    name = entry_for(name, path, version)
    entry = official(name)
    found = digest(path)
    published = path.suffix != ".safetensors"
    if published:
        check_digest(entry, found, str(path))
    state = read_official(entry, path)
    target = stored_file(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"matcher": entry.matcher, "checkpoint": name, "licence": entry.licence, "source_sha256": found}
    if entry.version:
        metadata["version"] = entry.version
    with replacing(target) as temporary:
        save_file(state, str(temporary), metadata)
    record = Record(found if published else "", path.stat().st_size, source or path.name, digest(target))
    text = json.dumps(asdict(record), indent=1) + "\n"
    write_text(_record_file(name), text)
    return target


def check_digest(entry: Official, found: str, where: str) -> None:
    """Compares a digest with the catalogue's, or where that has none, with the one recorded at the first fetch.

    Raises:
        ValueError: they differ.
    """
    known = read_record(entry.name)
    if entry.sha256 and not found.startswith(entry.sha256):
        raise ValueError(f"{where} has SHA-256 {found}, but {entry.name} is pinned to {entry.sha256}: refused")
    if known is not None and known.sha256 and known.sha256 != found:
        raise ValueError(
            f"{where} has SHA-256 {found}, but {known.sha256} was recorded earlier for {entry.name}: refused; if the "
            f"publisher changed the file, delete {_record_file(entry.name)} first"
        )


def read_record(name: str) -> Record | None:
    """The record of a stored checkpoint, or None.

    Raises:
        ValueError: the record is damaged.
    """
    path = _record_file(name)
    if not path.is_file():
        return None
    try:
        return Record(**json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: delete it and fetch {name} again") from error


def verify_stored(name: str) -> str | None:
    """What is wrong with a stored checkpoint, in words, or None when it is intact."""
    path, record = stored_file(name), read_record(name)
    if not path.is_file():
        return f"{path} is missing"
    if record is None:
        return f"{path} has no record: import it again"
    found = digest(path)
    if found != record.stored_sha256:
        return f"{path} has SHA-256 {found}, but {record.stored_sha256} was recorded"
    return None


def stored_names() -> list[str]:
    """Official checkpoints of which the store has the file or the record, sorted."""
    from ros2_densematch.weights.official import OFFICIAL

    return sorted(n for n in OFFICIAL if stored_file(n).is_file() or _record_file(n).is_file())


def _record_file(name: str) -> Path:
    return store_folder() / f"{name}.json"
