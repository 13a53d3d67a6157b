"""`densematch demo`: a simulated camera flight with known poses, recorded as a bag, replayed and judged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ros2_densematch.cli.errors import DONE, OUR_FAULT
from ros2_densematch.cli.options import DeviceOption, MatcherOption, PresetOption, configured, output_folder, say
from ros2_densematch.cli.progress import progress_counter
from ros2_densematch.simulation.flight import DEFAULT_FRAMES, DEMO_SIZE, demo_camera, demo_flight

if TYPE_CHECKING:
    from ros2_densematch.simulation.flight import Flight

DEFAULT_OUT = Path("densematch-demo")
MAX_ATE_PERCENT = 1.0
MAX_ROTATION_RPE_DEG = 0.3
MIN_EXPLAINED = 0.95

_PICTURES = 8  # in flight.jpg, in two rows


def command(
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder for bag and results; created if missing.")] = DEFAULT_OUT,
    matcher: MatcherOption = None,
    preset: PresetOption = None,
    device: DeviceOption = None,
    frames: Annotated[
        int,
        typer.Option("--frames", min=20, help="Number of frames of the flight; with fewer, the camera moves faster."),
    ] = DEFAULT_FRAMES,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the textures and the noise.")] = 0,
) -> int:
    """Simulate a camera flight with ground truth, replay it and say how far off the result is: no download, no ROS."""
    from ros2_densematch.cli.replay import replay
    from ros2_densematch.cli.result_files import PLANNED
    from ros2_densematch.files.results_folder import ResultsFolder
    from ros2_densematch.io.sources.options import SourceOptions
    from ros2_densematch.simulation.bag import CAMERA_INFO_TOPIC, GROUND_TRUTH_TOPIC, IMAGE_TOPIC

    configuration = configured(None, matcher, preset, device, None)
    folder = output_folder(out)
    flight = demo_flight(frames)
    bag, sheet = folder / "flight", folder / "flight.jpg"
    results = ResultsFolder(folder, [*PLANNED, bag.name, sheet.name])
    results.begin()
    _record(bag, sheet, flight, seed)
    results.written += [bag.name, sheet.name]
    topics = SourceOptions(
        image_topic=IMAGE_TOPIC, camera_info_topic=CAMERA_INFO_TOPIC, ground_truth_topic=GROUND_TRUTH_TOPIC
    )
    result = replay(bag, folder, configuration, topics, claimed=results)
    if result.exit_code != DONE:
        return result.exit_code
    rows = read_frames(folder / "relative_poses.csv")
    criteria = judge(result.summary, rows, flight)
    _print(criteria, f"{len(flight)} frames, {flight.path_length:.1f} m, matcher {configuration.matcher}")
    print(f"report: {(folder / 'report.html').resolve()}")
    failed = [v.name for v in criteria if not v.ok]
    if failed:
        say(f"densematch: limits exceeded: {', '.join(failed)}")
        return OUR_FAULT
    return DONE


def _record(bag: Path, sheet: Path, flight: Flight, seed: int) -> None:
    """Draws the flight into a bag, and some of its frames into one picture."""
    from ros2_densematch.simulation.bag import write_flight_bag
    from ros2_densematch.simulation.sensor import Sensor
    from ros2_densematch.simulation.worlds import workshop

    begin = time.perf_counter()
    scene = workshop(seed)
    shown = {round(i * (len(flight) - 1) / (_PICTURES - 1)) for i in range(_PICTURES)}
    pictures: list[bytes] = []
    with progress_counter("simulate", len(flight)) as counter:

        def on_frame(index: int, jpeg: bytes) -> None:
            if index in shown:
                pictures.append(jpeg)
            counter.advance()

        write_flight_bag(bag, scene, demo_camera(*DEMO_SIZE), flight, Sensor(seed=seed), on_frame=on_frame)
    _contact_sheet(pictures, sheet)
    say(f"simulated {len(flight)} frames in {time.perf_counter() - begin:.1f} s: {bag}")


def _contact_sheet(jpegs: Sequence[bytes], path: Path) -> None:
    import cv2
    import numpy as np

    from ros2_densematch.files.atomic import write_bytes

    images = [np.asarray(cv2.imdecode(np.frombuffer(j, np.uint8), cv2.IMREAD_REDUCED_COLOR_2)) for j in jpegs]
    half = (len(images) + 1) // 2
    images += [np.zeros_like(images[0])] * (2 * half - len(images))
    ok, data = cv2.imencode(".jpg", np.vstack([np.hstack(images[:half]), np.hstack(images[half:])]))
    if not ok:
        raise RuntimeError(f"OpenCV could not encode {path}")
    write_bytes(path, data.tobytes())


@dataclass(frozen=True)
class FrameRow:
    """What the demo needs of one line of relative_poses.csv."""

    index: int
    status: str
    segment: int
    reason: str

    @property
    def tracked(self) -> bool:
        """Whether the frame has a pose."""
        return self.status in ("INITIALISED", "TRACKED", "NEW_KEYFRAME", "RELOCALISED")


def read_frames(path: Path) -> list[FrameRow]:
    """The lines of a relative_poses.csv, in order."""
    import csv

    with path.open(encoding="utf-8", newline="") as stream:
        return [
            FrameRow(int(row["index"]), row["status"], int(row["segment"]), row["reason"])
            for row in csv.DictReader(stream)
        ]


@dataclass(frozen=True)
class Criterion:
    """One line of the demo's table: what was measured, against which limit, and whether it holds."""

    name: str
    measured: str
    limit: str
    ok: bool


