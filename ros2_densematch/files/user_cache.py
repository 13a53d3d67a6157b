"""The folder of this program in the user's cache."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str, variable: str) -> Path:
    """What the environment variable names, else `densematch/NAME` in the user's cache folder; it need not exist."""
    chosen = os.environ.get(variable)
    if chosen:
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "densematch" / name
