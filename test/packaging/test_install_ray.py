"""`make test-batch` on a machine where Ray cannot be had: one line that names it, and no failure."""

from __future__ import annotations

import subprocess
from pathlib import Path


def test_where_ray_cannot_be_installed_one_line_says_why(repository: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\necho 'WARNING: slow index'\necho 'ERROR: No matching distribution found for ray>=2.40'\nexit 1\n"
    )
    python.chmod(0o755)
    done = subprocess.run(
        ["sh", repository / "scripts/install_ray.sh", str(python)], capture_output=True, text=True, cwd=repository
    )
    assert done.returncode == 0
    assert done.stderr == (
        "Ray cannot be installed: ERROR: No matching distribution found for ray>=2.40 "
        "(batches on Ray are not tested here)\n"
    )


def test_a_fault_in_an_installed_ray_is_a_failure(repository: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase "$2" in pip) exit 0 ;; *) echo "ImportError: libray" >&2; exit 1 ;; esac\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["sh", repository / "scripts/install_ray.sh", str(python)], capture_output=True, text=True, cwd=repository
    )
    assert done.returncode == 1
    assert "libray" in done.stderr
