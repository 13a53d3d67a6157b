"""Stored tracks: what the tracker said of every frame of a sequence, one file a sequence, complete or absent."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.evaluation.predictions.store import EntryStore
from ros2_densematch.evaluation.summary import FrameRecord


@dataclass(frozen=True, eq=False)
class Track:
    """A tracked sequence.

    Attributes:
        name: of the sequence.
        records: one a frame, in order.
        covered: (first, last) index into `records` of each stretch in which the camera was covered.
        warnings: what the source said was wrong.
        error: why tracking ended before the sequence did; "" where it went through.
    """

    name: str
    records: list[FrameRecord]
    covered: tuple[tuple[int, int], ...] = ()
    warnings: tuple[str, ...] = ()
    error: str = ""


class TrackStore(EntryStore):
    """The tracks of one entry on one data set; see `EntryStore`."""

    def read(self, index: int, name: str) -> Track | None:
        """The stored track of a sequence; None where there is none, or where its file is damaged or of another."""
        try:
            with np.load(self._file(index), allow_pickle=False) as archive:
                facts = json.loads(bytes(archive["facts"]).decode())
                poses = np.asarray(archive["T_world_from_camera"], np.float64)
            track = _unpacked(facts, poses)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError):
            return None
        return track if track.name == name else None

    def write(self, index: int, track: Track) -> None:
        """Stores a track in one step; the same track gives the same bytes."""
        poses = [
            np.full((4, 4), np.nan) if r.T_world_from_camera is None else r.T_world_from_camera for r in track.records
        ]
        facts = {
            "name": track.name,
            "covered": track.covered,
            "warnings": track.warnings,
            "error": track.error,
            "frames": [_frame_facts(record) for record in track.records],
        }
        buffer = io.BytesIO()
        arrays: dict[str, NDArray[Any]] = {
            "facts": np.frombuffer(json.dumps(facts).encode(), np.uint8),
            "T_world_from_camera": np.array(poses, np.float64).reshape(-1, 4, 4),
        }
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        self._store(index, buffer.getvalue())


def _frame_facts(record: FrameRecord) -> dict[str, Any]:
    facts = asdict(record)
    del facts["T_world_from_camera"]
    facts["timings_ms"] = {stage: round(ms, 3) for stage, ms in record.timings_ms.items()}
    return facts


def _unpacked(facts: dict[str, Any], poses: NDArray[np.float64]) -> Track:
    frames = facts["frames"]
    if poses.shape != (len(frames), 4, 4):
        raise ValueError(f"{len(frames)} frames with poses {poses.shape}")
    records = [
        FrameRecord(**frame, T_world_from_camera=T if np.isfinite(T).all() else None)
        for frame, T in zip(frames, poses, strict=True)
    ]
    covered = tuple((int(a), int(b)) for a, b in facts["covered"])
    return Track(str(facts["name"]), records, covered, tuple(facts["warnings"]), str(facts["error"]))
