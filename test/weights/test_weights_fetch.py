"""Fetching from a server: streamed, resumed, pinned or recorded, never half stored. The server is a local one."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from ros2_densematch.weights import fetch as fetching
from ros2_densematch.weights.fetch import fetch
from ros2_densematch.weights.key_tables import key_table
from ros2_densematch.weights.loading import read_state
from ros2_densematch.weights.official import OFFICIAL
from ros2_densematch.weights.store import (
    MissingCheckpoint,
    checkpoint_path,
    import_checkpoint,
    read_checkpoint,
    read_record,
    verify_stored,
)

NAME = "gcm_student"
FILE = "dstl_r2d2.pt"


class Server(ThreadingHTTPServer):
    """Serves one content under every path, and can break off or ignore ranges."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.break_after: int | None = None
        self.ranges = True
        self.status = 200
        self.requests: list[tuple[str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def tag(self) -> str:
        return f'"{hashlib.md5(self.content).hexdigest()}"'


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append((self.path, wanted))
        if server.status != 200:
            self.send_error(server.status)
            return
        start = 0
        if wanted and server.ranges and self.headers.get("If-Range") == server.tag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(server.content) and start:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(server.content) - start))
        self.send_header("ETag", server.tag)
        self.end_headers()
        stop = len(server.content) if server.break_after is None else start + server.break_after
        self.wfile.write(server.content[start:stop])
        self.close_connection = True


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    generator = torch.Generator().manual_seed(0)
    state = {
        key: torch.randn(expected.shape, generator=generator) if expected.floating else torch.tensor(0)
        for key, expected in key_table("dstl_r2d2").items()
    }
    path = tmp_path_factory.mktemp("published") / FILE
    torch.save({"net": "Student()", "state_dict": state}, path)
    return path.read_bytes()


@pytest.fixture
def server(content: bytes) -> Iterator[Server]:
    with Server(content) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DENSEMATCH_WEIGHTS", str(tmp_path / "store"))
    monkeypatch.delenv("DENSEMATCH_WEIGHTS_MIRROR", raising=False)
    monkeypatch.setattr(fetching, "_BLOCK", 1 << 16)
    entry = dataclasses.replace(OFFICIAL[NAME], sha256="", size=0, restricted=False)
    monkeypatch.setitem(OFFICIAL, NAME, entry)
    return tmp_path / "store"


def pin(monkeypatch: pytest.MonkeyPatch, digits: str) -> None:
    monkeypatch.setitem(OFFICIAL, NAME, dataclasses.replace(OFFICIAL[NAME], sha256=digits))


def partial(store: Path) -> set[str]:
    return {path.name for path in (store / "partial").iterdir() if path.suffix != ".lock"}


def test_a_file_is_fetched_checked_stored_and_recorded(server: Server, content: bytes, store: Path) -> None:
    steps: list[tuple[int, int]] = []
    path = fetch(NAME, source=server.address, progress=lambda done, total: steps.append((done, total)))
    assert path == store / f"{NAME}.safetensors" == checkpoint_path(NAME)
    assert server.requests == [(f"/{FILE}", None)]
    assert steps[-1] == (len(content), len(content))
    assert len(steps) > 5, "it streams"
    record = read_record(NAME)
    assert record is not None
    assert record.sha256 == hashlib.sha256(content).hexdigest()
    assert record.source == f"{server.address}/{FILE}"
    assert verify_stored(NAME) is None
    assert read_checkpoint(NAME).keys() == key_table("dstl_r2d2").keys()
    assert not partial(store)
    fetch(NAME, source=server.address)
    assert len(server.requests) == 1, "what is there and intact is not fetched again"


def test_the_metadata_name_the_matcher_and_the_licence(server: Server) -> None:
    from safetensors import safe_open

    with safe_open(str(fetch(NAME, source=server.address)), framework="pt") as file:
        metadata = file.metadata()
    assert metadata["matcher"] == "gcm_paper"
    assert metadata["checkpoint"] == NAME
    assert "non-commercial" in metadata["licence"]


