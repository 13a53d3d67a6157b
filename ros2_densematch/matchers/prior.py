"""What is believed about a match before it is made: where points of the reference lie in the query image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.deprecation import renamed
from ros2_densematch.geometry.correspondences import Correspondences, DenseWarp
from ros2_densematch.matchers.encoding import Encoding

# pixels by which a point moves from frame to frame when nothing is known of the motion, and by which it misses a place
# that a homography or a warp gave
_MOTION_PX = 12.0
_MODEL_PX = 3.0


@dataclass(frozen=True)
class Prior:
    """N points of the reference image and where they are believed to lie in the query image.

    Pixels are those of the original images, x to the right, y down, (0, 0) = centre of the top-left pixel. A point
    keeps its identity by its reference position: what a guided match returns for it has exactly this `reference_xy`.

    Attributes:
        reference_xy: float64 (N, 2).
        query_xy: float64 (N, 2), the believed places.
        sigma: float64 (N,), standard deviation of `query_xy` in pixels, along each axis; larger than 0.
        linear: float64 (N, 2, 2), local affine maps: a small offset d in the reference image goes to linear @ d in the
            query image. None where unknown.
        score: float64 (N,) in [0, 1], what the last match believed of each point. None where no match was made yet.
        previous: encoding of an earlier image in which the points were found, by the same matcher. None without one.
        previous_xy: float64 (N, 2), where in that image; NaN for points that were not found there.
        previous_linear: float64 (N, 2, 2), local affine maps from the reference to that image, or None.
    """

    reference_xy: Float64
    query_xy: Float64
    sigma: Float64
    linear: Float64 | None = None
    score: Float64 | None = None
    previous: Encoding | None = None
    previous_xy: Float64 | None = None
    previous_linear: Float64 | None = None

    def __post_init__(self) -> None:
        count = len(self.reference_xy) if np.ndim(self.reference_xy) else 0
        shapes = {
            "reference_xy": (count, 2),
            "query_xy": (count, 2),
            "sigma": (count,),
            "linear": (count, 2, 2),
            "score": (count,),
            "previous_xy": (count, 2),
            "previous_linear": (count, 2, 2),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None:
                continue
            array = np.asarray(value, np.float64)
            if array.shape != shape:
                raise ValueError(f"{name} of a prior must have the shape {shape}, got {array.shape}")
            if not name.startswith("previous") and not np.isfinite(array).all():
                raise ValueError(f"{name} of a prior must be finite: leave points without a prediction out")
            object.__setattr__(self, name, array)
        if count and float(self.sigma.min()) <= 0:
            raise ValueError(f"sigma of a prior must be larger than 0 pixels, got {float(self.sigma.min())}")
        if self.score is not None and count and not (self.score.min() >= 0 and self.score.max() <= 1):
            raise ValueError(
                f"score of a prior must lie in [0, 1], got {float(self.score.min())} to {float(self.score.max())}"
            )
        if (self.previous is None) != (self.previous_xy is None):
            raise ValueError("give previous and previous_xy of a prior together, or neither")

    def __len__(self) -> int:
        return len(self.reference_xy)

    @staticmethod
    def from_previous(
        matches: Correspondences,
        encoding: Encoding,
        *,
        query_xy: ArrayLike | None = None,
        sigma: float = _MOTION_PX,
    ) -> Prior:
        """The matches of the reference with the frame before, carried on.

        Args:
            matches: of the reference with the frame before.
            encoding: of the frame before, by the same matcher.
            query_xy: (N, 2) where the points are expected now; None: where they were.
            sigma: standard deviation of that, in pixels.
        """
        before = matches.query_xy.astype(np.float64)
        return Prior(
            reference_xy=matches.reference_xy.astype(np.float64),
            query_xy=before if query_xy is None else np.asarray(query_xy, np.float64),
            sigma=np.full(len(matches), float(sigma)),
            linear=None if matches.linear is None else matches.linear.astype(np.float64),
            score=np.clip(matches.score, 0.0, 1.0).astype(np.float64),
            previous=encoding,
            previous_xy=before,
            previous_linear=None if matches.linear is None else matches.linear.astype(np.float64),
        )

    @staticmethod
    def at_rest(reference_xy: ArrayLike, encoding: Encoding, *, sigma: float = _MOTION_PX) -> Prior:
        """The frame after the reference: every point is where it was in the reference image.

        Args:
            reference_xy: (N, 2), for example `Matcher.guide_points(encoding)`.
            encoding: of the reference.
            sigma: standard deviation of the motion since then, in pixels.
        """
        rest = Prior.from_homography(reference_xy, np.eye(3), sigma=sigma)
        return replace(rest, previous=encoding, previous_xy=rest.reference_xy.copy(), previous_linear=rest.linear)

    @staticmethod
    def from_homography(reference_xy: ArrayLike, homography: ArrayLike, *, sigma: float = _MODEL_PX) -> Prior:
        """Points carried by a homography; those that it sends to infinity or behind the image are left out.

        Args:
            reference_xy: (N, 2).
            homography: (3, 3), reference to query pixels: (x', y', 1) ~ H (x, y, 1).
            sigma: standard deviation of the places, in pixels.
        """
        H, xy = np.asarray(homography, np.float64), _points(reference_xy)
        if H.shape != (3, 3) or not np.isfinite(H).all():
            raise ValueError(f"homography must be a finite 3 x 3 matrix, got shape {H.shape}")
        scale = xy @ H[2, :2] + H[2, 2]
        if len(xy) and np.median(scale) < 0:  # the sign of the matrix is arbitrary: most points lie before the image
            H, scale = -H, -scale
        seen = scale > 1e-9 * np.abs(H[2]).max()
        xy, w = xy[seen], scale[seen]
        query = np.column_stack([xy, np.ones(len(xy))]) @ H[:2].T / w[:, None]
        # derivative of (H x)_i / (H x)_3
        linear = (H[None, :2, :2] - query[:, :, None] * H[None, 2:, :2]) / w[:, None, None]
        return Prior(xy, query, np.full(len(xy), float(sigma)), linear)

    @staticmethod
    @renamed(least_certainty="min_certainty")
    def from_warp(
        reference_xy: ArrayLike, warp: DenseWarp, *, min_certainty: float = 0.2, sigma: float = _MODEL_PX
    ) -> Prior:
        """Points carried by a dense warp; those where it is not certain are left out.

        Args:
            reference_xy: (N, 2), inside the reference image.
            warp: of the same pair, or of one that looks alike.
            min_certainty: least certainty of the warp at a point, in [0, 1].
            sigma: standard deviation of the places, in pixels.
        """
        xy = _points(reference_xy)
        rows, columns = warp.certainty.shape
        step = np.array([warp.reference_size[0] / columns, warp.reference_size[1] / rows])
        at = (xy + 0.5) / step - 0.5  # entry of the warp under each point
        value = _bilinear(warp.xy, at)
        along = [
            (_bilinear(warp.xy, at + offset) - _bilinear(warp.xy, at - offset)) / (2 * step[axis])
            for axis, offset in enumerate(np.eye(2))
        ]
        sure = _bilinear(warp.certainty[..., None], at)[:, 0] >= min_certainty
        inside = ((at > 0.5) & (at < np.array([columns, rows]) - 1.5)).all(1)
        linear = np.stack(along, axis=2)
        linear[~inside] = np.eye(2)  # at the rim one side of the difference is missing
        kept = sure & np.isfinite(value).all(1) & np.isfinite(linear).all((1, 2))
        return Prior(xy[kept], value[kept], np.full(int(kept.sum()), float(sigma)), linear[kept])

    def select(self, index: NDArray[np.bool_] | NDArray[np.intp]) -> Prior:
        """The points that a boolean mask (N,) or an index array picks; `previous` stays."""

        def of(value: Float64 | None) -> Float64 | None:
            return None if value is None else value[index]

        return Prior(
            reference_xy=self.reference_xy[index],
            query_xy=self.query_xy[index],
            sigma=self.sigma[index],
            linear=of(self.linear),
            score=of(self.score),
            previous=self.previous,
            previous_xy=of(self.previous_xy),
            previous_linear=of(self.previous_linear),
        )


def _points(xy: ArrayLike) -> Float64:
    points = np.asarray(xy, np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"reference_xy must be (N, 2), got {points.shape}")
    return points


def _bilinear(layers: NDArray[np.float32], at: Float64) -> Float64:
    """Values (N, C) of (H, W, C) at entries (N, 2) x, y; beyond the rim the rim's value holds."""
    if len(at) == 0:
        return np.zeros((0, layers.shape[2]))
    x, y = (np.ascontiguousarray(a, np.float32)[:, None] for a in at.T)
    source: Any = np.ascontiguousarray(layers, np.float32)
    # cv2.remap takes at most 32767 rows at once
    parts = [
        cv2.remap(source, x[i : i + 32000], y[i : i + 32000], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for i in range(0, len(x), 32000)
    ]
    return np.concatenate(parts).reshape(len(at), layers.shape[2]).astype(np.float64)
