"""Every command and every line of Python of README, CONTRIBUTING and docs work as they stand.

The quick part reads all of them: options and subcommands exist, and what is not run here is exempt by name. The slow
part runs the others, document by document, in a folder that holds what they name.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

import ros2_densematch as dm
from ros2_densematch.cli.main import build_app, main
from ros2_densematch.files.shipped import sample_file
from ros2_densematch.messages.conversions import header_message, to_cdr
from ros2_densematch.messages.typestore import message_class, ros2_typestore

REPOSITORY = Path(__file__).resolve().parents[2]
NETWORK, ROS, HOURS = "needs a network", "needs ROS", "takes hours, or the development data"
ONNX = "needs the extra onnx: test/graphs"
# What begins like this is not run here, and why.
EXEMPT = {
    "make ": "sets up an environment and takes hours: .ci/run",
    "pip install": NETWORK,
    "densematch weights fetch": NETWORK,
    "densematch weights import": f"{NETWORK}: the authors' checkpoints",
    "ros2 ": ROS,
    "densematch live": ROS,
    "densematch export onnx": ONNX,
    ".venv/bin/densematch live": ROS,
    "densematch train": HOURS,
    "densematch --install-completion": "changes the shell of its user",
    "densematch batch list.txt": "needs a Ray cluster",
    "densematch batch BAGS/ --config config/matcher.yaml": "needs Ray: make test-batch",
    "python -m pytest": "runs tests",
    "coverage ": "runs tests",
    "git worktree": "makes a checkout of a commit of one's choice",
    "densematch match a.jpg b.jpg --matcher toy": "needs the plugin installed: test_plugins.py",
    "densematch replay BAG --matcher toy": "needs the plugin installed: test_plugins.py",
    "densematch match --pairs pairs-query": "needs the Aachen data set",
    'python -c "from hloc': f"{NETWORK}: hloc is no dependency of the package",
    "evo_ape": "evo is no dependency of the package",
}
# Whole documents: their commands need what is named.
EXEMPT_DOCUMENTS = {
    "docs/ros.md": ROS,
    "docs/performance.md": f"measurements: {HOURS}, or a GPU",
    "docs/onnx.md": ONNX,
}
DATA = re.compile(r"\.\./shared|--data DIR|--on |--teachers|out/pose|BAG gcm sift|out/street")
EXEMPT_PYTHON = {
    "docs/onnx.md": ONNX,
    "docs/matchers/cnngeometric.md": f"{NETWORK}: the authors' checkpoints",
    "docs/matchers/gcm_paper.md": f"{NETWORK}: the authors' checkpoints",
}


@dataclass(frozen=True)
class Line:
    """A command of a document."""

    document: str
    number: int
    text: str

    @property
    def exempt(self) -> str:
        """Why it is not run here; "" where it is."""
        reasons = [reason for start, reason in EXEMPT.items() if self.text.startswith(start)]
        if self.document in EXEMPT_DOCUMENTS:
            reasons.append(EXEMPT_DOCUMENTS[self.document])
        if DATA.search(self.text):
            reasons.append(HOURS)
        return reasons[0] if reasons else ""

    def __str__(self) -> str:
        return f"{self.document}:{self.number}"


def documents() -> list[Path]:
    return [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def blocks(language: str) -> Iterator[tuple[str, int, str]]:
    """(document, number of the first line, text) of fenced blocks."""
    for path in documents():
        name, inside, start, kept = path.relative_to(REPOSITORY).as_posix(), None, 0, []
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            fence = re.match(r"```(.*)$", line)
            if fence is None:
                kept.append(line)
            elif inside is None:
                inside, start, kept = fence[1].strip(), number + 1, []
            else:
                if inside == language:
                    yield name, start, "\n".join(kept)
                inside = None


def lines() -> list[Line]:
    found = []
    for document, number, text in blocks(""):
        whole = text.replace("\\\n", "  ")  # a command may go on in the next line
        for k, line in enumerate(whole.splitlines()):
            command = re.sub(r"\s+#.*$", "", line).strip()
            if command and not command.startswith("#"):
                found.append(Line(document, number + k, command))
    return found


COMMANDS = lines()
OURS = [line for line in COMMANDS if re.match(r"([A-Z_]+=\S+ )*(\.venv/bin/)?densematch ", line.text)]


def words_of(line: Line) -> list[str]:
    """What follows `densematch`, without variables before it."""
    words = shlex.split(line.text)
    return words[1 + next(i for i, word in enumerate(words) if word.endswith("densematch")) :]


def test_there_are_commands_to_try() -> None:
    assert len(OURS) > 30
    assert len([line for line in OURS if not line.exempt]) > 12


def parsed(command: Any, words: list[str]) -> None:
    """Reads the words as the program would, without running it."""
    context = command.make_context("densematch", list(words))
    if hasattr(command, "resolve_command"):
        rest = [*getattr(context, "_protected_args", []), *context.args]
        if rest:
            _, sub, left = command.resolve_command(context, rest)
            parsed(sub, left)


@pytest.mark.parametrize("line", OURS, ids=str)
def test_every_option_that_a_document_names_exists(line: Line) -> None:
    words = words_of(line)
    if "--install-completion" in words:
        assert "--install-completion" in {o for p in typer.main.get_command(build_app()).params for o in p.opts}
        return
    chosen = next(word for word in words if not re.match(r"--|\d", word))
    parsed(typer.main.get_command(build_app(chosen)), words)


def test_every_other_command_is_exempt_by_name_or_run() -> None:
    others = [line for line in COMMANDS if line not in OURS and not line.exempt]
    known = re.compile(r"\bpython benchmarks/\w+\.py\b")  # measurements: hours
    assert not [f"{line}: {line.text} is neither run nor exempt" for line in others if not known.search(line.text)]
    named = [script for line in others for script in re.findall(r"benchmarks/\w+\.py", line.text)]
    assert [script for script in named if not (REPOSITORY / script).is_file()] == []


def test_every_exemption_is_used() -> None:
    for start in EXEMPT:
        assert any(line.text.startswith(start) for line in COMMANDS), f"nothing begins with {start!r} any more"


# ---- the slow part


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the documents name: photos, recordings, calibrations, results."""
    folder = tmp_path_factory.mktemp("place")
    photos = [cv2.imread(str(sample_file(Path(f"sample/{name}.jpg")))) for name in "ab"]
    (folder / "images").mkdir()
    (folder / "DATA/images").mkdir(parents=True)
    for name, photo in zip("ab", photos, strict=True):
        small = cv2.resize(photo, (320, 240), interpolation=cv2.INTER_AREA)
        places = ("{0}.jpg", "{1}.jpg", "{1}.png", "images/{0}.jpg", "DATA/images/{0}.jpg")
        for file in (place.format(name, name.upper()) for place in places):
            cv2.imwrite(str(folder / file), small)
    camera = next(iter(dm.open_source("sample/flight"))).camera
    assert camera is not None
    for name in ("camera.yaml", "C.yaml"):
        camera.to_yaml(folder / name)
    (folder / "pairs.txt").write_text("a.jpg b.jpg\n")
    cv2.imwrite(str(folder / "body.png"), np.full((240, 320), 255, np.uint8))
    K = " ".join(f"{v:.9g}" for v in camera.K.ravel())
    T = " ".join(str(float(v)) for v in np.eye(4).ravel())
    (folder / "DATA/pairs.txt").write_text(f"images/a.jpg images/b.jpg {K} {K} {T}\n")
    bag_with_depth(sample_file(Path("sample/flight")), folder / "BAG")
    shutil.copytree(folder / "BAG", folder / "BAGS/one")
    weights = REPOSITORY / "ros2_densematch/weights/gcm.safetensors"
    shipped = weights if weights.is_file() else next((REPOSITORY / "ros2_densematch/weights").glob("gcm*.safetensors"))
    for name in ("W/last.safetensors", "out/x/last.safetensors", "A", "B"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shipped, folder / name)
    assert main(["match", str(folder / "a.jpg"), str(folder / "b.jpg"), "--out", str(folder / "MATCHED")]) == 0
    for name in ("REPLAYED", "RESULT"):
        assert main(["replay", str(folder / "BAG"), "--max-frames", "8", "--out", str(folder / name)]) == 0
    return folder


