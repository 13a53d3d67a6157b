"""The pairs that `densematch match` wrote: its arrays with the images' names."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.files.results_folder import no_summary


@dataclass(frozen=True, eq=False)
class MatchedPair:
    """One pair of a result folder.

    Attributes:
        reference, query: names of the images, relative to their common folder, with forward slashes.
        reference_xy, query_xy: float32 (N, 2), pixels, (0, 0) = centre of the top-left pixel.
        score: float32 (N,) in [0, 1].
        reference_size, query_size: (width, height) in pixels.
        inliers: bool (N,), matches that agree with the pair's geometry.
        reference_K, query_K: float64 (3, 3), also where the focal length is a guess from EXIF; None where nothing was
            known.
        T_query_from_reference: float64 (4, 4), or None without a pose, or where the cameras are a guess.
        geometry: class of the two-view geometry, as CALIBRATED; "" where there is no such pose.
        fundamental: float64 (3, 3), or None.
    """

    reference: str
    query: str
    reference_xy: NDArray[np.float32]
    query_xy: NDArray[np.float32]
    score: NDArray[np.float32]
    reference_size: tuple[int, int]
    query_size: tuple[int, int]
    inliers: NDArray[np.bool_]
    reference_K: NDArray[np.float64] | None
    query_K: NDArray[np.float64] | None
    T_query_from_reference: NDArray[np.float64] | None
    geometry: str
    fundamental: NDArray[np.float64] | None


def read_matched_pairs(folder: Path, root: Path | None = None) -> list[MatchedPair]:
    """The pairs of a result folder of `densematch match`, in its order.

    Args:
        folder: with summary.json and the pairs' .npz files.
        root: folder that the images' names are relative to; None = the deepest one that holds them all.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the folder holds results of another command, no pairs, or an image outside `root`.
    """
    summary = folder / "summary.json"
    if not summary.is_file():
        raise no_summary(folder, "match")
    try:
        content = json.loads(summary.read_text("utf-8"))
        rows = content["pairs"] if content.get("command") == "match" else None
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{summary} cannot be read ({error}): match the pairs again") from None
    if rows is None:
        raise ValueError(
            f"{folder} contains results of `densematch {content.get('command')}`, not of `densematch match`"
        )
    if not rows:
        raise ValueError(f"{folder} contains no matched pair")
    images = [Path(row[key]).absolute() for row in rows for key in ("reference", "query")]
    base = root.absolute() if root is not None else Path(os.path.commonpath([path.parent for path in images]))
    names: list[str] = []
    for path in images:
        if not path.is_relative_to(base):
            raise ValueError(f"the image {path} is not below {base}: give another --root")
        names.append(path.relative_to(base).as_posix())
    return [
        _pair(folder / f"{row['index']:06d}.npz", names[2 * i], names[2 * i + 1]) for i, row in enumerate(rows)
    ]  # fmt: skip


def _pair(path: Path, reference: str, query: str) -> MatchedPair:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: match the pairs again")
    with np.load(path, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    kind = str(found.get("uncalibrated", "fundamental"))
    nothing = np.zeros(len(found["score"]), np.bool_)
    guessed = str(found.get("intrinsics", "")) == "guess"
    # a pose that stands on a guessed focal length is not handed on: the fundamental matrix needs no guess
    inliers = found.get(f"{kind}_inliers", nothing if guessed else found.get("inliers", nothing))
    a, b = found["reference_size"], found["query_size"]
    return MatchedPair(
        reference=reference,
        query=query,
        reference_xy=found["reference_xy"],
        query_xy=found["query_xy"],
        score=found["score"],
        reference_size=(int(a[0]), int(a[1])),
        query_size=(int(b[0]), int(b[1])),
        inliers=np.asarray(inliers, np.bool_),
        reference_K=found.get("reference_K"),
        query_K=found.get("query_K"),
        T_query_from_reference=None if guessed else found.get("T_query_from_reference"),
        geometry="" if guessed else str(found.get("geometry", "")),
        fundamental=found.get("fundamental"),
    )
