"""Golden vectors: `make golden` compares every array; the default run skips where there is no such folder.

The folder comes from DENSEMATCH_GOLDEN (default ../shared/golden). With DENSEMATCH_GOLDEN_COMPLETE=1 a missing folder
or an array that no test compared fails the run.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
import torch
from golden_set import Golden, Register, expected_arrays

_FOLDER = Path(os.environ.get("DENSEMATCH_GOLDEN", Path(__file__).resolve().parents[3] / "shared" / "golden"))
_COMPLETE = os.environ.get("DENSEMATCH_GOLDEN_COMPLETE") == "1"
_register: Register = {}


@pytest.fixture(scope="session")
def golden() -> Golden:
    """The golden folder; skips where it is absent."""
    if not (_FOLDER / "images").is_dir():
        pytest.skip(f"no golden vectors at {_FOLDER} (set DENSEMATCH_GOLDEN)")
    return Golden(_FOLDER, _register)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """The same order of additions everywhere; several threads would only wait for each other at these sizes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _uncompared() -> list[str]:
    if not (_FOLDER / "images").is_dir():
        return [f"there is no golden folder at {_FOLDER}: set DENSEMATCH_GOLDEN"]
    return ["/".join(key) for key in expected_arrays(_FOLDER) if key not in _register]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _COMPLETE and not session.config.option.collectonly and _uncompared():
        session.exitstatus = max(int(session.exitstatus), 1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _COMPLETE:
        return
    terminalreporter.section("golden arrays")
    expected = expected_arrays(_FOLDER)
    total = Counter(model for model, _, _ in expected)
    compared = Counter(key[0] for key, status in _register.items() if status == "compared")
    for model, count in total.items():
        skipped = [(key, s) for key, s in _register.items() if key[0] == model and s != "compared"]
        note = f", {len(skipped)} skipped by name" if skipped else ""
        terminalreporter.write_line(f"{model}: {compared[model]} of {count} arrays compared{note}")
        for key, reason in skipped:
            terminalreporter.write_line(f"  skipped {'/'.join(key)}: {reason}")
    missing = _uncompared()
    for name in missing[:40]:
        terminalreporter.write_line(f"NOT COMPARED {name}", red=True)
    if len(missing) > 40:
        terminalreporter.write_line(f"... and {len(missing) - 40} more", red=True)
