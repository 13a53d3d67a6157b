"""No committed file knows the machine that it was written on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

HOMES = re.compile(rb"(?<![\w.~*}\]-])/(?:home|work|root|Users|scratch)/[A-Za-z0-9.]")
# In pieces, so that this file does not match itself.
HOSTS = re.compile(
    b"|".join(
        re.escape(host.replace(b"_", b"."))
        for host in (
            b"pypi_org",
            b"pythonhosted_org",
            b"registry_npmjs_org",
            b"deb_debian_org",
            b"download_pytorch_org/whl",
            b"crates_io",
        )
    )
)


@pytest.fixture(scope="module")
def committed(repository: Path) -> list[Path]:
    try:
        listing = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git clone")
    return [path for name in listing.stdout.decode().split("\0") if name and (path := repository / name).is_file()]


def offences(path: Path, pattern: re.Pattern[bytes]) -> list[str]:
    lines = enumerate(path.read_bytes().splitlines(), 1)
    return [f"{path}:{number}: {hit[0].decode()}" for number, line in lines if (hit := pattern.search(line))]


def test_no_path_of_a_home_or_work_folder(committed: list[Path]) -> None:
    assert committed
    assert not [offence for path in committed for offence in offences(path, HOMES)]


def test_no_host_of_a_package_registry(committed: list[Path]) -> None:
    assert not [offence for path in committed for offence in offences(path, HOSTS)]


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        (b"open('/" + b"home/me/bag')", HOMES),
        (b"cd /" + b"work/x", HOMES),
        (b"index = https://files.pythonhosted" + b".org/simple", HOSTS),
    ],
)
def test_such_a_line_would_be_found(tmp_path: Path, line: bytes, pattern: re.Pattern[bytes]) -> None:
    (tmp_path / "file").write_bytes(b"first\n" + line + b"\n")
    assert len(offences(tmp_path / "file", pattern)) == 1


@pytest.mark.parametrize("line", [b"../work/x", b"$ROOT/work/x", b"data/home/x", b"docs.ros.org/en/work"])
def test_relative_paths_are_fine(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "file").write_bytes(line)
    assert not offences(tmp_path / "file", HOMES)


def test_files_are_small_enough_to_clone(committed: list[Path]) -> None:
    assert not [path for path in committed if path.stat().st_size > 8_000_000]
