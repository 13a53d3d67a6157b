"""Graphs are kept in a folder of the tests, and written once a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("onnx", "onnxruntime", "onnxscript")


@pytest.fixture(scope="session")
def onnx_packages() -> None:
    """Skips, by name, where a package of the extra `onnx` is not installed."""
    for name in PACKAGES:
        pytest.importorskip(name, reason=f"{name} is not installed: pip install '.[onnx]'")


@pytest.fixture(scope="session")
def graphs(onnx_packages: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of cached graphs."""
    folder = tmp_path_factory.mktemp("graphs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DENSEMATCH_GRAPHS", str(folder))
        yield folder
