"""Training pairs from a recording: a bag, a video, or a folder of frames.

Frames with depth, calibration and pose give pairs with exact warps. Images alone supervise themselves: two crops of a
frame under a homography, and neighbouring frames matched by a matcher and kept where the matches obey one epipolar
geometry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ros2_densematch.arrays import Float32
from ros2_densematch.io.sources.storage import is_bag
from ros2_densematch.io.sources.video import SUFFIXES as VIDEO_SUFFIXES
from ros2_densematch.training.data.crops import apply_homography, warp_crop
from ros2_densematch.training.data.homography import HomographyConfig, homography_pair
from ros2_densematch.training.data.neighbours import MatchedFrames, NeighbourConfig, match_neighbours
from ros2_densematch.training.data.photos import photo_settings
from ros2_densematch.training.data.posed_views import CropConfig, ViewPair, crop_pair, lay_crops
from ros2_densematch.training.data.recording import Recording, RecordingConfig
from ros2_densematch.training.data.sample import Pair, Part
from ros2_densematch.training.data.source import Opening, PairSource, SourceConfig
from ros2_densematch.training.fingerprint import fingerprint
from ros2_densematch.training.images import TrainingDataError
from ros2_densematch.training.scenes.views import agrees, transfer

# Overlap is measured on maps of about this width, at so many points.
_COARSE_WIDTH = 80
_OVERLAP_POINTS = 300
_MAX_TESTED = 20_000


class BagConfig(CropConfig):
    """What pairs a recording gives."""

    tolerance: float = Field(0.05, gt=0, description="A point is visible when its depth differs by at most this share.")
    recording: RecordingConfig = RecordingConfig()
    labels: Literal["auto", "depth", "images"] = Field(
        "auto",
        description="The labels need depth and poses (depth), leave them alone (images), or use them where they are "
        "(auto).",
    )
    homographies: float | None = Field(
        None,
        ge=0,
        le=1,
        description="This share of the pairs is two crops of one frame; null takes 0.3 with depth, else 0.5.",
    )
    max_gap: int = Field(40, ge=1, description="The frames of a pair are at most this many posed frames apart.")
    min_overlap: float = Field(
        0.3, ge=0, le=1, description="The views of a pair have at least this part of the first one in common."
    )
    max_overlap: float = Field(
        0.95, ge=0, le=1, description="The views of a pair have at most this part of the first one in common."
    )
    homography: HomographyConfig = HomographyConfig()
    neighbours: NeighbourConfig = NeighbourConfig()


class BagSourceConfig(SourceConfig):
    """A recording: bag, video, folder with frames.csv, or folder of images in order."""

    kind: Literal["bag"]
    folder: Path = Field(description="The recording lies here, relative to the data folder.")
    cache: Path | None = Field(
        None,
        description="The matches of neighbouring frames are kept in this folder; null keeps them in `labels` of the "
        "output folder.",
    )
    settings: BagConfig = BagConfig()

    @classmethod
    def recognise(cls, data: Path, wanted: Sequence[SourceConfig]) -> BagSourceConfig | None:
        if not (is_bag(data) or data.suffix.lower() in VIDEO_SUFFIXES or (data / "frames.csv").is_file()):
            return None
        settings = BagConfig(homography=photo_settings(wanted))
        return cls(kind="bag", weight=1, folder=Path("."), settings=settings)

    def open(self, folder: Path, opening: Opening) -> PairSource:
        key = fingerprint([folder.resolve().as_posix(), self.settings.recording.model_dump(mode="json")])
        labels = fingerprint([key, self.settings.neighbours.model_dump(mode="json")])[:16]
        pairs = RecordingPairs(
            folder,
            config=self.settings,
            part=opening.part,
            # what is held out is only measured on, and that needs dense truth
            dense=opening.dense or opening.part.held_out,
            cache=self.cache or opening.out / "labels" / labels,
            on_progress=lambda done, total: opening.report("label", done, total, ""),
            recording=opening.recordings.get(key),
        )
        opening.recordings[key] = pairs.recording
        return pairs


class RecordingPairs(PairSource):
    """Draws pairs of a recording's frames."""

    name = "bag"

    def __init__(
        self,
        path: Path | str,
        *,
        config: BagConfig | None = None,
        part: Part | None = None,
        dense: bool = False,
        cache: Path | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        recording: Recording | None = None,
    ) -> None:
        """
        Args:
            path: anything that `open_source` opens.
            config: which pairs, and how crops are laid.
            part: for validation the last frames are held out, in one piece.
            dense: every pair must have dense truth: neighbouring frames are not matched.
            cache: folder for what the matcher finds; None keeps it in memory alone.
            on_progress: called with (pairs matched, in all).
            recording: the recording, where it was read before.

        Raises:
            TrainingDataError: the recording cannot be read, or has no depth and poses where `labels` asks for them.
        """
        self.config = config or BagConfig()
        self._path = Path(path)
        recording = self.recording = recording or Recording.load(self._path, self.config.recording)
        self.problems = recording.problems
        frames = range(len(recording))
        part = part or Part()
        cut = len(frames) - round(len(frames) * part.share)
        self._frames = list(frames[cut:] if part.held_out else frames[:cut])
        mine = set(self._frames)
        posed = [k for k in recording.posed() if k in mine] if self.config.labels != "images" else []
        self._pairs = _overlapping(recording, posed, self.config) if len(posed) > 1 else np.zeros((0, 2), np.int64)
        if self.config.labels == "depth" and not len(self._pairs):
            raise TrainingDataError(
                f"{self._path}: {len(posed)} frames with depth, calibration and pose give no pair with enough overlap: "
                "name depth_topic and ground_truth_topic or odometry_topic in the settings, or say labels: images"
            )
        share = self.config.homographies
        self._matched: list[MatchedFrames] = []
        if not len(self._pairs) and not dense and (share is None or share < 1) and len(self._frames) > 1:
            self._matched = match_neighbours(recording, self._frames, self.config.neighbours, cache, on_progress)
        other = 0.7 if len(self._pairs) else 0.5 if self._matched else 0.0
        self._homographies = 1 - other if share is None or other == 0 else share
        self.has_dense = not self._matched
        self.has_views = len(self._pairs) > 0

    def __len__(self) -> int:
        return len(self._frames)

    def files(self) -> list[Path]:
        """The recording's files."""
        return [self._path] if self._path.is_file() else sorted(p for p in self._path.rglob("*") if p.is_file())

    def draw_views(self, rng: np.random.Generator) -> ViewPair:
        """Two whole frames with depth and poses."""
        i, j = (int(k) for k in self._pairs[int(rng.integers(len(self._pairs)))])
        if rng.random() < 0.5:
            i, j = j, i
        view0, view1 = self.recording.view(i), self.recording.view(j)
        assert view0.depth is not None
        assert view1.depth is not None
        relative = np.linalg.inv(_pose(view1.T_world_from_camera)) @ _pose(view0.T_world_from_camera)
        return ViewPair(
            image0=view0.image,
            image1=view1.image,
            depth0=view0.depth,
            depth1=view1.depth,
            K0=_matrix(view0.K),
            K1=_matrix(view1.K),
            T_1_from_0=relative,
            group=0,
        )

    def draw(self, rng: np.random.Generator, size: int) -> Pair:
        if rng.random() < self._homographies:
            image = self.recording.view(self._frames[int(rng.integers(len(self._frames)))]).image
            return homography_pair(image, rng, size, self.config.homography, 0)
        if len(self._pairs):
            return crop_pair(self.draw_views(rng), rng, size, self.config)
        found = self._matched[int(rng.integers(len(self._matched)))]
        images = [self.recording.view(k).image for k in found.frames]
        xy0, xy1 = found.xy0.astype(np.float64), found.xy1.astype(np.float64)
        if rng.random() < 0.5:
            images, xy0, xy1 = images[::-1], xy1, xy0
        crop0, crop1, keep = lay_crops(rng, size, xy0, xy1, (images[0].shape, images[1].shape), self.config)
        return Pair(
            warp_crop(images[0], crop0, size, cv2.BORDER_REFLECT_101),
            warp_crop(images[1], crop1, size, cv2.BORDER_REFLECT_101),
            apply_homography(crop0, xy0[keep]).astype(np.float32),
            apply_homography(crop1, xy1[keep]).astype(np.float32),
            group=0,
        )


