"""Entry point of `densematch`. A subcommand's module is imported only when that subcommand runs: help stays fast."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any

import typer

from ros2_densematch import __version__, processor
from ros2_densematch.cli.errors import exit_code_of

# name -> (module, one line for the list). A module exposes `command` (a function) or `app` (a group of commands).
COMMANDS = {
    "demo": (
        "demo",
        "Simulate a camera flight with ground truth, replay it and write the report: no download, no ROS.",
    ),
    "replay": ("replay", "Replay a bag, a video or an image folder into correspondences, poses and a report."),
    "live": ("live", "Run the ROS 2 node: live images in, correspondences and poses out."),
    "inspect": ("inspect", "Report the content of a bag: topics, clocks, gaps, calibrations, transforms, damage."),
    "match": ("match", "Match two images, or a list of pairs."),
    "eval": ("eval", "Measure matchers on data with ground truth; compare them on recordings without it."),
    "export": ("export", "Export results to hloc, COLMAP and other tools."),
    "batch": ("batch", "Replay and score many recordings, on this machine or on a Ray cluster."),
    "train": ("train", "Train a matcher from a configuration file; resumes by default."),
    "weights": ("weights", "List, fetch, verify and import weights."),
    "bench": ("bench", "Time encoding, matching and pose estimation per frame, next to a baseline."),
    "doctor": ("doctor", "List versions, devices, weights, missing components and what they disable."),
}

_THREADS, _NICE = "--threads", "--nice"
_WITH_VALUE = (_THREADS, _NICE)  # options before the subcommand that take a value


# What is wrong with an input is said by the commands, in one line. Picture decoders believe the size in a header and
# make room for it, 1 << 30 pixels where nobody says less.
_OPENCV = {
    "OPENCV_LOG_LEVEL": "FATAL",
    "OPENCV_FFMPEG_LOGLEVEL": "-8",
    "OPENCV_IO_MAX_IMAGE_PIXELS": str(1 << 27),
}


def build_app(chosen: str | None = None) -> typer.Typer:
    """The command line application, with the module of only the chosen subcommand imported.

    Args:
        chosen: the subcommand that is going to run; None imports none (enough for `--help`).
    """
    app = typer.Typer(
        name="densematch",
        help="Dense correspondences and relative poses against keyframes, from bags, videos and images.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root(
        version: Annotated[
            bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
        ] = False,
        threads: Annotated[
            int | None,
            typer.Option(
                _THREADS, min=1, help="Maximum number of threads for torch, OpenCV and BLAS each (default: their own)."
            ),
        ] = None,
        nice: Annotated[
            int, typer.Option(_NICE, min=0, max=19, help="Value to add to the nice level, which lowers the priority.")
        ] = 0,
    ) -> None:
        processor.lower_priority(nice)
        if threads is not None:
            processor.limit_threads(threads)

    for name, (module_name, summary) in COMMANDS.items():
        if name != chosen:
            app.command(name, help=summary)(_placeholder(name))
            continue
        module = import_module(f"ros2_densematch.cli.{module_name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name, help=module.command.__doc__ or summary)(module.command)

    @app.command("version", help="Print the version and exit.")
    def version_command() -> None:
        print(f"densematch {__version__}")

    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `densematch` with the given arguments (default: those of the process) and returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    chosen, threads = _first_look(_words_to_complete() or given)
    # before the libraries load, which then only read their environment
    processor.wait_quietly()
    for name, value in _OPENCV.items():
        os.environ.setdefault(name, value)
    if threads is not None:
        processor.limit_threads(threads)
    # what follows --ros-args is ROS's own and has another syntax
    at = given.index("--ros-args") if chosen == "live" and "--ros-args" in given else len(given)
    given, ros_arguments = given[:at], given[at:]

    def run() -> int | None:
        if not given:
            given.append("--help")
        app = build_app(chosen)
        result: Any = app(args=given, prog_name="densematch", standalone_mode=False, obj=ros_arguments)
        return result if isinstance(result, int) else None

    return exit_code_of(run)


def _words_to_complete() -> list[str]:
    """The words so far, where the shell asks how they may go on."""
    with suppress(ValueError):  # a quote that is not closed yet
        return shlex.split(os.environ.get("_TYPER_COMPLETE_ARGS", os.environ.get("COMP_WORDS", "")))[1:]
    return []


def _first_look(given: list[str]) -> tuple[str | None, int | None]:
    """The subcommand and the number of threads, where it is a valid one; the parser itself comes later."""
    threads, words = None, iter(given)
    for word in words:
        name, _, value = word.partition("=")
        if name in _WITH_VALUE:
            value = value or next(words, "")
            if name == _THREADS and value.isdigit() and int(value) > 0:
                threads = int(value)
        elif not word.startswith("-"):
            return word, threads
    return None, threads


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"densematch {__version__}")
        raise typer.Exit


def _placeholder(name: str) -> Callable[[], None]:
    def not_imported() -> None:
        raise RuntimeError(f"the subcommand {name} was not recognised as the first word")

    return not_imported


if __name__ == "__main__":
    sys.exit(main())
