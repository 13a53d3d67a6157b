"""What holds for every command: help, version, exit codes and one-line errors."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from ros2_densematch import __version__
from ros2_densematch.cli import errors
from ros2_densematch.cli.main import COMMANDS


def test_help_names_every_command_without_loading_anything_heavy(repository: Path) -> None:
    code = (
        "import sys; from ros2_densematch.cli.main import main; code = main(['--help']); "
        "heavy = {'torch', 'cv2', 'matplotlib', 'rosbags', 'numpy'} & set(sys.modules); "
        "print('heavy:', sorted(heavy)); sys.exit(code)"
    )
    begin = time.monotonic()
    run = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert time.monotonic() - begin < 10.0  # under a second on a quiet machine; the machine may not be quiet
    assert "heavy: []" in run.stdout
    for name in COMMANDS:
        assert name in run.stdout


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_its_own_help(densematch, name: str) -> None:
    outcome = densematch(name, "--help")
    assert outcome.code == 0, outcome.err
    assert "Usage" in outcome.out


@pytest.mark.parametrize("word", ["version", "--version"])
def test_the_version_is_printed(densematch, word: str) -> None:
    outcome = densematch(word)
    assert (outcome.code, outcome.out.strip()) == (0, f"densematch {__version__}")


@pytest.mark.parametrize(
    "words",
    [("nonsense",), ("--nonsense",), ("match",), ("replay", "x"), ("replay", "x", "--out", "y", "--max-frames", "0")],
)
def test_wrong_usage_is_one_line_and_exit_code_2(densematch, words: tuple[str, ...]) -> None:
    outcome = densematch(*words)
    assert outcome.code == 2
    assert outcome.err.startswith("densematch: error: ")
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("the wheel is square:\nmake it round"), 2),
        (FileNotFoundError(2, "No such file or directory", "bag.mcap"), 2),
        (PermissionError(13, "Permission denied", "/etc/x"), 2),
        (errors.InputError("bad"), 2),
        (RuntimeError("inconsistent"), 1),
        (OSError(28, "No space left on device", "out"), 2),
        (OSError(5, "Input/output error", "out"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_what_is_raised_becomes_an_exit_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    def command() -> None:
        raise error

    assert errors.exit_code_of(command) == code
    text = capsys.readouterr().err
    if code == 2:
        assert text.count("\n") == 1
    if code == 1:
        assert "test_command_frame.py" in text  # a short trace
        assert type(error).__name__ in text


def test_an_unknown_matcher_device_and_preset_name_the_valid_ones(densematch, flight: Path, tmp_path: Path) -> None:
    image = flight / "rgb" / "000000.png"
    for words, expected in (
        (("--matcher", "sfit"), "choose one of"),
        (("--matcher", "sift", "--device", "gpu"), "--device 'gpu'"),
        (("--matcher", "sift", "--preset", "huge"), "choose one of base"),
    ):
        outcome = densematch("match", image, image, "--out", tmp_path / "o", *words)
        assert outcome.code == 2
        assert expected in outcome.err


def test_a_weights_file_sets_the_matcher(densematch, flight: Path, tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    image = flight / "rgb" / "000000.png"
    file = tmp_path / "w.safetensors"
    save_file({"a": np.zeros(1, np.float32)}, file, {"matcher": "sift"})
    outcome = densematch("match", image, image, "--out", tmp_path / "o", "--weights", file)
    assert outcome.code == 2
    assert "sift has no weights" in outcome.err  # it was sift, not the default matcher, that was given the file
    save_file({"a": np.zeros(1, np.float32)}, file)
    assert "does not name its matcher" in densematch("match", image, image, "--out", tmp_path, "--weights", file).err
    file.write_bytes(b"no weights")
    assert "is not a safetensors file" in densematch("match", image, image, "--out", tmp_path, "--weights", file).err
    assert (
        "there is no weights file" in densematch("match", image, image, "--out", tmp_path, "--weights", "nowhere").err
    )


def test_a_file_as_output_folder_is_refused(densematch, flight: Path, tmp_path: Path) -> None:
    image = flight / "rgb" / "000000.png"
    (tmp_path / "file").write_text("x")
    outcome = densematch("match", image, image, "--matcher", "sift", "--out", tmp_path / "file")
    assert outcome.code == 2
    assert "is a file: choose a folder" in outcome.err