def test_a_broken_download_is_gone_on_with(server: Server, content: bytes, store: Path) -> None:
    server.break_after = 400_000
    with pytest.raises(ConnectionError, match=rf"stopped after 400000 of {len(content)} bytes|cannot be read"):
        fetch(NAME, source=server.address)
    assert not (store / f"{NAME}.safetensors").exists()
    with pytest.raises(ConnectionError):
        fetch(NAME, source=server.address)
    server.break_after = None
    fetch(NAME, source=server.address)
    assert [wanted for _, wanted in server.requests] == [None, "bytes=400000-", "bytes=800000-"]
    record = read_record(NAME)
    assert record is not None
    assert record.sha256 == hashlib.sha256(content).hexdigest()


def test_a_server_without_ranges_or_with_a_changed_file_begins_anew(server: Server, content: bytes) -> None:
    server.break_after = 400_000
    with pytest.raises(ConnectionError):
        fetch(NAME, source=server.address)
    server.break_after, server.ranges = None, False
    fetch(NAME, source=server.address)
    record = read_record(NAME)
    assert record is not None
    assert record.sha256 == hashlib.sha256(content).hexdigest()


def test_a_download_that_was_complete_is_not_repeated(server: Server, content: bytes, store: Path) -> None:
    server.break_after = len(content) - 1
    with pytest.raises(ConnectionError):
        fetch(NAME, source=server.address)
    part = store / "partial" / f"{NAME}.pt"
    part.write_bytes(content)
    server.break_after = None
    fetch(NAME, source=server.address)
    assert server.requests[-1][1] == f"bytes={len(content)}-"


def test_another_address_does_not_go_on_with_this_one(server: Server) -> None:
    server.break_after = 400_000
    with pytest.raises(ConnectionError):
        fetch(NAME, source=server.address)
    server.break_after = None
    fetch(NAME, source=f"{server.address}/mirror")
    assert server.requests[-1] == (f"/mirror/{FILE}", None)