def _pose(value: NDArray[np.float64] | None) -> NDArray[np.float64]:
    assert value is not None
    return value


_matrix = _pose


def _overlapping(recording: Recording, posed: list[int], config: BagConfig) -> NDArray[np.int64]:
    """Pairs (M, 2) of posed frames whose overlap lies in the configured range."""
    coarse = [_Coarse.of(recording, k) for k in posed]
    tests = [(a, b) for a in range(len(posed)) for b in range(a + 1, min(len(posed), a + 1 + config.max_gap))]
    if len(tests) > _MAX_TESTED:
        order = np.random.default_rng(len(tests)).permutation(len(tests))[:_MAX_TESTED]
        tests = [tests[k] for k in np.sort(order)]
    found = [
        (posed[a], posed[b])
        for a, b in tests
        if config.min_overlap <= coarse[a].overlap(coarse[b], config.tolerance) <= config.max_overlap
    ]
    return np.array(found, np.int64).reshape(-1, 2)


class _Coarse:
    """A frame's depth at a few points and as a small map: enough to tell what two frames share."""

    def __init__(self, depth: Float32, K: NDArray[np.float64], pose: NDArray[np.float64], number: int) -> None:
        step = max(1, round(depth.shape[1] / _COARSE_WIDTH))
        self._depth = depth[::step, ::step]
        self._K = K.copy()
        self._K[:2] /= step  # every step-th pixel is kept as it is: no half pixels
        self._pose, self._world = np.linalg.inv(pose), pose
        y, x = np.nonzero(np.isfinite(self._depth))
        chosen = np.random.default_rng(number).permutation(len(x))[:_OVERLAP_POINTS]
        self._xy = np.stack([x[chosen], y[chosen]], 1).astype(np.float64)
        self._z = self._depth[y[chosen], x[chosen]].astype(np.float64)

    @staticmethod
    def of(recording: Recording, k: int) -> _Coarse:
        depth, K, pose = recording.depth(k), recording.calibration(k), recording.pose(k)
        assert depth is not None
        return _Coarse(depth, _matrix(K), _pose(pose), k)

    def overlap(self, other: _Coarse, tolerance: float) -> float:
        """Share of this frame's points that the other one sees."""
        if not len(self._z):
            return 0.0
        relative = other._pose @ self._world
        xy, z = transfer(self._xy, self._z, self._K, other._K, relative)
        # a small map is rough at edges
        return float(agrees(np.nan_to_num(xy, nan=-1.0), np.nan_to_num(z), other._depth, 2 * tolerance).mean())
