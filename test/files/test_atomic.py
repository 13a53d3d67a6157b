"""Files and folders appear complete or not at all, as readable as the user's other files, and leave nothing behind."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from ros2_densematch.files.atomic import AtomicFile, AtomicFolder, remove_parts, replacing, write_bytes, write_text


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_in_one_step(tmp_path: Path, durable: bool) -> None:
    write_text(tmp_path / "f", "old")
    with replacing(tmp_path / "f", durable=durable) as temporary:
        temporary.write_text("new")
        assert (tmp_path / "f").read_text() == "old"
        assert temporary.parent == tmp_path
    assert (tmp_path / "f").read_text() == "new"
    assert names(tmp_path) == ["f"]


def test_text_is_written_as_it_is(tmp_path: Path) -> None:
    write_text(tmp_path / "f", "ä\r\nb\n")
    assert (tmp_path / "f").read_bytes() == "ä\r\nb\n".encode()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes(tmp_path / "f", b"old")

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ros2_densematch.files.atomic.os.replace", fails)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(tmp_path / "f", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("f", b"old")]


def test_two_writings_at_once_do_not_meet(tmp_path: Path) -> None:
    with replacing(tmp_path / "f") as first, replacing(tmp_path / "f") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "f").read_text() == "first"  # the inner one was put in its place before
    assert names(tmp_path) == ["f"]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_are_those_of_the_users_other_files(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        (tmp_path / "plain").write_text("x")
        write_text(tmp_path / "text", "x")
        with replacing(tmp_path / "tensors") as temporary:
            save_file({"a": torch.ones(2)}, str(temporary))
        with AtomicFile(tmp_path / "rows") as file:
            file.stream.write("x")
    finally:
        os.umask(before)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("plain", "text", "tensors", "rows"), 0o666 & ~umask)
    assert load_file(tmp_path / "tensors")["a"].sum() == 2


def test_rows_written_before_an_error_are_kept(tmp_path: Path) -> None:
    target = tmp_path / "a.csv"

    def write() -> None:
        with AtomicFile(target) as file:
            file.stream.write("rows\n")
            assert not target.exists()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert target.read_text() == "rows\n"
    assert names(tmp_path) == ["a.csv"]


def test_a_folder_replaces_an_older_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "bag"
    target.mkdir()
    (target / "old").write_text("x")
    place = AtomicFolder(target)
    assert not place.filling.exists()
    place.filling.mkdir()
    (place.filling / "new").write_text("y")
    assert names(target) == ["old"]
    place.close()
    place.discard()
    assert names(target) == ["new"]
    assert names(tmp_path) == ["bag"]


def test_a_discarded_folder_leaves_nothing(tmp_path: Path) -> None:
    place = AtomicFolder(tmp_path / "bag")
    place.filling.mkdir()
    place.discard()
    assert names(tmp_path) == []


def test_a_missing_parent_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "none" / "f"):
        pass


@pytest.mark.parametrize(("free", "kind"), [(0, OSError), (1 << 30, RuntimeError)])
def test_a_library_that_says_in_its_own_words_that_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, kind: type[Exception]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))

    def write() -> None:
        with replacing(tmp_path / "a.db") as file:
            file.write_bytes(b"half")
            file.with_name(f"{file.name}-wal").write_bytes(b"journal")
            raise RuntimeError("database or disk is full")

    with pytest.raises(kind) as raised:
        write()
    assert getattr(raised.value, "errno", None) == (errno.ENOSPC if free == 0 else None)
    assert not list(tmp_path.iterdir())


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    mine = [".a.json.part", ".a.json.0a1b2c3d.party", "a.json.0a1b2c3d.part"]
    left = [".a.json.0a1b2c3d.part", "sub/.b.db.00112233.part-wal"]
    for name in (*mine, *left):
        (tmp_path / name).write_text("half")
    remove_parts(tmp_path, older_than_s=600)
    assert len(names(tmp_path)) == 5
    remove_parts(tmp_path)
    assert names(tmp_path) == sorted([*mine, "sub"])
    assert not names(tmp_path / "sub")


def test_a_mistake_on_a_full_disk_stays_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(KeyError), replacing(tmp_path / "a.db"):
        raise KeyError("a")
