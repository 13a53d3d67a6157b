"""Correspondences between two images: the one type that every matcher returns.

Pixel convention everywhere: x to the right, y down, (0, 0) is the centre of the top-left pixel, of the ORIGINAL image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float32


@dataclass(frozen=True)
class DenseWarp:
    """Where every reference pixel lies in the query image.

    Attributes:
        xy: float32 (H, W, 2), the query pixel of each reference pixel; (0, 0) is the centre of the top-left pixel. H
            and W may be smaller than the reference image: entry (i, j) belongs to reference pixel
            ``((j + 0.5) * reference_width / W - 0.5, (i + 0.5) * reference_height / H - 0.5)``.
        certainty: float32 (H, W) in [0, 1]; low where the warp cannot be relied on.
        reference_size: (width, height) of the reference image in pixels.
        query_size: (width, height) of the query image in pixels.
    """

    xy: Float32
    certainty: Float32
    reference_size: tuple[int, int]
    query_size: tuple[int, int]

    def __repr__(self) -> str:
        (w0, h0), (w1, h1) = self.reference_size, self.query_size
        return f"<warp of {w0} x {h0} pixels into {w1} x {h1}>"

    @staticmethod
    def later(make: Callable[[], DenseWarp], reference_size: tuple[int, int], query_size: tuple[int, int]) -> DenseWarp:
        """A warp that is computed on the first access to `xy` or `certainty` and then kept."""
        return _LaterWarp(make, reference_size, query_size)

    def positions(self) -> NDArray[np.float64]:
        """The reference pixel (H, W, 2) of every entry."""
        rows, columns = self.certainty.shape
        x = (np.arange(columns) + 0.5) * self.reference_size[0] / columns - 0.5
        y = (np.arange(rows) + 0.5) * self.reference_size[1] / rows - 0.5
        return np.stack(np.meshgrid(x, y), -1)


class _LaterWarp(DenseWarp):
    def __init__(
        self, make: Callable[[], DenseWarp], reference_size: tuple[int, int], query_size: tuple[int, int]
    ) -> None:
        self.__dict__.update(_make=make, reference_size=reference_size, query_size=query_size)

    @cached_property
    def _made(self) -> DenseWarp:
        made: DenseWarp = self.__dict__["_make"]()
        return made

    @property
    def xy(self) -> Float32:
        return self._made.xy

    @property
    def certainty(self) -> Float32:
        return self._made.certainty


@dataclass(frozen=True)
class Correspondences:
    """N point pairs between a reference (keyframe) and a query image.

    Attributes:
        reference_xy: float32 (N, 2), x and y in pixels of the original reference image; (0, 0) is the centre of the
            top-left pixel.
        query_xy: float32 (N, 2), pixels of the original query image.
        score: float32 (N,) in [0, 1], larger is better; for a full match of `gcm`, the probability that the match is
            correct within 1 px of the working image.
        overlap: share of the unmasked reference area that the query image shows, in [0, 1], independent of roll and
            zoom. A low value means that the images show different places.
        reference_size: (width, height) of the reference image.
        query_size: (width, height) of the query image.
        precision: float32 (N, 3), upper triangle (xx, xy, yy) of the 2x2 inverse covariance of ``query_xy`` in px^-2,
            or None if the matcher does not estimate it.
        warp: the dense warp, or None if the matcher has none. It may be computed on first access.
        linear: float32 (N, 2, 2), local affine maps: a small offset d in the reference image becomes linear @ d in the
            query image; None if the matcher has none.
        stillness: float32 (rows, columns), similarity of the two images at the same position, per tile: 1 unchanged,
            about 0 changed, NaN too little contrast. None if few matches are static or the images are not known. It
            distinguishes a standing camera from an overlay in front of a moving one.
        unchanged: float32 (N,), correlation of the two images at the same position around either end of a match, the
            smaller of the two; set together with `stillness`. Near 1 for a match between two parts of one overlay.
    """

    reference_xy: Float32
    query_xy: Float32
    score: Float32
    overlap: float
    reference_size: tuple[int, int]
    query_size: tuple[int, int]
    precision: Float32 | None = None
    warp: DenseWarp | None = None
    linear: Float32 | None = None
    stillness: Float32 | None = None
    unchanged: Float32 | None = None

    def __post_init__(self) -> None:
        n = len(self.reference_xy)
        if self.reference_xy.shape != (n, 2) or self.query_xy.shape != (n, 2) or self.score.shape != (n,):
            raise ValueError(
                "reference_xy and query_xy must be (N, 2) and score (N,) of one N, got "
                f"{self.reference_xy.shape}, {self.query_xy.shape} and {self.score.shape}"
            )
        if self.precision is not None and self.precision.shape != (n, 3):
            raise ValueError(f"precision must be (N, 3) = ({n}, 3) or None, got {self.precision.shape}")
        if self.linear is not None and self.linear.shape != (n, 2, 2):
            raise ValueError(f"linear must be (N, 2, 2) = ({n}, 2, 2) or None, got {self.linear.shape}")

    def __len__(self) -> int:
        return len(self.score)

    def __repr__(self) -> str:
        sizes = " and ".join(f"{width} x {height}" for width, height in (self.reference_size, self.query_size))
        return f"<{len(self)} matches between images of {sizes}, overlap {self.overlap:.2f}>"

    @staticmethod
    def empty(reference_size: tuple[int, int], query_size: tuple[int, int]) -> Correspondences:
        """No matches between images of the given sizes (width, height), with overlap 0."""
        none = np.zeros((0, 2), np.float32)
        return Correspondences(none, none.copy(), np.zeros(0, np.float32), 0.0, reference_size, query_size)

    def select(self, index: NDArray[np.bool_] | NDArray[np.intp]) -> Correspondences:
        """The matches that a boolean mask (N,) or an index array picks; overlap and warp stay."""
        return Correspondences(
            reference_xy=self.reference_xy[index],
            query_xy=self.query_xy[index],
            score=self.score[index],
            overlap=self.overlap,
            reference_size=self.reference_size,
            query_size=self.query_size,
            precision=None if self.precision is None else self.precision[index],
            warp=self.warp,
            linear=None if self.linear is None else self.linear[index],
            stillness=self.stillness,
            unchanged=None if self.unchanged is None else self.unchanged[index],
        )
