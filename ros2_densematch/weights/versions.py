"""Which version of a network a file's weights are for, where published versions differ in operations but not in keys.

One version's weights with the other's operations give no error, only worse results: so the version is read from the
file or asked for, never guessed.
"""

from __future__ import annotations

from pathlib import Path

from ros2_densematch.weights.catalogue import digest
from ros2_densematch.weights.official import OFFICIAL, Official


def versions_of(matcher: str) -> dict[str, Official]:
    """Version -> entry of the catalogue, for a matcher with several versions; empty for others."""
    return {entry.version: entry for entry in OFFICIAL.values() if entry.matcher == matcher and entry.version}


def stated_version(matcher: str, path: Path) -> str | None:
    """What a file says about itself: a safetensors file in its metadata, a published file by its digest; else None.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a safetensors file, though it is named like one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {path}: give the path of a checkpoint")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="np") as file:
                return (file.metadata() or {}).get("version")
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file ({error}): copy it again") from error
    found = digest(path)
    return next((version for version, entry in versions_of(matcher).items() if entry.sha256 == found), None)


def required_version(
    matcher: str, stated: str | None, asked: str | None, where: str, argument: str, hint: str = ""
) -> str:
    """The version of some weights.

    Args:
        matcher: whose weights.
        stated: by the weights themselves, or None.
        asked: by the user, or None.
        where: the weights as the user named them.
        argument: how the user gives the version, for the message.
        hint: what the message says of another way to give it.

    Raises:
        ValueError: it is not known, not one of the published ones, or both are there and differ.
    """
    known = versions_of(matcher)
    choice = " or ".join(f"{argument}{version}" for version in known)
    for version in (stated, asked):
        if version is not None and version not in known:
            raise ValueError(f"unknown version {version!r} of {matcher} for {where}: give {choice}")
    if stated is not None and asked is not None and stated != asked:
        raise ValueError(f"{where} contains weights of {matcher} {stated}, not {asked}: omit the version")
    version = stated or asked
    if version is None:
        raise ValueError(
            f"{where} does not state the version of {matcher} for its weights, and a wrong one gives no error, only "
            f"worse matches: give {choice}{hint}"
        )
    return version


def entry_for(name: str, path: Path, asked: str | None) -> str:
    """The catalogue's name under which a file is imported.

    Args:
        name: in the catalogue, or a matcher with several versions.
        path: the file.
        asked: the version that the user names, or None.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the version is not known, or another one than the name or the file says.
    """
    entry = OFFICIAL.get(name)
    if entry is None and not versions_of(name):
        return name
    if entry is not None and not entry.version:
        if asked is not None:
            raise ValueError(f"{name} has no versions: omit --version")
        return name
    matcher = name if entry is None else entry.matcher
    stated = stated_version(matcher, path)
    if entry is not None and asked is not None and asked != entry.version:
        raise ValueError(f"{name} is version {entry.version}, not {asked}: omit --version, or import as {matcher}")
    wanted = asked if entry is None else entry.version
    return versions_of(matcher)[required_version(matcher, stated, wanted, str(path), "--version ")].name
