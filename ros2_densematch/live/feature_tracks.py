"""Persistent feature tracks from matches against keyframes, and the feature message of VINS-Fusion; no ROS in here.

A match joins a keyframe and one image, and its points may differ from image to image. A visual-inertial estimator wants
the same points with the same numbers over many images. So tracks are anchored in the keyframe: in every image the
matches around an anchor, where they agree on the motion, say where it is seen. When that image becomes the next
keyframe, the points seen in it are the new anchors and keep their numbers.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.spatial import cKDTree

from ros2_densematch.arrays import Float32, Float64
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences

# VINS-Fusion reads the numbers from float32 values, which hold whole numbers up to here.
ID_LIMIT = 2**24
# What VINS-Fusion's feature callback reads: it takes 0 to 5 always, and 6 to 8 as soon as there are more than five. Six
# channels would therefore make it read past the end: nine are sent.
VINS_CHANNELS = ("id", "camera_id", "u", "v", "velocity_x", "velocity_y", "gx", "gy", "gz")

_NEIGHBOURS = 12
# A match this near to an anchor, in pixels, is a match of the anchor itself.
_SAME_PIXEL = 0.75
# Change of motion per pixel of distance in the keyframe that one surface may show.
_LARGEST_SLOPE = 0.35


@dataclass(frozen=True)
class Features:
    """The tracked points of one image.

    Attributes:
        stamp_ns: time of the image.
        id: int64 (N,) numbers, each for one point as long as it is followed.
        xy: float64 (N, 2) pixels of the image, (0, 0) = centre of the top-left pixel.
    """

    stamp_ns: int
    id: NDArray[np.int64]
    xy: Float64

    def __len__(self) -> int:
        return len(self.id)


class TrackSettings(BaseModel):
    """How points are followed; every field is a ROS parameter of the adapter's node."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tracks: int = Field(300, ge=1, le=100_000, description="At most this many points are tracked at once.")
    min_distance_px: float = Field(
        12.0,
        gt=0.0,
        le=1000.0,
        description="The anchors of two points have at least this distance in the keyframe, in pixels.",
    )
    search_px: float = Field(
        20.0,
        gt=0.0,
        le=1000.0,
        description="An anchor is located by a match of the same keyframe pixel, or by at least three matches within "
        "this distance, in pixels, that agree on the motion.",
    )
    max_history: int = Field(
        200,
        ge=2,
        le=100_000,
        description="This many images are remembered, because any of them may become the next keyframe or be used as "
        "one again.",
    )


