"""Options and messages that several subcommands share."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ros2_densematch.cli.errors import InputError

if TYPE_CHECKING:
    from ros2_densematch.configuration import Configuration
    from ros2_densematch.matchers.base import Matcher

OutOption = Annotated[Path, typer.Option("--out", help="Folder for the results; created if missing.")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="ROS parameter file or plain YAML (default: built-in values).")
]
MatcherOption = Annotated[
    str | None, typer.Option("--matcher", help="Matcher (default: gcm, or the matcher of --weights).")
]
PresetOption = Annotated[str | None, typer.Option("--preset", help="Preset for speed or accuracy (default: base).")]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="Device: auto, cpu, cuda or cuda:N (default: auto).")
]
BackendOption = Annotated[
    str | None,
    typer.Option("--backend", help="Runtime of the network: torch, or onnx for ONNX Runtime (default: torch)."),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option("--weights", help="Weights file; it determines the matcher unless --matcher is given."),
]

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any parameter or option, for example tracker.min_inliers=30 or gcm.min_score=0.2; may be repeated.",
    ),
]


_COMMAND_LINE = "the command line"


def say(message: str) -> None:
    """One line for the person at the terminal, on stderr: stdout stays free for results."""
    print(message, file=sys.stderr, flush=True)


def configured(
    config: Path | None,
    matcher: str | None,
    preset: str | None,
    device: str | None,
    weights: Path | None,
    assignments: list[str] | None = None,
    *,
    backend: str | None = None,
) -> Configuration:
    """The configuration file (or the defaults) with the command line's options on top, those of --set last.

    Raises:
        FileNotFoundError: the configuration or weights file does not exist.
        ValueError: something in the file, or the name of the matcher, is not valid.
    """
    from ros2_densematch.configuration import Configuration, configuration_from, flatten, read_configuration, values_of
    from ros2_densematch.matchers.registry import list_matchers

    base = Configuration() if config is None else read_configuration(config)
    given: dict[str, Any] = {}
    if weights is not None:
        given["weights"] = str(weights)
        if matcher is None:
            given["matcher"] = matcher_named_in(weights)
    if preset is not None:
        given["preset"] = preset
    if device is not None:
        given["device"] = device
    if backend is not None:
        given["backend"] = backend
    if matcher is not None:
        given["matcher"] = matcher
        if weights is None and matcher != base.matcher:
            given["weights"] = ""  # the file's weights belong to the file's matcher
    values = {**dict(flatten(values_of(base))), **given, **settings_of(assignments or [])}
    try:
        chosen = configuration_from(values, _COMMAND_LINE)
    except ValueError as error:
        raise InputError(_as_written(str(error), given)) from error
    if chosen.matcher not in list_matchers():
        where = "--matcher" if matcher is not None else f"{weights or config or '--set'}:"
        raise InputError(
            f"{where} {chosen.matcher}: there is no such matcher: choose one of {', '.join(list_matchers())}"
        )
    return chosen


def _as_written(problem: str, given: dict[str, Any]) -> str:
    """A problem of a parameter with the option that the user wrote: --device for `device`, --set for the others."""
    text = problem.removeprefix(f"{_COMMAND_LINE}: ")
    name = re.match(r"(?:unknown parameter ')?([\w.]+)", text)
    if name is None or name[1] not in given:
        return f"--set: {text}" if text.startswith("unknown") else f"--set {text}"
    what = text.removeprefix(f"{name[1]} = ")
    if name[1] == "device":
        what = f"{given['device']!r}: choose auto, cpu, cuda or cuda:N (for example cuda:0)"
    return f"--{name[1]} {what}"


def settings_of(assignments: list[str]) -> dict[str, Any]:
    """Name -> value of NAME=VALUE, the value read as YAML.

    Raises:
        InputError: no equals sign, or a value that is not YAML.
    """
    import yaml

    found: dict[str, Any] = {}
    for assignment in assignments:
        name, sign, value = assignment.partition("=")
        if not sign or not name.strip():
            raise InputError(f"--set {assignment!r}: write NAME=VALUE, for example gcm.min_score=0.2")
        try:
            found[name.strip()] = yaml.safe_load(value) if value.strip() else ""
        except yaml.YAMLError as error:
            raise InputError(f"--set {assignment!r}: the value cannot be read: {str(error).splitlines()[0]}") from error
    return found


def matcher_named_in(weights: Path) -> str:
    """The matcher that a weights file names in its safetensors metadata (key `matcher`).

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not a safetensors file, or it names no matcher.
    """
    if not weights.is_file():
        raise FileNotFoundError(f"there is no weights file {weights}: check --weights")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(weights), framework="np") as file:
            name = (file.metadata() or {}).get("matcher")
    except SafetensorError as error:
        raise InputError(f"{weights} is not a safetensors file ({error}): check --weights") from error
    if name is None:
        raise InputError(f"{weights} does not name its matcher: add --matcher NAME")
    return str(name)


def matcher_of(configuration: Configuration) -> Matcher:
    """Builds the configured matcher and says once on which device it runs."""
    from ros2_densematch.matchers.identity import device_of, runtime_of
    from ros2_densematch.matchers.registry import load_matcher

    matcher = load_matcher(
        configuration.matcher,
        device=configuration.device,
        preset=configuration.preset,
        weights=configuration.weights or None,
        backend=configuration.backend,
        **configuration.options.get(configuration.matcher, {}),
    )
    say(f"device: {device_of(matcher)}")
    if runtime := runtime_of(matcher):
        say(f"network: {runtime}")
    return matcher


def matcher_facts(configuration: Configuration, matcher: Matcher) -> dict[str, str]:
    """The `matcher` entry of summary.json."""
    from ros2_densematch.matchers.identity import device_of, runtime_of, weights_of

    runtime = runtime_of(matcher)
    return {
        "name": matcher.name,
        "preset": configuration.preset,
        "weights": weights_of(matcher, configuration.weights),
        "device": device_of(matcher),
        **({"runtime": runtime} if runtime else {}),
    }


def identity_of(configuration: Configuration, matcher: Matcher) -> str:
    """Name of the matcher with the checksum of its weights, as messages carry it."""
    from ros2_densematch.matchers import identity

    return identity.identity_of(matcher, configuration.weights)


def estimator_facts(configuration: Configuration) -> dict[str, Any]:
    """The `estimator` entry of summary.json: no figure stands without its estimator and threshold."""
    pose = configuration.tracker.pose
    return {"name": "PoseLib LO-RANSAC", "max_epipolar_error_px": pose.max_epipolar_error_px}


def image_size(word: str) -> tuple[int, int]:
    """Width and height of WIDTHxHEIGHT.

    Raises:
        InputError: another form, or a side of less than 64 pixels.
    """
    width, _, height = word.strip().lower().partition("x")
    if not (width.isdigit() and height.isdigit() and min(int(width), int(height)) >= 64):
        raise InputError(f"--size {word.strip()!r}: write WIDTHxHEIGHT of at least 64 pixels, for example 640x480")
    return int(width), int(height)


def output_folder(out: Path) -> Path:
    """The folder for results, created if missing.

    Raises:
        InputError: the path is a file, or cannot be made or written.
    """
    import os

    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file: choose a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out} cannot be created ({error.strerror}): choose another folder") from error
    if not os.access(out, os.W_OK):
        raise InputError(f"--out {out} cannot be written: choose another folder or change its permissions")
    return out