def test_a_wrong_digest_is_refused_and_leaves_nothing(
    server: Server, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(monkeypatch, "0" * 64)
    with pytest.raises(ValueError, match=r"has SHA-256 [0-9a-f]{64}, but gcm_student is pinned to 0{64}: refused"):
        fetch(NAME, source=server.address)
    assert not (store / f"{NAME}.safetensors").exists()
    assert not partial(store)


def test_leading_digits_of_a_digest_are_a_pin(server: Server, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(monkeypatch, hashlib.sha256(content).hexdigest()[:8])
    fetch(NAME, source=server.address)


def test_the_digest_of_the_first_fetch_is_enforced(server: Server, content: bytes, store: Path) -> None:
    fetch(NAME, source=server.address)
    (store / f"{NAME}.safetensors").unlink()
    server.content = content + b"\0"
    with pytest.raises(ValueError, match=r"but [0-9a-f]{64} was recorded earlier for gcm_student: refused"):
        fetch(NAME, source=server.address)
    server.content = content
    fetch(NAME, source=server.address)


@pytest.mark.parametrize("page", [b"<html>log in to this network</html>", b""])
def test_a_page_instead_of_the_file_is_refused_and_not_recorded(server: Server, content: bytes, page: bytes) -> None:
    server.content = page
    with pytest.raises(ValueError, match=rf"^{server.address}/{FILE} is"):
        fetch(NAME, source=server.address)
    assert read_record(NAME) is None
    server.content = content
    fetch(NAME, source=server.address)


def test_a_stored_file_that_was_changed_is_fetched_again(server: Server, store: Path) -> None:
    fetch(NAME, source=server.address)
    (store / f"{NAME}.safetensors").write_bytes(b"changed")
    assert "has SHA-256" in str(verify_stored(NAME))
    fetch(NAME, source=server.address)
    assert verify_stored(NAME) is None


def test_refusals_and_unreachable_servers_name_the_way_out(server: Server) -> None:
    server.status = 404
    with pytest.raises(ConnectionError, match="answers 404 Not Found: try again, or give a mirror with --from"):
        fetch(NAME, source=server.address)
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionError, match=r"cannot be read .*: run the command again to resume"):
        fetch(NAME, source=server.address)


def test_a_mirror_or_a_folder_comes_from_the_environment(
    server: Server, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Path
) -> None:
    monkeypatch.setenv("DENSEMATCH_WEIGHTS_MIRROR", f"{server.address}/weights/")
    fetch(NAME)
    assert server.requests == [(f"/weights/{FILE}", None)]
    (store / f"{NAME}.safetensors").unlink()
    monkeypatch.setenv("DENSEMATCH_WEIGHTS_MIRROR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"contains neither {FILE} nor {NAME}\.safetensors"):
        fetch(NAME)
    (tmp_path / FILE).write_bytes(content)
    fetch(NAME, offline=True)
    assert len(server.requests) == 1


def test_offline_takes_what_is_stored(server: Server) -> None:
    with pytest.raises(FileNotFoundError, match="the network may not be used"):
        fetch(NAME, source=server.address, offline=True)
    path = fetch(NAME, source=server.address)
    assert fetch(NAME, offline=True) == path
    assert len(server.requests) == 1


def test_a_restricted_checkpoint_needs_consent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OFFICIAL, NAME, dataclasses.replace(OFFICIAL[NAME], restricted=True))
    with pytest.raises(ValueError, match=r"non-commercial.*add --accept-license"):
        fetch(NAME, source=server.address)
    assert not server.requests
    fetch(NAME, source=server.address, accept_license=True)


def test_a_full_disk_is_said_before_anything_is_written(
    server: Server, monkeypatch: pytest.MonkeyPatch, store: Path
) -> None:
    free = lambda _: type("Usage", (), {"free": 10})()  # noqa: E731
    monkeypatch.setattr(fetching.shutil, "disk_usage", free)
    with pytest.raises(ValueError, match=r"needs 0\.0 GB in .* are free: make room"):
        fetch(NAME, source=server.address)
    assert not (store / f"{NAME}.safetensors").exists()


def test_a_missing_checkpoint_is_said_with_licence_and_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("roma_outdoor", "dkm_indoor", "sparsencnet_k10"):
        with pytest.raises(MissingCheckpoint) as caught:
            read_checkpoint(name)
        message = str(caught.value)
        assert OFFICIAL[name].licence in message
        assert f"`densematch weights {'import FILE --as ' if name.startswith('sparse') else 'fetch '}{name}" in message
        assert ("--accept-license" in message) == (name == "dkm_indoor")
        assert "\n" not in message


def test_an_import_replaces_all_or_nothing(tmp_path: Path, content: bytes, store: Path) -> None:
    good, bad = tmp_path / FILE, tmp_path / "bad.pt"
    good.write_bytes(content)
    torch.save({"state_dict": {}}, bad)
    path = import_checkpoint(good, NAME)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="refused"):
        import_checkpoint(bad, NAME)
    assert path.read_bytes() == before
    # a safetensors file with the same keys is taken as well, without a digest of the published file
    other = tmp_path / "other.safetensors"
    other.write_bytes(before)
    import_checkpoint(other, NAME)
    assert read_state(path).keys() == key_table("dstl_r2d2").keys()
    assert verify_stored(NAME) is None


def test_any_file_can_stand_in_for_the_stored_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    published = read_checkpoint(NAME, tmp_path / FILE)
    stored = read_checkpoint(NAME, import_checkpoint(tmp_path / FILE, NAME))
    assert published.keys() == stored.keys()
    assert all(torch.equal(published[key], stored[key]) for key in stored)
