"""`densematch bench`: what a frame costs, by matcher, preset and resolution, full and guided, beside OpenCV."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ros2_densematch.cli.errors import InputError
from ros2_densematch.cli.options import (
    DeviceOption,
    SetOption,
    WeightsOption,
    configured,
    image_size,
    matcher_facts,
    matcher_of,
    output_folder,
    say,
)
from ros2_densematch.cli.progress import progress_counter
from ros2_densematch.files.results_folder import make_room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ros2_densematch.arrays import Image
    from ros2_densematch.configuration import Configuration
    from ros2_densematch.geometry.camera import Camera
    from ros2_densematch.matchers.base import Matcher

_FILES = ("bench.json", "bench.md")
KEYFRAME, FRAMES = 20, 6  # of the demo flight: sideways past foreground objects


def command(
    reference: Annotated[Path | None, typer.Argument(metavar="REF", help="Keyframe (default: rendered).")] = None,
    query: Annotated[Path | None, typer.Argument(metavar="QUERY", help="Frame (default: rendered).")] = None,
    *,
    matcher: Annotated[
        str | None,
        typer.Option("--matcher", metavar="A,B", help="Matchers (default: gcm, or the matcher of --weights)."),
    ] = None,
    preset: Annotated[str | None, typer.Option("--preset", metavar="A,B", help="Presets (default base).")] = None,
    against: Annotated[
        str, typer.Option("--against", metavar="A,B", help="Methods to compare with: sift, orb, klt, dis; or none.")
    ] = "sift",
    size: Annotated[
        str | None, typer.Option("--size", metavar="WxH,WxH", help="Resolutions; images are resized to each.")
    ] = None,
    width: Annotated[int, typer.Option("--width", min=64, help="Width in pixels if --size is not given.")] = 640,
    height: Annotated[int, typer.Option("--height", min=64, help="Height in pixels.")] = 480,
    device: DeviceOption = None,
    backend: Annotated[str | None, typer.Option("--backend", help="Backends, separated by commas: torch,onnx.")] = None,
    weights: WeightsOption = None,
    assignments: SetOption = None,
    busy: Annotated[int, typer.Option("--busy", min=0, help="Number of busy processes to run at the same time.")] = 0,
    repeat: Annotated[
        int, typer.Option("--repeat", min=1, help="Number of timed frames, after one warm-up frame.")
    ] = 10,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for bench.json and bench.md.")] = None,
) -> None:
    """Time a frame by stage: matchers, presets and resolutions, full and guided, beside OpenCV's methods."""
    from ros2_densematch.cli.options import estimator_facts
    from ros2_densematch.evaluation import timing
    from ros2_densematch.evaluation.summary import versions, write_json
    from ros2_densematch.files.atomic import write_text

    if (reference is None) != (query is None):
        raise InputError("give two images (REF QUERY), or none for a rendered flight")
    sizes = [image_size(word) for word in size.split(",")] if size is not None else [(width, height)]
    beside = _beside(against)
    settings = [
        configured(None, name, chosen, device, weights, assignments, backend=runtime)
        for name in _words(matcher)
        for chosen in _words(preset)
        for runtime in _words(backend)
    ]
    folder = None if out is None else output_folder(out)
    if folder is not None:
        make_room(folder, _FILES, ours=_is_bench(folder / _FILES[0]))
    machine = timing.machine()
    if machine["load_before"] is not None and machine["load_before"] > 0.5 and not busy:
        say(f"note: the machine is busy (load {machine['load_before']:g}): times on a quiet machine are shorter")
    rows: list[dict[str, Any]] = []
    count = len(sizes) * (2 * len(settings) + len(beside)) * (repeat + 1)
    with ExitStack() as stack:
        stack.enter_context(timing.busy(busy))
        counter = stack.enter_context(progress_counter("bench", count))
        for width_height in sizes:
            images, camera = _images(reference, query, *width_height)
            limits = timing.Limits(settings[0].tracker.max_matches, settings[0].tracker.pose, settings[0].tracker.seed)
            for configuration in settings:
                rows += _ours(configuration, images, camera, repeat, counter.advance)
            for name in beside:
                peer = timing.peer(name)
                found = timing.time_full(peer, images, camera, limits, repeat, counter.advance)
                facts = {"name": name, "preset": "", "device": "cpu", "weights": "", "what": timing.AGAINST[name][1]}
                rows.append({"matcher": facts, "mode": "full", "size": list(width_height), **found.facts()})
            for row in rows:
                row.setdefault("size", list(width_height))
    table = list(_table(rows, repeat, machine, busy))
    for line in table:
        print(line)
    if folder is not None:
        result = {
            "command": "bench",
            "versions": versions(),
            "machine": machine,
            "busy_processes": busy,
            "repeat": repeat,
            "estimator": estimator_facts(settings[0]),
            "runs": rows,
        }
        write_json(folder / _FILES[0], result)
        write_text(folder / _FILES[1], "\n".join(table) + "\n")


