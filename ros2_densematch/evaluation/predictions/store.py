"""Stored predictions: one file a pair, complete or absent, and a manifest that says under which settings they were
made.

A folder holds predictions of one data set under one set of settings. Files that are damaged, or that belong to another
pair, are recognised and made again; other settings are refused.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.evaluation.predictions.images import Seeing
from ros2_densematch.files.atomic import write_bytes, write_text

MANIFEST = "manifest.json"
_FORMAT = 1


class StoreError(ValueError):
    """A folder of predictions cannot be used; the message names it and the remedy."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a matcher said about a pair, in pixels of the images that it saw.

    Attributes:
        pair: name of the pair.
        reference_xy, query_xy: float32 (N, 2).
        score: float32 (N,) in [0, 1].
        precision: float32 (N, 3), upper triangle of the inverse covariance of query_xy, or None.
        overlap: in [0, 1], or NaN.
        seeing: how the two images were changed before they were matched.
        warp_xy, warp_certainty: float32 (h, w, 2) and (h, w) of a dense matcher where the task needs them, or None.
        error: why the matcher gave nothing; "" where it ran.
        timings_ms: milliseconds by stage: encode (of the images that were encoded for this pair, `images` of them: one
            that an earlier pair left encoded costs nothing) and match.
    """

    pair: str
    reference_xy: NDArray[np.float32]
    query_xy: NDArray[np.float32]
    score: NDArray[np.float32]
    precision: NDArray[np.float32] | None
    overlap: float
    seeing: tuple[Seeing, Seeing]
    warp_xy: NDArray[np.float32] | None = None
    warp_certainty: NDArray[np.float32] | None = None
    error: str = ""
    timings_ms: dict[str, float] = field(default_factory=dict)


class EntryStore:
    """Files of one entry, numbered, under settings that a manifest notes.

    Args:
        folder: of this entry; created if missing.
        settings: what the files depend on: data, images, matcher.

    Raises:
        StoreError: the folder holds files made under other settings, or its manifest is damaged.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]):
        self.folder = folder
        self._settings = json.loads(json.dumps({"format": _FORMAT, **settings}))
        file = folder / MANIFEST
        if file.exists():
            found = read_manifest(file)
            _refuse_other(folder, found, self._settings)
            return
        if folder.is_dir() and any(folder.glob("*.npz")):
            raise StoreError(
                f"{folder} holds predictions without a {MANIFEST}, so their settings are not known: remove the folder "
                "or choose another --out"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(self._settings, indent=1) + "\n")

    def has_file(self, index: int) -> bool:
        """Whether there is a file of that number, whatever it holds."""
        return self._file(index).is_file()

    def write_missing(self, index: int, pair: str, reason: str) -> None:
        """Notes why a pair has no prediction; it is tried again in the next run."""
        write_text(self._missing_file(index), json.dumps({"pair": pair, "reason": reason}) + "\n")

    def missing_reason(self, index: int) -> str:
        """Why a pair has no prediction."""
        try:
            return str(json.loads(self._missing_file(index).read_text("utf-8"))["reason"])
        except (OSError, ValueError, KeyError, TypeError):
            return (
                "its stored prediction is damaged" if self.has_file(index) else "not matched yet: the run was stopped"
            )

    def write_cost(self, cost: dict[str, Any]) -> None:
        """Stores what the run cost (memory, device)."""
        write_text(self.folder / "cost.json", json.dumps(cost, indent=1) + "\n")

    def read_cost(self) -> dict[str, Any]:
        """What the run cost; empty where it was stopped before its end."""
        try:
            content = json.loads((self.folder / "cost.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _store(self, index: int, content: bytes) -> None:
        """Stores the file of that number in one step."""
        self._missing_file(index).unlink(missing_ok=True)
        write_bytes(self._file(index), content)

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npz"

    def _missing_file(self, index: int) -> Path:
        return self.folder / f"{index:06d}.missing.json"


class PredictionStore(EntryStore):
    """The predictions of one entry on one data set; see `EntryStore`."""

    def read(self, index: int, pair: str) -> Prediction | None:
        """The stored prediction of a pair; None where there is none, or where its file is damaged or of another
        pair."""
        try:
            return read_prediction(self._file(index), pair)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError):
            return None

    def write(self, index: int, prediction: Prediction) -> None:
        """Stores a prediction in one step."""
        self._store(index, _packed(prediction))


def read_manifest(file: Path) -> dict[str, Any]:
    """The settings in a manifest.

    Raises:
        StoreError: it is damaged.
    """
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{file} is damaged ({error}): remove {file.parent} or choose another --out") from error
    if not isinstance(content, dict):
        raise StoreError(f"{file} is damaged (no object in it): remove {file.parent} or choose another --out")
    return content


def _refuse_other(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    other = [
        f"{key} {_short(found.get(key))}, not {_short(wanted.get(key))}"
        for key in sorted(found.keys() | wanted.keys())
        if found.get(key) != wanted.get(key)
    ]
    if other:
        raise StoreError(f"{folder} was made with {'; '.join(other)}: choose another --out, or remove the folder")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 90 else text[:87] + "..."


def _packed(p: Prediction) -> bytes:
    """The arrays of a prediction as an .npz archive; the same prediction gives the same bytes."""
    facts = {
        "pair": p.pair,
        "error": p.error,
        "overlap": None if np.isnan(p.overlap) else float(p.overlap),
        "timings_ms": {k: round(v, 3) for k, v in p.timings_ms.items()},
        "seeing": [vars(s) for s in p.seeing],
    }
    arrays: dict[str, NDArray[Any]] = {
        "facts": np.frombuffer(json.dumps(facts).encode(), np.uint8),
        "reference_xy": p.reference_xy,
        "query_xy": p.query_xy,
        "score": p.score,
    }
    optional = {"precision": p.precision, "warp_xy": p.warp_xy, "warp_certainty": p.warp_certainty}
    arrays |= {key: value for key, value in optional.items() if value is not None}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def read_prediction(file: Path, pair: str) -> Prediction:
    """One stored prediction.

    Raises:
        ValueError, KeyError, OSError, zipfile.BadZipFile: the file is missing, damaged or of another pair.
    """
    with np.load(file, allow_pickle=False) as archive:
        facts = json.loads(bytes(archive["facts"]).decode())
        if facts["pair"] != pair:
            raise ValueError(f"{file} belongs to the pair {facts['pair']}, not {pair}")
        a = {key: np.asarray(archive[key], np.float32) for key in archive.files if key != "facts"}
    n = len(a["score"])
    if a["reference_xy"].shape != (n, 2) or a["query_xy"].shape != (n, 2) or a["score"].shape != (n,):
        raise ValueError(f"{file}: arrays of different lengths")
    seeing = [Seeing(tuple(s["size"]), tuple(s["scale"]), s["turns"], s["half_pixel"]) for s in facts["seeing"]]
    return Prediction(
        pair=pair,
        reference_xy=a["reference_xy"],
        query_xy=a["query_xy"],
        score=a["score"],
        precision=a.get("precision"),
        overlap=float("nan") if facts["overlap"] is None else float(facts["overlap"]),
        seeing=(seeing[0], seeing[1]),
        warp_xy=a.get("warp_xy"),
        warp_certainty=a.get("warp_certainty"),
        error=str(facts["error"]),
        timings_ms={str(k): float(v) for k, v in facts["timings_ms"].items()},
    )