def bag_with_depth(source: Path, target: Path) -> None:
    """The bag with a depth image of 2 m beside each image."""
    store = ros2_typestore()
    with Reader(source) as reader, Writer(target, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {}
        for c in reader.connections:
            qos = c.ext.offered_qos_profiles  # type: ignore[union-attr]
            connections[c.id] = writer.add_connection(c.topic, c.msgtype, typestore=store, offered_qos_profiles=qos)
        topic = "/camera/aligned_depth_to_color/image_raw"
        depth = writer.add_connection(topic, "sensor_msgs/msg/Image", typestore=store)
        data = np.full(320 * 240, 2000, "<u2").view(np.uint8)
        for connection, stamp, raw in reader.messages():
            writer.write(connections[connection.id], stamp, raw)
            if connection.topic == "/camera/image_raw/compressed":
                header = header_message(stamp, store.deserialize_cdr(raw, connection.msgtype).header.frame_id)
                image = message_class("sensor_msgs/msg/Image")(header, 240, 320, "16UC1", 0, 640, data)
                writer.write(depth, stamp, to_cdr(image))


RUN = sorted({line.document for line in OURS if not line.exempt})


@pytest.mark.slow
@pytest.mark.parametrize("document", RUN)
def test_commands_run_as_they_stand(
    document: str, prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(prepared)
    for line in OURS:
        if line.document != document or line.exempt:
            continue
        shutil.rmtree(prepared / "DIR", ignore_errors=True)  # each line stands for itself
        shutil.copytree(prepared / "W", prepared / "DIR")
        words = words_of(line)
        if "--nice" in words:  # its own process: the tests that follow are not to be slowed down
            code = subprocess.run([sys.executable, "-m", "ros2_densematch", *words]).returncode
        else:
            code = main(words)
        assert code == 0, f"{line}: {line.text} ended with {code}: {capsys.readouterr().err[-2000:]}"


PYTHON = list(blocks("python"))


@pytest.mark.slow
@pytest.mark.parametrize(("document", "number", "code"), PYTHON, ids=[f"{name}:{number}" for name, number, _ in PYTHON])
def test_python_runs_as_it_stands(
    document: str, number: int, code: str, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if document in EXEMPT_PYTHON:
        pytest.skip(EXEMPT_PYTHON[document])
    if document == "CONTRIBUTING.md":
        pytest.skip("shown without its imports: test_contributing.py")
    if "to_gtsam" in code:
        pytest.importorskip("gtsam")
    monkeypatch.chdir(prepared)
    images = {f"image{i}": cv2.imread(f"{name}.jpg")[..., ::-1].copy() for i, name in enumerate("ab")}
    exec(compile(code, f"{document}:{number}", "exec"), {"dm": dm, **images})
