"""Pairs of images with their truth: what every layout gives, and what the later stages know of a data set.

Pixel (0, 0) is the centre of the top-left pixel of the original image, as everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64

Task = Literal["pose", "homography", "dense"]


class DatasetError(ValueError):
    """A data set cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True, eq=False)
class PoseTruth:
    """Two cameras and their true relative pose.

    Attributes:
        reference_K, query_K: (3, 3) of the original images.
        T_query_from_reference: (4, 4), X_query = R X_reference + t.
        reference_D, query_D: OpenCV's distortion coefficients k1 k2 p1 p2 k3 of images that are not rectified, or None.
        min_baseline: with a shorter translation its direction is not judged (the unit is that of t).
    """

    reference_K: Float64
    query_K: Float64
    T_query_from_reference: Float64
    reference_D: Float64 | None = None
    query_D: Float64 | None = None
    min_baseline: float = 0.0


@dataclass(frozen=True, eq=False)
class HomographyTruth:
    """H (3, 3) maps pixels of the reference to pixels of the query."""

    H: Float64


@dataclass(frozen=True, eq=False)
class FlowTruth:
    """Where every reference pixel lies in the query.

    Attributes:
        read: gives the displacement (H, W, 2) in pixels of the original images and the mask (H, W) of known pixels.
        pck: whether the data set is scored by correct pixels as well (TSS).
    """

    read: Callable[[], tuple[NDArray[np.float32], NDArray[np.bool_]]]
    pck: bool = False


@dataclass(frozen=True, eq=False)
class KeypointTruth:
    """The same semantic or hand-marked points in both images.

    Attributes:
        reference_xy, query_xy: (N, 2) pixels.
        length_px: the length that alpha multiplies in PCK, in pixels of the query (each data set has its own rule).
        rule: that rule in words.
    """

    reference_xy: Float64
    query_xy: Float64
    length_px: float
    rule: str


@dataclass(frozen=True, eq=False)
class LabelTruth:
    """Masks of the object in both images (Caltech-101): read gives two bool arrays, (H0, W0) and (H1, W1)."""

    read: Callable[[], tuple[NDArray[np.bool_], NDArray[np.bool_]]]


@dataclass(frozen=True, eq=False)
class EpipolarTruth:
    """Hand-marked correspondences that a fundamental matrix is judged by: reference_xy, query_xy (N, 2) pixels."""

    reference_xy: Float64
    query_xy: Float64


Truth = PoseTruth | HomographyTruth | FlowTruth | KeypointTruth | LabelTruth | EpipolarTruth


@dataclass(frozen=True, eq=False)
class Pair:
    """Two images and their truth.

    Attributes:
        name: unique in its data set.
        subset: scene or category, for the tables; "" where there is none.
        reference, query: image files.
        truth: what is known.
        turns: quarter turns counter-clockwise that bring (reference, query) upright before they are matched.
    """

    name: str
    subset: str
    reference: Path
    query: Path
    truth: Truth
    turns: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a layout gives.

    Attributes:
        name: short name or that of the folder.
        task: which command it belongs to.
        layout: name of the layout.
        folder: where it lies.
        pairs: all pairs, in their published order.
        unusable: name and reason of entries whose truth cannot be read; they count as missing.
        licence: short, for the report; "" where it is not known.
        research_only: whether the licence forbids commercial use.
        longer_side: of the images where the data set asks for another size than the protocol, or None.
        notes: what a reader of the figures should know, one sentence each.
        unit: what is counted.
    """

    name: str
    task: Task
    layout: str
    folder: Path
    pairs: tuple[Pair, ...]
    unusable: tuple[tuple[str, str], ...] = ()
    licence: str = ""
    research_only: bool = False
    longer_side: int | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)
    unit: Literal["pair"] = "pair"

    @property
    def count(self) -> int:
        """Pairs, with those whose truth cannot be read."""
        return len(self.pairs) + len(self.unusable)

    @property
    def counted(self) -> str:
        """Their number in words."""
        return f"{self.count} {self.unit}{'' if self.count == 1 else 's'}"

    def fingerprint(self) -> str:
        """SHA-256 over the names and the truth of all pairs (of dense truth: the names), 16 hex digits: whether stored
        predictions belong to this data."""
        digest = hashlib.sha256()
        for pair in self.pairs:
            digest.update(f"{pair.name}\0{pair.reference.name}\0{pair.query.name}\0{pair.turns}\0".encode())
            for key, value in sorted(vars(pair.truth).items()):
                if isinstance(value, np.ndarray):
                    digest.update(key.encode() + np.ascontiguousarray(value, np.float64).tobytes())
        for name, _ in self.unusable:
            digest.update(name.encode())
        return digest.hexdigest()[:16]

    def facts(self) -> dict[str, Any]:
        """The `dataset` entry of scores.json."""
        return {
            "name": self.name,
            "task": self.task,
            "layout": self.layout,
            "pairs": self.count,
            "licence": self.licence,
            "research_only": self.research_only,
            "fingerprint": self.fingerprint(),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Layout:
    """One way in which a data set lies on a disk.

    Attributes:
        name: of the layout.
        task: which command it belongs to.
        recognises: whether a folder (or file) has this layout; looks at names only.
        read: gives the data set.
        needs: the files that make it, in words, for the message when nothing fits.
    """

    name: str
    task: Task
    recognises: Callable[[Path], bool]
    read: Callable[[Path], Dataset]
    needs: str


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Numbered lines of a text file without empty ones and comments (#).

    Raises:
        DatasetError: the file cannot be read or is no text.
    """
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not a text file ({error.reason}): fetch it again") from error
    except OSError as error:
        raise DatasetError(f"cannot read {path} ({error.strerror}): restore the file") from error
    return [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#")]


def read_matrix(path: Path, rows: int, columns: int) -> Float64:
    """A text file with rows x columns finite numbers.

    Raises:
        DatasetError: it holds anything else.
    """
    words = " ".join(line.replace(",", " ") for _, line in read_lines(path)).split()
    return matrix_of(words, rows, columns, str(path))


def matrix_of(words: list[str], rows: int, columns: int, where: str) -> Float64:
    """Words as a rows x columns matrix of finite numbers.

    Raises:
        DatasetError: they are not; the message says `where`.
    """
    try:
        values = np.array([float(word) for word in words])
    except ValueError as error:
        raise DatasetError(f"{where}: {error}: {rows} x {columns} numbers are expected") from None
    if len(values) != rows * columns or not np.isfinite(values).all():
        raise DatasetError(f"{where}: {len(values)} numbers, but {rows} x {columns} finite ones are expected")
    return values.reshape(rows, columns)


def check_intrinsics(K: Float64, where: str) -> Float64:
    """K as it is.

    Raises:
        DatasetError: a focal length is not positive.
    """
    if not (K[0, 0] > 0 and K[1, 1] > 0):
        raise DatasetError(f"{where}: focal lengths {K[0, 0]:g}, {K[1, 1]:g} are not positive")
    return K


def check_pose(T: Float64, where: str) -> Float64:
    """T (4, 4) with its rotation made exactly orthonormal (published files are rounded).

    Raises:
        DatasetError: it is no rigid motion.
    """
    R = T[:3, :3]
    if (
        np.abs(R @ R.T - np.eye(3)).max() > 0.02
        or np.linalg.det(R) < 0
        or not np.allclose(T[3], (0, 0, 0, 1), atol=1e-6)
    ):
        raise DatasetError(f"{where}: the pose is no rigid motion (row-major 4 x 4)")
    return T
