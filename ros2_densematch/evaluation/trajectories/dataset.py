"""Sequences with true poses: what `eval trajectory` runs over."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ros2_densematch.evaluation.datasets.base import DatasetError
from ros2_densematch.evaluation.datasets.catalogue import TRAJECTORIES
from ros2_densematch.geometry.trajectory import Trajectory
from ros2_densematch.io.sources.base import FrameSource
from ros2_densematch.io.sources.listed import is_benchmark_folder
from ros2_densematch.io.sources.opening import open_source
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.io.sources.storage import is_bag


@dataclass(frozen=True, eq=False)
class Recording:
    """A sequence and its true poses.

    Attributes:
        name: unique in its data set.
        source: its frames; each iteration reads them again.
        truth: T_world_from_camera over time.
    """

    name: str
    source: FrameSource
    truth: Trajectory


@dataclass(frozen=True, eq=False)
class TrajectoryDataset:
    """Sequences with true poses; the attributes are those of `Dataset`, with `recordings` in place of pairs."""

    name: str
    folder: Path
    recordings: tuple[Recording, ...]
    unusable: tuple[tuple[str, str], ...] = ()
    licence: str = ""
    research_only: bool = False
    layout: str = "sequences"
    task: Literal["trajectory", "bag"] = "trajectory"
    unit: Literal["sequence"] = "sequence"
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def count(self) -> int:
        """Sequences, with those that cannot be used."""
        return len(self.recordings) + len(self.unusable)

    @property
    def counted(self) -> str:
        """Their number in words."""
        return f"{self.count} {self.unit}{'' if self.count == 1 else 's'}"

    def fingerprint(self) -> str:
        """SHA-256 over names, lengths and true poses, 16 hex digits: whether stored tracks belong to this data."""
        digest = hashlib.sha256()
        for recording in self.recordings:
            digest.update(f"{recording.name}\0{recording.source.length}\0".encode())
            digest.update(recording.truth.stamps_ns.tobytes() + recording.truth.T_world_from_camera.tobytes())
        for name, _ in self.unusable:
            digest.update(name.encode())
        return digest.hexdigest()[:16]

    def facts(self) -> dict[str, Any]:
        """The `dataset` entry of scores.json."""
        return {
            "name": self.name,
            "task": self.task,
            "layout": self.layout,
            "sequences": self.count,
            "licence": self.licence,
            "research_only": self.research_only,
            "fingerprint": self.fingerprint(),
            "notes": list(self.notes),
        }


def open_sequences(data: str, folder: Path | None, options: SourceOptions) -> TrajectoryDataset:
    """The sequences that a short name or a path means: a single one, or all in a folder.

    Args:
        data: tum, euroc, kitti-odometry (with `folder`), or a path.
        folder: where the data set of that short name lies.
        options: topics and calibration, for all of them.

    Raises:
        DatasetError: no sequence is found, or none has true poses; the message says what is lacking.
        FileNotFoundError: there is no such path.
    """
    known = TRAJECTORIES.get(data)
    if known is not None and folder is None:
        raise DatasetError(f"{data} needs --data DIR with {known.files}; `--download-help` says where it comes from")
    path = Path(data) if folder is None else folder
    if not path.exists():
        names = ", ".join(TRAJECTORIES)
        raise FileNotFoundError(
            f"{path} is no path and no known data set: give a sequence, a folder of them, or {names}"
        )
    recordings, unusable = [], []
    for found in _found(path):
        try:
            source = open_source(found, options)
            truth = source.ground_truth
            if truth is None:
                why = "; ".join(w for w in source.warnings if "ground truth" in w.lower() or "groundtruth" in w)
                raise DatasetError(why or "it has no ground truth: give its topic with --ground-truth-topic")
            recordings.append(Recording(found.resolve().name, source, truth))
        except (ValueError, OSError) as error:
            unusable.append((found.resolve().name, " ".join(str(error).split())))
    if not recordings:
        why = "; ".join(f"{name}: {reason}" for name, reason in unusable[:3])
        raise DatasetError(f"{path} has no sequence with true poses ({why or 'no sequence was found'})")
    return TrajectoryDataset(
        data if known is not None else path.resolve().name,
        path,
        tuple(recordings),
        tuple(unusable),
        known.licence if known is not None else "",
        known.research_only if known is not None else False,
    )


def _is_sequence(path: Path) -> bool:
    return is_bag(path) or is_benchmark_folder(path) or (path / "frames.csv").is_file()


def _found(path: Path) -> list[Path]:
    """The path itself, or the sequences in it or in its folder `sequences` (KITTI), by name."""
    if path.is_file() or _is_sequence(path):
        return [path]
    inside = path / "sequences" if (path / "sequences").is_dir() else path
    return sorted(child for child in inside.iterdir() if _is_sequence(child))