class FeatureTracks:
    """Follows points over images and keyframes."""

    def __init__(self, settings: TrackSettings | None = None) -> None:
        self.settings = settings or TrackSettings()
        self._next_id = 0
        self._seen: OrderedDict[int, Features] = (
            OrderedDict()
        )  # by stamp: what each image saw, or anchors of a keyframe

    def reset(self) -> None:
        """Forgets all points; numbers go on."""
        self._seen.clear()

    def update(
        self, m: Correspondences, stamp_ns: int, reference_stamp_ns: int, inliers: NDArray[np.bool_] | None = None
    ) -> Features:
        """The points seen in an image.

        Args:
            m: its matches with the keyframe.
            stamp_ns: time of the image.
            reference_stamp_ns: time of the keyframe.
            inliers: bool (N,), which matches to use; None: all.

        Returns:
            Points that are followed already, and new ones up to `max_tracks`, where matches are far from all anchors.
        """
        use = np.ones(len(m), np.bool_) if inliers is None else np.asarray(inliers, np.bool_)
        reference, query = m.reference_xy[use].astype(np.float64), m.query_xy[use].astype(np.float64)
        anchors = self._seen.get(reference_stamp_ns)
        if anchors is None:
            anchors = _none(reference_stamp_ns)
        found = _none(stamp_ns)
        if len(reference):
            tree = cKDTree(reference)
            found = self._follow(anchors, tree, query, stamp_ns)
            anchors, found = self._begin(anchors, found, reference, query, m.score[use])
        self._remember(anchors)
        self._remember(found)
        return found

    def _follow(self, anchors: Features, tree: cKDTree, query: Float64, stamp_ns: int) -> Features:
        """Where anchors are seen now."""
        if not len(anchors):
            return _none(stamp_ns)
        reference = np.asarray(tree.data)
        k = min(_NEIGHBOURS, len(reference))
        nearest = tree.query(anchors.xy, k=list(range(1, k + 1)))
        distance, index = np.asarray(nearest[0], np.float64), np.asarray(nearest[1], np.intp)
        moved = query - reference
        # Matches that move like the nearest one, up to the change of motion that a surface shows over their distance.
        difference = np.linalg.norm(moved[index] - moved[index[:, :1]], axis=2)
        agree = (distance <= self.settings.search_px) & (
            difference <= 1.0 + _LARGEST_SLOPE * (distance + distance[:, :1])
        )
        same = distance[:, 0] <= _SAME_PIXEL
        seen = np.flatnonzero(same | (agree.sum(axis=1) >= 3))[: self.settings.max_tracks]  # the oldest come first
        # An affine motion through them, weighted by nearness: where they lie to one side it is extrapolated.
        weight = np.where(agree, 1.0 / (distance**2 + 0.5), 0.0) + 1e-9
        weight /= weight.sum(axis=1, keepdims=True)
        centre = np.einsum("nk,nkd->nd", weight, reference[index])
        shift = np.einsum("nk,nkd->nd", weight, moved[index])
        offset, residual = reference[index] - centre[:, None], moved[index] - shift[:, None]
        moments = np.einsum("nk,nki,nkj->nij", weight, offset, offset) + 4.0 * np.eye(2)
        slope = np.linalg.solve(moments, np.einsum("nk,nki,nkj->nij", weight, offset, residual))
        affine = anchors.xy + shift + np.einsum("ni,nij->nj", anchors.xy - centre, slope)
        xy = np.where(same[:, None], anchors.xy + moved[index[:, 0]], affine)
        return Features(stamp_ns, anchors.id[seen], xy[seen])

    def _begin(
        self, anchors: Features, found: Features, reference: Float64, query: Float64, score: Float32
    ) -> tuple[Features, Features]:
        """New points where matches are far from all anchors, best scores first."""
        room = self.settings.max_tracks - len(found)
        chosen: list[int] = []

        def cell(p: Float64) -> tuple[int, int]:
            return int(p[0] // self.settings.min_distance_px), int(p[1] // self.settings.min_distance_px)

        cells: dict[tuple[int, int], list[Float64]] = {}
        for p in anchors.xy:
            cells.setdefault(cell(p), []).append(p)
        for i in np.argsort(-score, kind="stable"):
            if len(chosen) >= room:
                break
            p = reference[i]
            cx, cy = cell(p)
            around = (q for dx in (-1, 0, 1) for dy in (-1, 0, 1) for q in cells.get((cx + dx, cy + dy), ()))
            if any(np.hypot(*(p - q)) < self.settings.min_distance_px for q in around):
                continue
            cells.setdefault((cx, cy), []).append(p)
            chosen.append(int(i))
        count = len(chosen)
        ids = (self._next_id + np.arange(count, dtype=np.int64)) % ID_LIMIT
        self._next_id = (self._next_id + count) % ID_LIMIT
        return (
            _joined(anchors, Features(anchors.stamp_ns, ids, reference[chosen])),
            _joined(found, Features(found.stamp_ns, ids, query[chosen])),
        )

    def _remember(self, features: Features) -> None:
        self._seen[features.stamp_ns] = features
        self._seen.move_to_end(features.stamp_ns)
        while len(self._seen) > self.settings.max_history:
            self._seen.popitem(last=False)


@dataclass(frozen=True)
class VinsFeatures:
    """Content of a sensor_msgs/PointCloud as VINS-Fusion reads it.

    Attributes:
        points: float32 (N, 3), undistorted normalised coordinates with z exactly 1.
        channels: float32 (9, N) in the order of VINS_CHANNELS: number, camera (0), pixel, velocity of the normalised
            coordinates per second (0 for a new point), and three zeros where VINS-Fusion has room for a true point.
    """

    points: Float32
    channels: Float32


def vins_features(features: Features, camera: Camera, previous: Features | None) -> VinsFeatures:
    """What VINS-Fusion wants of the tracked points.

    Args:
        features: of the image.
        camera: its calibration.
        previous: of the image before, for the velocities; None: all are zero.
    """
    normalised = camera.normalise(features.xy) if len(features) else np.zeros((0, 2))
    velocity = np.zeros((len(features), 2))
    if previous is not None and len(previous) and features.stamp_ns > previous.stamp_ns:
        _, here, there = np.intersect1d(features.id, previous.id, return_indices=True)
        before = camera.normalise(previous.xy[there])
        velocity[here] = (normalised[here] - before) / ((features.stamp_ns - previous.stamp_ns) * 1e-9)
    # points beyond the distortion model's range have no normalised coordinates
    known = np.isfinite(normalised).all(axis=1) & np.isfinite(velocity).all(axis=1)
    n = int(known.sum())
    points = np.column_stack([normalised[known], np.ones(n)]).astype(np.float32)
    channels = np.zeros((len(VINS_CHANNELS), n), np.float32)
    channels[0] = features.id[known]
    channels[2:4] = features.xy[known].T
    channels[4:6] = velocity[known].T
    return VinsFeatures(points, channels)


def _none(stamp_ns: int) -> Features:
    return Features(stamp_ns, np.zeros(0, np.int64), np.zeros((0, 2)))


def _joined(a: Features, b: Features) -> Features:
    return Features(a.stamp_ns, np.concatenate([a.id, b.id]), np.concatenate([a.xy, b.xy]))