def _words(option: str | None) -> list[str | None]:
    """The words between commas; one None where nothing is given."""
    return [None] if option is None else [word.strip() for word in option.split(",") if word.strip()]


def _beside(option: str) -> list[str]:
    from ros2_densematch.evaluation.timing import AGAINST

    names = [word for word in _words(option) if word and word != "none"]
    unknown = [name for name in names if name not in AGAINST]
    if unknown:
        raise InputError(f"--against {unknown[0]!r} is not known: choose {', '.join(AGAINST)} or none")
    return [str(name) for name in names]


def _is_bench(file: Path) -> bool:
    """Whether the file is the result of an earlier run."""
    import json

    try:
        return bool(json.loads(file.read_text("utf-8")).get("command") == "bench")
    except (OSError, ValueError, AttributeError):
        return False


def _ours(
    configuration: Configuration, images: Sequence[Image], camera: Camera, repeat: int, advance: Callable[[], None]
) -> list[dict[str, Any]]:
    """Full and, where there is one, guided matching of one of our matchers."""
    from ros2_densematch.evaluation.timing import Limits, time_full, time_guided

    tracker = configuration.tracker
    limits = Limits(tracker.max_matches, tracker.pose, tracker.seed)
    loaded: list[Matcher] = []

    def load() -> Matcher:
        loaded.append(matcher_of(configuration))
        return loaded[-1]

    found = {"full": time_full(load, images, camera, limits, repeat, advance)}
    if loaded[0].uses_prior and len(images) > 2:  # two photos are no flight
        guided = time_guided(partial(loaded.__getitem__, 0), images, camera, tracker, repeat, advance)
        found |= {} if guided is None else {"guided": guided}
    facts = {**matcher_facts(configuration, loaded[0]), "what": f"at most {limits.max_matches} matches"}
    return [{"matcher": facts, "mode": mode, **timed.facts()} for mode, timed in found.items()]


def _images(reference: Path | None, query: Path | None, width: int, height: int) -> tuple[Sequence[Image], Camera]:
    """The keyframe and the frames that follow it, and their camera."""
    from ros2_densematch.simulation.flight import demo_camera, demo_flight

    camera = demo_camera(width, height)
    if reference is None or query is None:  # rendered: nothing to download
        from ros2_densematch.simulation.renderer import render
        from ros2_densematch.simulation.worlds import workshop

        scene, flight = workshop(), demo_flight()
        poses = flight.T_world_from_camera[KEYFRAME : KEYFRAME + FRAMES + 1]
        return [render(scene, camera, T).image for T in poses], camera
    import cv2
    import numpy as np

    from ros2_densematch.io.sources.files import read_image

    # The time of the estimator does not depend on the exact calibration; these images' own is not asked for.
    files = (reference, query)
    return [np.asarray(cv2.resize(read_image(p), (width, height)), np.uint8) for p in files], camera


def _table(rows: Sequence[dict[str, Any]], repeat: int, machine: dict[str, Any], busy: int) -> Iterator[str]:
    """The table as Markdown, with what was measured and on what."""
    beside = f", {busy} busy processes at the same time" if busy else ""
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    threads = f"{machine['torch_threads']} threads for networks, {machine['opencv_threads']} for OpenCV"
    yield f"{machine['processor']}, {machine['cores']} cores{gpu}; {threads}{beside}."
    yield f"Milliseconds, medians of {repeat} frames with the quartiles in brackets."
    yield ""
    heads = ("matcher", "preset", "size", "mode", "keyframe", "frame", "match", "pose", "total", "frames/s", "MiB")
    cells = [heads, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
    for number, line in enumerate(cells):
        left = [c.ljust(w) if i < 4 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        yield "| " + " | ".join(left) + " |"
        if number == 0:
            yield "| " + " | ".join("-" * w if i < 4 else "-" * (w - 1) + ":" for i, w in enumerate(widths)) + " |"
    yield ""
    for name, what in {row["matcher"]["name"]: row["matcher"]["what"] for row in rows}.items():
        yield f"{name}: {what}."
    yield "keyframe, frame: encoding an image, including the work that its first match triggers."
    yield "total: frame, match and pose."
    yield "guided: the tracker follows a flight, with matches carried from frame to frame and a predicted pose."


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    times, facts = row["timings_ms"], row["matcher"]

    def spread(stage: str) -> str:
        t = times[stage]
        return (
            "–" if t["median"] is None else f"{t['median']:.1f} ({t['lower_quartile']:.1f}–{t['upper_quartile']:.1f})"
        )

    name = facts["name"] if facts["device"] in ("", "cpu") else f"{facts['name']} ({facts['device']})"
    stages = [spread(stage) for stage in ("keyframe", "encode", "match", "pose", "total")]
    if "runtime" in facts:
        name = f"{name} (onnx)"
    memory = "–" if row["peak_memory_mb"] is None else f"{row['peak_memory_mb']:.0f}"
    size = f"{row['size'][0]}x{row['size'][1]}"
    return (name, facts["preset"] or "–", size, row["mode"], *stages, f"{row['frames_per_second']:.1f}", memory)
