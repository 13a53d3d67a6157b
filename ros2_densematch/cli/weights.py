"""`densematch weights`: which weights ship with the package, and whether they are intact."""

from __future__ import annotations

from pathlib import Path

import typer

from ros2_densematch.cli.errors import InputError

app = typer.Typer(help="List and verify the weights that ship.", no_args_is_help=True)


@app.command("list", help="Name, matcher, size, licence and SHA-256 of the weights that ship.")
def list_command() -> None:
    from rich.console import Console
    from rich.table import Table

    from ros2_densematch.weights.catalogue import SHIPPED

    table = Table(box=None, pad_edge=False)
    for column in ("name", "matcher", "size", "licence", "shipped", "sha256"):
        table.add_column(column, justify="right" if column == "size" else "left", no_wrap=True)
    for name, weight in SHIPPED.items():
        there = "MISSING" if _file_of(name) is None else "yes"
        size = f"{weight.size / 1e6:.2f} MB"
        table.add_row(name, weight.matcher, size, weight.licence, there, weight.sha256)
    # Not cut to the terminal's width: a checksum is there to be copied.
    Console(width=max(Console().width, 160)).print(table)


@app.command("verify", help="Compare the SHA-256 of every file that ships with the catalogue.")
def verify_command() -> None:
    from ros2_densematch.weights.catalogue import SHIPPED, digest

    wrong = []
    for name, weight in SHIPPED.items():
        path = _file_of(name)
        if path is None:
            wrong.append(f"{name}: {weight.file} is missing")
            continue
        found = digest(path)
        if found != weight.sha256:
            wrong.append(f"{name}: {path} has SHA-256 {found}, the catalogue says {weight.sha256}")
            continue
        print(f"{name}: intact ({path.stat().st_size} bytes)")
    if wrong:
        raise InputError(f"{'; '.join(wrong)}: install the package again")


def _file_of(name: str) -> Path | None:
    """The file of a shipped weight, or None where this installation lacks it."""
    from ros2_densematch.weights.catalogue import path_of

    try:
        return path_of(name)
    except FileNotFoundError:
        return None
