"""`densematch weights`: what ships, what can be fetched, and whether what is here is intact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ros2_densematch.cli.errors import InputError

app = typer.Typer(help="List, fetch, verify, import and average weights.", no_args_is_help=True)

_ACCEPT = typer.Option("--accept-license", help="Consent to a non-commercial or unclear licence.")


@app.command("list", help="Name, matcher, size, licence, state and SHA-256 of all weights.")
def list_command() -> None:
    from rich.console import Console
    from rich.table import Table

    from ros2_densematch.weights.catalogue import SHIPPED
    from ros2_densematch.weights.official import OFFICIAL
    from ros2_densematch.weights.store import read_record, store_folder, stored_file

    table = Table(box=None, pad_edge=False)
    for column in ("name", "matcher", "size", "state", "sha256", "licence"):
        table.add_column(column, justify="right" if column == "size" else "left", no_wrap=True)
    for name, weight in SHIPPED.items():
        there = "MISSING" if _file_of(name) is None else "shipped"
        table.add_row(name, weight.matcher, _megabytes(weight.size), there, weight.sha256, weight.licence)
    for name, entry in OFFICIAL.items():
        try:
            record, there = read_record(name), "stored" if stored_file(name).is_file() else ""
        except ValueError:
            record, there = None, "DAMAGED"
        known = record.sha256 if record is not None and record.sha256 else entry.sha256
        size = _megabytes(entry.about_bytes) if entry.size else f"~{_megabytes(entry.about_bytes)}"
        table.add_row(name, entry.matcher, size, there, known or "recorded at first fetch", entry.licence)
    # Not cut to the terminal's width: a checksum is there to be copied.
    Console(width=max(Console().width, 240)).print(table)
    print(f"stored in {store_folder()} (DENSEMATCH_WEIGHTS); `densematch weights fetch NAME` fetches one")


@app.command("fetch", help="Fetch an official checkpoint, check it and store it; resumes an interrupted download.")
def fetch_command(
    name: Annotated[str, typer.Argument(help="Name from `densematch weights list`.")],
    origin: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Mirror address or local folder with the published file (default: $DENSEMATCH_WEIGHTS_MIRROR).",
        ),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use no network.")] = False,
    accept_license: Annotated[bool, _ACCEPT] = False,
) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    from ros2_densematch.weights.catalogue import SHIPPED
    from ros2_densematch.weights.fetch import fetch

    if name in SHIPPED:
        print(f"{name} ships with the package: nothing to fetch")
        return
    try:
        columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
        console = Console(stderr=True)
        with Bar(*columns, transient=True, console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task(name, total=None)
            path = fetch(
                name,
                source=origin,
                offline=offline,
                accept_license=accept_license,
                progress=lambda done, total: bar.update(task, completed=done, total=total or None),
            )
    except ConnectionError as error:
        raise InputError(str(error)) from error
    _say_stored(name, path)


@app.command("import", help="Check an official checkpoint that you have, and store it as safetensors.")
def import_command(
    file: Annotated[Path, typer.Argument(help="The published file (.pth, .pt, .pth.tar) or a safetensors file.")],
    name: Annotated[str, typer.Option("--as", help="Name of the checkpoint in `densematch weights list`.")],
    version: Annotated[
        str | None,
        typer.Option("--version", help="Version of the network, if it has several and the file states none (roma_v2)."),
    ] = None,
) -> None:
    from ros2_densematch.weights.store import import_checkpoint

    path = import_checkpoint(file, name, version=version)
    _say_stored(path.name.removesuffix(".safetensors"), path)


@app.command("average", help="Write the mean of weights trained from the same start.")
def average_command(
    files: Annotated[list[Path], typer.Argument(help="Two or more safetensors files of the same network.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write.")],
) -> None:
    from ros2_densematch.weights.averaging import average
    from ros2_densematch.weights.catalogue import digest

    print(f"{average(files, out)}: mean of {len(files)} files, SHA-256 {digest(out)}")


@app.command("verify", help="Compare the SHA-256 of every shipped or stored file with its record.")
def verify_command() -> None:
    from ros2_densematch.weights.catalogue import SHIPPED, digest
    from ros2_densematch.weights.store import stored_file, stored_names, verify_stored

    wrong, again = [], []
    for name, weight in SHIPPED.items():
        path = _file_of(name)
        if path is None:
            wrong.append(f"{name}: {weight.file} is missing")
            continue
        found = digest(path)
        if found != weight.sha256:
            wrong.append(f"{name}: {path} has SHA-256 {found}, the catalogue expects {weight.sha256}")
            continue
        print(f"{name}: intact ({path.stat().st_size} bytes)")
    for name in stored_names():
        try:
            complaint = verify_stored(name)
        except ValueError as error:
            complaint = str(error)
        if complaint is not None:
            again.append(f"{name}: {complaint}")
            continue
        print(f"{name}: intact ({stored_file(name).stat().st_size} bytes)")
    remedies = [
        f"{'; '.join(lines)}: {remedy}"
        for lines, remedy in ((wrong, "install the package again"), (again, "fetch or import again"))
        if lines
    ]
    if remedies:
        raise InputError("; ".join(remedies))


def _file_of(name: str) -> Path | None:
    """The file of a shipped weight, or None where this installation lacks it."""
    from ros2_densematch.weights.catalogue import path_of

    try:
        return path_of(name)
    except FileNotFoundError:
        return None


def _say_stored(name: str, path: Path) -> None:
    from ros2_densematch.weights.official import official
    from ros2_densematch.weights.store import read_record

    record, entry = read_record(name), official(name)
    digits = record.sha256 if record is not None and record.sha256 else "of a safetensors file"
    how = "pinned" if len(entry.sha256) == 64 else "recorded, and enforced from now on"
    print(f"{name}: {path} (published file SHA-256 {digits}, {how}; licence: {entry.licence})")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
