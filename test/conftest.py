"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


class DataFolder(type(Path())):  # type: ignore[misc]  # the concrete Path class differs by platform and Python version
    """The folder with the development data: a missing file in it is an error, not a skip."""

    def need(self, relative: str) -> Path:
        path = Path(self) / relative
        if not path.exists():
            pytest.fail(f"{relative} is missing in the data folder {self}: restore it or unset DENSEMATCH_DATA")
        return path


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> DataFolder:
    """`data/` of the folder that DENSEMATCH_DATA names (default ../shared); skips where there is no such folder."""
    root = Path(os.environ.get("DENSEMATCH_DATA", REPOSITORY.parent / "shared"))
    if not (root / "data").is_dir():
        pytest.skip(f"no development data at {root} (set DENSEMATCH_DATA)")
    return DataFolder(root / "data")


@pytest.fixture(scope="session")
def shared_cases() -> DataFolder:
    """`cases/` beside the development data: small inputs that once went wrong; skips where there is no such folder."""
    root = Path(os.environ.get("DENSEMATCH_DATA", REPOSITORY.parent / "shared"))
    if not (root / "cases").is_dir():
        pytest.skip(f"no cases at {root} (set DENSEMATCH_DATA)")
    return DataFolder(root / "cases")
