"""`densematch inspect`: what is in a bag, and what is wrong with it, before anything is computed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ros2_densematch.cli.errors import DONE, InputError

if TYPE_CHECKING:
    from ros2_densematch.io.sources.inspection import Inspection, TopicFacts


def command(
    bag: Annotated[Path, typer.Argument(metavar="BAG", help="Bag: folder, .mcap, .db3 or .bag file.")],
    *,
    full: Annotated[bool, typer.Option("--full", help="Read every message instead of the index and samples.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> int:
    """Say what is in a bag: topics, clocks, gaps, calibrations and their plausibility, transforms, damage."""
    from ros2_densematch.files.shipped import sample_file
    from ros2_densematch.io.sources.inspection import inspect_bag
    from ros2_densematch.io.sources.storage import is_bag

    bag = sample_file(bag)
    if not bag.exists():
        raise FileNotFoundError(f"{bag} does not exist: check the path of the bag")
    if not is_bag(bag):
        raise InputError(f"{bag} is not a bag: give a .mcap, .db3 or .bag file, or the folder of a bag")
    found = inspect_bag(bag, full=full)
    if as_json:
        json.dump(found.as_dict(), sys.stdout, indent=1)
        print()
    else:
        _print(found)
    return DONE


def _print(found: Inspection) -> None:
    if not found.full:
        print("from the index and the first messages of each topic; --full reads all")
    rows: list[tuple[str, ...]] = [("topic", "type", "messages", "Hz", "gaps", "longest", "clock", "time")]
    rows += [_row(topic, found.image_topic) for topic in found.topics]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for topic in found.topics:
        for text in topic.time:
            print(f"{topic.name}: {text}")
        if topic.unreadable:
            print(f"{topic.name}: {topic.unreadable} of {topic.looked_at} messages are not valid {topic.type} messages")
        if topic.without_stamp:
            print(f"{topic.name}: {topic.without_stamp} of {topic.looked_at} messages have no stamp")
    for calibration in found.calibrations:
        if calibration.size is not None and calibration.K is not None:
            (width, height), K = calibration.size, calibration.K
            print(
                f"calibration {calibration.topic}: {width} x {height}, fx {K[0]:.2f}, fy {K[4]:.2f}, cx {K[2]:.2f}, "
                f"cy {K[5]:.2f}, {calibration.distortion_model}, frame {calibration.frame_id or '(none)'}: "
                f"{'doubtful' if calibration.doubts else 'plausible'}"
            )
        for doubt in calibration.doubts:
            print(f"  {calibration.topic}: {doubt}")
    print(f"fixed transforms: {', '.join(found.transforms) or 'none'}")
    print(f"images are read from: {found.image_topic or 'no topic with images'}")
    for text in found.damage or ["no damage found"]:
        print(f"damage: {text}" if found.damage else text)


def _row(topic: TopicFacts, image: str) -> tuple[str, ...]:
    """One line of the table; what is not known is a dash."""

    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    kind = (
        topic.type if topic.encoding in ("cdr", "ros1") else f"{topic.type or 'no type'} ({topic.encoding or 'none'})"
    )
    clock = "images" if topic.name == image else number(topic.clock_offset_s, "+.3f")
    return (
        topic.name,
        kind,
        number(topic.count, "d"),
        number(topic.rate_hz, ".2f"),
        str(topic.gaps),
        number(topic.largest_gap_s, ".3f"),
        clock,
        "-" if topic.from_s is None else f"{topic.from_s:.3f} to {topic.to_s:.3f}",
    )