def judge(summary: dict[str, Any], rows: Sequence[FrameRow], flight: Flight) -> list[Criterion]:
    """Compares a replay of the flight with the demo's limits.

    Args:
        summary: of the replay, as in summary.json.
        rows: its frames.
        flight: what was flown.
    """
    return [*_accuracy(summary["accuracy"]), _explained(rows, len(flight)), *_loss(rows, flight)]


def _accuracy(accuracy: dict[str, Any] | None) -> list[Criterion]:
    from ros2_densematch.evaluation.lengths import length_in_words

    names = ("ATE (RMSE) after Sim(3) alignment", "rotation RPE (RMSE)")
    limits = (f"< {MAX_ATE_PERCENT:g} % of the path", f"< {MAX_ROTATION_RPE_DEG:g} deg a frame")
    if accuracy is None:
        return [Criterion(name, "no trajectory", limit, False) for name, limit in zip(names, limits, strict=True)]
    percent, metres = accuracy["ate"]["percent_of_path"], accuracy["ate"]["rmse_m"]
    angle = accuracy["rpe"]["rotation_rmse_deg"]
    return [
        Criterion(names[0], f"{percent:.3f} % ({length_in_words(metres)})", limits[0], percent < MAX_ATE_PERCENT),
        Criterion(names[1], f"{angle:.3f} deg a frame", limits[1], angle < MAX_ROTATION_RPE_DEG),
    ]


def _explained(rows: Sequence[FrameRow], total: int) -> Criterion:
    tracked = sum(row.tracked for row in rows)
    explained = sum(row.tracked or bool(row.reason) for row in rows) / total
    measured = f"{100 * tracked / total:.1f} % tracked, {100 * explained:.1f} % with a reason"
    limit = f">= {100 * MIN_EXPLAINED:g} % tracked or with a reason"
    return Criterion("frames accounted for", measured, limit, explained >= MIN_EXPLAINED)


def _loss(rows: Sequence[FrameRow], flight: Flight) -> list[Criterion]:
    """The blank wall: tracking must end there, and go on afterwards in the same segment (how well: ATE)."""
    first_blank = flight.stretch.index("turn to the blank wall")
    lost = [row.index for row in rows if not row.tracked and row.index >= first_blank]
    if not lost:
        return [Criterion("lost at the blank wall", "never", "some frames", False)]
    after = [row for row in rows if row.index > lost[-1] and row.tracked]
    before = [row for row in rows if row.index < lost[0] and row.tracked]
    loss = Criterion("lost at the blank wall", f"{len(lost)} frames, {lost[0]} to {lost[-1]}", "some frames", True)
    if not after or not before:
        return [loss, Criterion("found again", "never", "in the same segment", False)]
    same = after[0].segment == before[-1].segment
    how = f"frame {after[0].index} ({after[0].status.lower()})"
    measured = how if same else f"{how}, in a new segment"
    return [loss, Criterion("found again", measured, "in the same segment", same)]


def _print(criteria: Sequence[Criterion], title: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for heading in ("what", "measured", "limit", ""):
        table.add_column(heading)
    for v in criteria:
        table.add_row(v.name, v.measured, v.limit, Text("ok", "green") if v.ok else Text("BEYOND", "bold red"))
    console = Console()
    Console(width=console.width if console.is_terminal else 120).print(table)
