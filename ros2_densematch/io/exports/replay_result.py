"""What `densematch replay` wrote, read back frame by frame, and the relative poses behind it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.files.results_folder import no_summary
from ros2_densematch.geometry import poses
from ros2_densematch.io.results.tum import read_tum
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.tracked_frame import TrackedFrame


@dataclass(frozen=True, eq=False)
class FrameResult:
    """One frame of a replay, while it runs or from its result folder.

    Attributes:
        index, stamp_ns: of the frame.
        status: name of the tracker's status.
        reason: why, in words.
        is_keyframe: the frame is a keyframe from now on.
        segment: number of the stretch of trajectory.
        keyframe_stamp_ns: time of the keyframe that the frame was matched against; -1 where there was none.
        T_world_from_camera: (4, 4), or None without a pose.
        reference_xy, query_xy: float32 (N, 2), pixels in keyframe and frame, (0, 0) = centre of the top-left pixel.
        score: float32 (N,).
        inlier: bool (N,), matches that agree with the pose; all where none was estimated.
    """

    index: int
    stamp_ns: int
    status: str
    reason: str
    is_keyframe: bool
    segment: int
    keyframe_stamp_ns: int
    T_world_from_camera: Float64 | None
    reference_xy: NDArray[np.float32]
    query_xy: NDArray[np.float32]
    score: NDArray[np.float32]
    inlier: NDArray[np.bool_]

    @staticmethod
    def of(tracked: TrackedFrame) -> FrameResult:
        """Of a frame that was just tracked."""
        m = tracked.correspondences
        none = np.zeros((0, 2), np.float32)
        count = 0 if m is None else len(m)
        return FrameResult(
            index=tracked.index,
            stamp_ns=tracked.stamp_ns,
            status=tracked.status.value,
            reason=tracked.reason,
            is_keyframe=tracked.is_keyframe,
            segment=tracked.segment,
            keyframe_stamp_ns=tracked.keyframe_stamp_ns,
            T_world_from_camera=tracked.T_world_from_camera,
            reference_xy=none if m is None else m.reference_xy,
            query_xy=none if m is None else m.query_xy,
            score=np.zeros(0, np.float32) if m is None else m.score,
            inlier=np.ones(count, np.bool_) if tracked.inliers is None else tracked.inliers,
        )


def read_frame_results(folder: Path) -> Iterator[FrameResult]:
    """The frames of a result folder of `densematch replay`, in order.

    Raises:
        FileNotFoundError: a file of the result is missing.
        ValueError: the folder holds results of another command.
    """
    summary = replay_summary(folder)
    rows = _rows(folder)
    world = trajectory_poses(folder, summary)
    matches = _correspondences(folder)
    waiting = next(matches, None)
    for row in rows:
        stamp = int(row["stamp_ns"])
        found = None
        if waiting is not None and waiting[0] == stamp:
            found, waiting = waiting[1], next(matches, None)
        reference_xy, query_xy = (
            np.asarray([] if found is None else getattr(found, side), np.float32).reshape(-1, 2)
            for side in ("reference_xy", "query_xy")
        )
        count = len(query_xy)
        inlier = np.ones(count, np.bool_) if found is None or not len(found.inlier) else np.asarray(found.inlier) > 0
        yield FrameResult(
            index=int(row["index"]),
            stamp_ns=stamp,
            status=row["status"],
            reason=row["reason"],
            is_keyframe=row["is_keyframe"] == "1",
            segment=int(row["segment"]),
            keyframe_stamp_ns=int(row["keyframe_stamp_ns"] or -1),
            T_world_from_camera=world.get(stamp),
            reference_xy=reference_xy,
            query_xy=query_xy,
            score=np.zeros(0, np.float32) if found is None else np.asarray(found.score, np.float32),
            inlier=inlier,
        )


def replay_summary(folder: Path) -> dict[str, Any]:
    """summary.json of a result folder of `densematch replay`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is one of another command, or cannot be read.
    """
    file = folder / "summary.json"
    if not file.is_file():
        raise no_summary(folder, "replay")
    try:
        content: dict[str, Any] = json.loads(file.read_text("utf-8"))
        command = content.get("command")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file} cannot be read ({error}): replay the recording again") from None
    if command != "replay":
        raise ValueError(f"{folder} contains results of `densematch {command}`, not of `densematch replay`")
    return content


def trajectory_poses(folder: Path, summary: dict[str, Any]) -> dict[int, Float64]:
    """T_world_from_camera (4, 4) by stamp in nanoseconds, of all segments."""
    found: dict[int, Float64] = {}
    for name in summary["files"]:
        if name.endswith(".tum"):
            trajectory = read_tum(folder / name)
            found |= zip(trajectory.stamps_ns.tolist(), trajectory.T_world_from_camera, strict=True)
    return found


@dataclass(frozen=True, eq=False)
class RelativeRow:
    """A relative pose of relative_poses.csv.

    Attributes:
        reference, query: frame indices of keyframe and frame.
        reference_stamp_ns, query_stamp_ns: their times.
        geometry: class of the geometry, as CALIBRATED.
        scale: NONE, UNIT or METRIC.
        T_query_from_reference: (4, 4), X_query = R X_reference + t.
        covariance: (6, 6), order x y z, rotation x y z, perturbation on the left, fixed axes of the query frame.
        num_inliers: matches that agree.
    """

    reference: int
    query: int
    reference_stamp_ns: int
    query_stamp_ns: int
    geometry: str
    scale: str
    T_query_from_reference: Float64
    covariance: Float64
    num_inliers: int


def read_relative_poses(folder: Path) -> list[RelativeRow]:
    """The frames of a replay that have a relative pose, in order.

    Raises:
        FileNotFoundError: there is no relative_poses.csv.
        ValueError: it is another table.
    """
    return [_relative(row) for row in _rows(folder) if row["qw"]]


def _relative(row: dict[str, str]) -> RelativeRow:
    t, q = ([float(row[kind + axis]) for axis in axes] for kind, axes in (("t", "xyz"), ("q", "xyzw")))
    covariance = np.zeros((6, 6))
    upper = np.triu_indices(6)
    covariance[upper] = [float(row[f"cov_{i}{j}"]) for i, j in zip(*upper, strict=True)]
    covariance += np.triu(covariance, 1).T
    return RelativeRow(
        reference=int(row["keyframe_index"]),
        query=int(row["index"]),
        reference_stamp_ns=int(row["keyframe_stamp_ns"]),
        query_stamp_ns=int(row["stamp_ns"]),
        geometry=row["geometry"],
        scale=row["scale"],
        T_query_from_reference=poses.pose_from_quaternion(t, q),
        covariance=covariance,
        num_inliers=int(row["num_inliers"]),
    )


def _rows(folder: Path) -> list[dict[str, str]]:
    file = folder / "relative_poses.csv"
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} contains no relative_poses.csv: give the --out folder of `densematch replay`"
        )
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if rows and not {"stamp_ns", "status", "qw", "cov_55"} <= set(rows[0]):
        raise ValueError(f"{file} does not have the columns of a replay: replay the recording again")
    return rows


def _correspondences(folder: Path) -> Iterator[tuple[int, Any]]:
    """(stamp, densematch/Correspondences) of the result bag, in the order of time; as the bag itself defines them."""
    from rosbags.rosbag2 import Reader

    from ros2_densematch.messages.typestore import recorded_typestore

    bag = folder / "bag"
    if not bag.is_dir():
        raise FileNotFoundError(f"{bag} is missing: replay the recording again")
    with Reader(bag) as reader:
        wanted = [c for c in reader.connections if c.topic == "/matcher/correspondences"]
        store = recorded_typestore(tuple((c.msgtype, c.msgdef.data) for c in wanted))
        for connection, stamp, data in reader.messages(connections=wanted):
            yield stamp, store.deserialize_cdr(data, connection.msgtype)


def beside_their_frames(
    results: Iterable[FrameResult], source: Iterable[Frame] | None
) -> Iterator[tuple[FrameResult, Frame | None]]:
    """Each result with the frame that it is of; None where the source does not give that frame any more."""
    frames = iter(source or ())
    waiting = next(frames, None)
    for result in results:
        while waiting is not None and waiting.index < result.index:
            waiting = next(frames, None)
        fits = waiting is not None and (waiting.index, waiting.stamp_ns) == (result.index, result.stamp_ns)
        yield result, waiting if fits else None
