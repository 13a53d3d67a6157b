"""The list of pairs that `densematch match --pairs` reads: `image0 image1 [K0(9) K1(9) [T_0to1(16)]]`, one a line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.cli.errors import InputError


@dataclass(frozen=True)
class Pair:
    """One line of the list.

    Attributes:
        index: number of the pair, from 0; bad lines count too, so that numbers stay when a line is repaired.
        line: line number in the file, from 1; 0 where there is none.
        reference, query: image files.
        reference_K, query_K: (3, 3) pixels, or None.
        T_query_from_reference: (4, 4) true pose, or None.
        problem: why this line cannot be used; empty when it can.
    """

    index: int
    line: int
    reference: Path
    query: Path
    reference_K: NDArray[np.float64] | None = None
    query_K: NDArray[np.float64] | None = None
    T_query_from_reference: NDArray[np.float64] | None = None
    problem: str = ""

    @property
    def label(self) -> str:
        """What messages call it: its line, or its images where there is no list."""
        if self.line:
            return f"line {self.line}"
        return str(self.reference) if self.reference == self.query else f"{self.reference} and {self.query}"


def read_pairs(path: Path, root: Path) -> list[Pair]:
    """All pairs of the list; empty lines and lines that begin with # are left out, bad ones carry their problem.

    Args:
        path: the list.
        root: folder that relative image paths start from.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not a text file, or no pair in it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no list of pairs {path}: check --pairs")
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file ({error.reason}): check --pairs") from error
    found: list[Pair] = []
    for number, text in enumerate(lines, start=1):
        if text.strip() and not text.lstrip().startswith("#"):
            found.append(_parse(text, len(found), number, root))
    if not found:
        raise InputError(f"{path} has no pairs: write `image0 image1 [K0(9) K1(9) [T_0to1(16)]]`, one pair per line")
    return found


def _parse(text: str, index: int, line: int, root: Path) -> Pair:
    words = text.split()
    if len(words) not in (2, 20, 36):
        nowhere = Path()
        problem = f"{len(words)} fields, but a line has 2 (images), 20 (and K0 K1) or 36 (and T_0to1)"
        return Pair(index, line, nowhere, nowhere, problem=problem)
    reference, query = root / words[0], root / words[1]
    try:
        numbers = np.array([float(w) for w in words[2:]])
    except ValueError as error:
        return Pair(index, line, reference, query, problem=str(error))
    if not np.isfinite(numbers).all():
        return Pair(index, line, reference, query, problem="a number is not finite")
    for file in (reference, query):
        if not file.is_file():
            return Pair(index, line, reference, query, problem=f"there is no image {file}")
    if not len(numbers):
        return Pair(index, line, reference, query)
    K0, K1 = numbers[:9].reshape(3, 3), numbers[9:18].reshape(3, 3)
    for name, K in (("K0", K0), ("K1", K1)):
        if K[0, 0] <= 0 or K[1, 1] <= 0:
            return Pair(index, line, reference, query, problem=f"{name} has focal lengths {K[0, 0]:g}, {K[1, 1]:g}")
    T = None
    if len(numbers) > 18:
        T = numbers[18:].reshape(4, 4)
        if abs(np.linalg.det(T[:3, :3]) - 1.0) > 1e-2 or not np.allclose(T[3], [0, 0, 0, 1], atol=1e-6):
            return Pair(index, line, reference, query, problem="T_0to1 is not a rigid transform (row-major 4x4)")
    return Pair(
        index=index, line=line, reference=reference, query=query, reference_K=K0, query_K=K1, T_query_from_reference=T
    )
