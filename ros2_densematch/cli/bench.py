"""`densematch bench`: time per frame against an encoded keyframe, beside SIFT from OpenCV in the same run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ros2_densematch.cli.errors import InputError
from ros2_densematch.cli.options import (
    DeviceOption,
    MatcherOption,
    PresetOption,
    SetOption,
    WeightsOption,
    configured,
    matcher_facts,
    matcher_of,
    output_folder,
)
from ros2_densematch.cli.progress import progress_counter
from ros2_densematch.files.results_folder import refuse_foreign

if TYPE_CHECKING:
    from ros2_densematch.configuration import Configuration
    from ros2_densematch.evaluation.pictures import Picture
    from ros2_densematch.geometry.camera import Camera
    from ros2_densematch.matchers.base import Matcher

BASELINE = "sift"
FLIGHT_FRAMES = (20, 26)  # of the demo flight: sideways past foreground objects


def command(
    reference: Annotated[Path | None, typer.Argument(metavar="REF", help="Keyframe (default: rendered).")] = None,
    query: Annotated[Path | None, typer.Argument(metavar="QUERY", help="Frame (default: rendered).")] = None,
    *,
    matcher: MatcherOption = None,
    preset: PresetOption = None,
    device: DeviceOption = None,
    weights: WeightsOption = None,
    assignments: SetOption = None,
    width: Annotated[
        int, typer.Option("--width", min=64, help="Width of the images in pixels, to which they are resized.")
    ] = 640,
    height: Annotated[int, typer.Option("--height", min=64, help="Height of the images in pixels.")] = 480,
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="Frames timed, after one to warm up.")] = 10,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for bench.json.")] = None,
) -> None:
    """Time encoding, matching and pose of a frame against an encoded keyframe, beside SIFT from OpenCV."""
    from ros2_densematch.cli.options import estimator_facts
    from ros2_densematch.configuration import configuration_from
    from ros2_densematch.evaluation.summary import versions, write_json

    if (reference is None) != (query is None):
        raise InputError("name two images (REF QUERY), or none for a rendered pair")
    folder = None if out is None else output_folder(out)
    if folder is not None:
        refuse_foreign(folder / "bench.json", ours=_is_bench(folder / "bench.json"))
    configuration = configured(None, matcher, preset, device, weights, assignments)
    subject = matcher_of(configuration)
    images = _rendered(width, height) if reference is None or query is None else _read(reference, query, width, height)
    baseline_configuration = configuration_from({"matcher": BASELINE})
    runs = [(configuration, subject)]
    if subject.name != BASELINE:
        runs.append((baseline_configuration, _baseline()))
    rows: list[dict[str, Any]] = []
    with progress_counter("bench", len(runs) * (repeat + 1)) as counter:
        for settings, chosen in runs:
            rows.append(_timed(chosen, settings, images, repeat, counter.advance))
    _print(rows, width, height, repeat)
    if folder is not None:
        result = {
            "command": "bench",
            "versions": versions(),
            "width": width,
            "height": height,
            "repeat": repeat,
            "threads": _threads(),
            "estimator": estimator_facts(configuration),
            "runs": rows,
            "total_ratio_to_baseline": rows[0]["timings_ms"]["total"]["median"]
            / rows[-1]["timings_ms"]["total"]["median"],
        }
        write_json(folder / "bench.json", result)


def _is_bench(file: Path) -> bool:
    """Whether the file is the result of an earlier run."""
    import json

    try:
        return bool(json.loads(file.read_text("utf-8")).get("command") == "bench")
    except (OSError, ValueError, AttributeError):
        return False


def _timed(
    matcher: Matcher, configuration: Configuration, images: tuple[Picture, Picture, Camera], repeat: int, advance: Any
) -> dict[str, Any]:
    """Milliseconds by stage over `repeat` frames; the first one, which warms up, is not counted."""
    from ros2_densematch.evaluation.summary import stage_times
    from ros2_densematch.geometry.two_view import estimate_relative_pose

    image0, image1, camera = images
    settings = configuration.tracker
    keyframe = matcher.encode(image0, reference=True)
    timings: list[dict[str, float]] = []
    for i in range(repeat + 1):
        begin = time.perf_counter()
        encoding = matcher.encode(image1)
        encoded = time.perf_counter()
        matches = matcher.match(keyframe, encoding, max_matches=settings.max_matches, seed=settings.seed)
        matched = time.perf_counter()
        pose = estimate_relative_pose(matches, camera, camera, config=settings.pose, seed=settings.seed)
        end = time.perf_counter()
        if i:
            stages = {"encode": encoded - begin, "match": matched - encoded, "pose": end - matched}
            timings.append({stage: 1e3 * seconds for stage, seconds in stages.items()})
        advance()
    return {
        "matcher": matcher_facts(configuration, matcher),
        "matches": len(matches),
        "inliers": pose.num_inliers,
        "timings_ms": stage_times(timings),
    }


def _baseline() -> Matcher:
    from ros2_densematch.matchers.registry import load_matcher

    return load_matcher(BASELINE)


def _rendered(width: int, height: int) -> tuple[Picture, Picture, Camera]:
    """Two frames of the demo flight: nothing to download."""
    from ros2_densematch.simulation.flight import demo_camera, demo_flight
    from ros2_densematch.simulation.renderer import render
    from ros2_densematch.simulation.worlds import workshop

    scene, camera, flight = workshop(), demo_camera(width, height), demo_flight()
    first, second = (render(scene, camera, flight.T_world_from_camera[i]).image for i in FLIGHT_FRAMES)
    return first, second, camera


def _read(reference: Path, query: Path, width: int, height: int) -> tuple[Picture, Picture, Camera]:
    import cv2
    import numpy as np

    from ros2_densematch.io.sources.files import read_image
    from ros2_densematch.simulation.flight import demo_camera

    images = [np.asarray(cv2.resize(read_image(p), (width, height)), np.uint8) for p in (reference, query)]
    # The time of the estimator does not depend on the exact calibration; these images' own is not asked for.
    return images[0], images[1], demo_camera(width, height)


def _threads() -> dict[str, int]:
    import os

    import cv2

    return {"cores": os.cpu_count() or 1, "opencv": cv2.getNumThreads()}


def _print(rows: list[dict[str, Any]], width: int, height: int, repeat: int) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"median milliseconds a frame, {width} x {height}, {repeat} frames against an encoded keyframe"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("matcher", "encode", "match", "pose", "total", "ratio", "matches", "inliers"):
        table.add_column(heading, justify="left" if heading == "matcher" else "right")
    base = rows[-1]["timings_ms"]["total"]["median"]
    for row in rows:
        times = row["timings_ms"]
        name = f"{row['matcher']['name']} ({row['matcher']['preset']}, {row['matcher']['device']})"
        cells = [f"{times[stage]['median']:.1f}" for stage in ("encode", "match", "pose", "total")]
        ratio = f"{times['total']['median'] / base:.2f}"
        table.add_row(name, *cells, ratio, str(row["matches"]), str(row["inliers"]))
    Console(width=110).print(table)
    print(f"ratio: total against {BASELINE} (OpenCV SIFT, ratio test and mutual nearest neighbours) in this run")
