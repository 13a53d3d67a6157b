"""`gcm`: the default matcher.

GCM (arXiv 2403.05388) matches deep features of two images by mutual nearest neighbours, carries the matches down the
pyramid with no threshold on the way, and decides at the end by a patch descriptor of full resolution. Here the deep
features are a distilled network's at salient places, the way down goes through local affine maps that also fill the
cells without a match, the patch is aligned below the pixel, and a learned filter turns all evidence into the chance
that a match is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.base import Encoding, Image, Mask, Matcher
from ros2_densematch.matchers.common.precision import original_precision, patch_information
from ros2_densematch.matchers.common.working_image import working_image
from ros2_densematch.matchers.gcm.candidates import Candidates, Coarse, coarse_matches, refine_coarse
from ros2_densematch.matchers.gcm.encoding import GcmEncoding, encode_working_image
from ros2_densematch.matchers.gcm.growth import grow
from ros2_densematch.matchers.gcm.hypotheses import (
    best_hypotheses,
    common_frame,
    common_hypothesis,
    warped_encoding,
)
from ros2_densematch.matchers.gcm.match_filter import MatchFilter, match_graph
from ros2_densematch.matchers.gcm.network import GcmNetwork
from ros2_densematch.matchers.gcm.warp import cell_warp, dense_warp, hide_masked, overlap
from ros2_densematch.nn.device import choose_device, to_channels_last
from ros2_densematch.nn.efficientnet_lite import fold_batch_norms
from ros2_densematch.weights.catalogue import path_of
from ros2_densematch.weights.loading import load_exactly, read_state

_FILTER_PREFIX = "filter."
# grown matches begin nearer to their place than coarse ones
_GROWTH_ITERATIONS = 4
# a hypothesis needs so many coarse matches that their neighbours confirm
_LEAST_CONFIRMED = 20
# an encoding, and the (2, 3) map from its pixels to the working pixels of the image it was made from
_Framed = tuple[GcmEncoding, NDArray[np.float64]]


@dataclass(frozen=True)
class GcmPreset:
    """Speed against accuracy.

    Attributes:
        max_pixels: larger images are made smaller inside; coordinates stay those of the original.
        keypoints: at most this many per image.
        radius: of the patches of the sub-pixel alignment, in pixels.
        iterations: Gauss-Newton steps.
        growth_rounds: how often matches grow into free cells.
        hypotheses: try rotation and scale where the plain match is weak.
    """

    max_pixels: int
    keypoints: int
    radius: int
    iterations: int
    growth_rounds: int
    hypotheses: bool


PRESETS = {
    "turbo": GcmPreset(80_000, 1024, 5, 4, 1, False),
    "fast": GcmPreset(160_000, 2048, 6, 4, 1, False),
    "base": GcmPreset(500_000, 4096, 7, 6, 1, True),
    "precise": GcmPreset(1_500_000, 8192, 7, 8, 2, True),
}


class GcmMatcher(Matcher):
    """Dense warp and sub-pixel correspondences from one computation; see `docs/matchers/gcm.md`."""

    name = "gcm"

    def __init__(
        self,
        *,
        device: str = "auto",
        preset: str = "base",
        weights: str | None = None,
        saliency_threshold: float = -5.0,
        similarity_threshold: float = 0.5,
        confident_score: float = 0.5,
        least_score: float = 0.1,
        enough: int = 300,
        weak_support: int = 60,
        weak_share: float = 0.25,
        stages: frozenset[str] = frozenset({"refine", "grow", "filter", "hypotheses"}),
    ) -> None:
        """
        Args:
            device: "auto", "cpu", "cuda" or "cuda:N".
            preset: one of `PRESETS`.
            weights: None for the shipped file, "random", or a safetensors file of `densematch train`.
            saliency_threshold: least logit of a key point.
            similarity_threshold: least cosine of a coarse match.
            confident_score: matches that are less likely right than this are left out, unless too few remain.
            least_score: matches that are less likely right than this are always left out.
            enough: where fewer matches are confident, the best ones up to this number are taken.
            weak_support: a plain match with fewer confirmed coarse matches is weak: hypotheses are tried.
            weak_share: likewise one with a smaller share of confirmed coarse matches.
            stages: which stages run; for ablation.

        Raises:
            ValueError: unknown preset, device or stage, or weights of another network.
            FileNotFoundError: no such weights file.
        """
        if preset not in PRESETS:
            raise ValueError(f"unknown preset {preset!r} of gcm: choose one of {', '.join(PRESETS)}")
        unknown = stages - {"refine", "grow", "filter", "hypotheses"}
        if unknown:
            raise ValueError(f"unknown stages {sorted(unknown)}: choose from refine, grow, filter, hypotheses")
        self.preset = preset
        self._settings = PRESETS[preset]
        self.device = choose_device(device)
        self._saliency_threshold = saliency_threshold
        self._similarity_threshold = similarity_threshold
        self._confident_score = confident_score
        self._least_score = least_score
        self._enough = enough
        self._weak_support = weak_support
        self._weak_share = weak_share
        self._stages = stages
        # a generator of its own: loading a matcher must not disturb the caller's random numbers
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self._network, self._filter = GcmNetwork(), MatchFilter()
        if weights != "random":
            self._load(path_of("gcm") if weights is None else Path(weights))
        self._network.eval().requires_grad_(False)
        fold_batch_norms(self._network)
        self._network.to(device=self.device)
        to_channels_last(self._network)
        self._filter.eval().requires_grad_(False)

    def _load(self, path: Path) -> None:
        state = read_state(path)
        filter_state = {k[len(_FILTER_PREFIX) :]: v for k, v in state.items() if k.startswith(_FILTER_PREFIX)}
        load_exactly(self._network, {k: v for k, v in state.items() if not k.startswith(_FILTER_PREFIX)}, path)
        if filter_state:
            load_exactly(self._filter, filter_state, path)
        else:
            # a network fresh from its first training stage: the correlation stands in for the score
            self._stages = self._stages - {"filter"}

    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> GcmEncoding:
        rgb, allowed, scale = working_image(image, mask, self._settings.max_pixels)
        return self._encode_working(rgb, allowed, scale)

    def _encode_working(
        self, rgb: Image, allowed: NDArray[np.bool_] | None, scale: NDArray[np.float64] | None = None
    ) -> GcmEncoding:
        return encode_working_image(
            self._network,
            rgb,
            allowed,
            np.ones(2) if scale is None else scale,
            keypoints=self._settings.keypoints,
            threshold=self._saliency_threshold,
        )

    @torch.inference_mode()
    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> Correspondences:
        a: GcmEncoding = reference.data
        b: GcmEncoding = query.data
        candidates = self.candidates(a, b)
        score = self.score(candidates)
        accepted = self._accepted(score)
        # refinement may have carried a match over the rim of a mask
        accepted &= reference.allows(a.to_original(candidates.reference_xy))
        accepted &= query.allows(b.to_original(candidates.query_xy))
        candidates, score = candidates.select(accepted), score[accepted]
        cells, certainty = cell_warp(candidates.reference_xy, candidates.query_xy, score, a.size)
        warp = dense_warp(cells, certainty, a.size, reference.size, query.size, b.scale)
        hide_masked(warp, reference.mask, query.mask)
        order = np.argsort(-score, kind="stable")[: len(score) if max_matches is None else max_matches]
        candidates, score = candidates.select(order), score[order]
        return Correspondences(
            a.to_original(candidates.reference_xy).astype(np.float32),
            b.to_original(candidates.query_xy).astype(np.float32),
            score.astype(np.float32),
            overlap(warp, reference.mask),
            reference.size,
            query.size,
            _precision(candidates, b.scale).astype(np.float32),
            warp,
        )

    def _accepted(self, score: NDArray[np.float64]) -> NDArray[np.bool_]:
        """The confident matches; where they are few, the estimator gets the next best too and sorts them out."""
        bar = self._confident_score
        if (score >= bar).sum() < self._enough:
            ranked = np.sort(score)[::-1]
            nth = ranked[self._enough - 1] if len(ranked) >= self._enough else 0.0
            bar = max(self._least_score, min(bar, float(nth)))
        return np.asarray(score >= bar, np.bool_)

    @torch.inference_mode()
    def candidates(self, reference: GcmEncoding, query: GcmEncoding) -> Candidates:
        """Candidate matches of two encodings before the filter, in working pixels."""
        plain = coarse_matches(reference, query, similarity=self._similarity_threshold)
        weak = plain.supported < max(self._weak_support, self._weak_share * len(plain.similarity))
        # a blank image shows the same nothing however it is turned
        rich = min(len(reference.keypoints), len(query.keypoints)) >= 2 * _LEAST_CONFIRMED
        if rich and "hypotheses" in self._stages and self._settings.hypotheses:
            if weak:
                maps = best_hypotheses(reference, query, self._encode_working, self._similarity_threshold)
            else:
                common = common_hypothesis(plain.reference_xy, plain.query_xy, reference.size)
                maps = [] if common is None else [common]
            turned = self._in_another_frame(reference, query, [h.linear for h in maps], plain.supported)
            if turned is not None:
                return turned
        return self._finish(reference, query, plain)

    def _finish(self, reference: GcmEncoding, query: GcmEncoding, coarse: Coarse) -> Candidates:
        settings = self._settings
        iterations = settings.iterations if "refine" in self._stages else 0
        found = refine_coarse(reference, query, coarse, radius=settings.radius, iterations=iterations)
        if "grow" not in self._stages:
            return found
        iterations = min(iterations, _GROWTH_ITERATIONS)
        return grow(reference, query, found, radius=5, iterations=iterations, rounds=settings.growth_rounds)

    def _in_another_frame(
        self, reference: GcmEncoding, query: GcmEncoding, maps: list[NDArray[np.float64]], supported: int
    ) -> Candidates | None:
        """Candidates by the affine map that most coarse matches confirm, or None when none clearly helps."""
        best: tuple[_Framed, _Framed, Coarse] | None = None
        for linear in maps:
            for_reference, for_query = common_frame(linear)
            first = warped_encoding(reference, for_reference, self._encode_working)
            second = query, np.eye(2, 3)
            if not np.array_equal(for_query, np.eye(2)):
                second = warped_encoding(query, for_query, self._encode_working)
            coarse = coarse_matches(first[0], second[0], similarity=self._similarity_threshold)
            if best is None or coarse.supported > best[2].supported:
                best = first, second, coarse
            if coarse.supported >= self._weak_support:
                break
        if best is None or best[2].supported < max(_LEAST_CONFIRMED, 1.3 * supported):
            return None
        (warped_reference, reference_frame), (warped_query, query_frame), coarse = best
        found = self._finish(warped_reference, warped_query, coarse)
        found.reference_xy = found.reference_xy @ reference_frame[:, :2].T + reference_frame[:, 2]
        found.query_xy = found.query_xy @ query_frame[:, :2].T + query_frame[:, 2]
        found.linear = query_frame[:, :2] @ found.linear @ np.linalg.inv(reference_frame[:, :2])
        found.information = _carried(found.information, query_frame[:, :2])
        return found

    def score(self, candidates: Candidates) -> NDArray[np.float64]:
        """The chance (N,) that each candidate is right within 1.5 px."""
        if "filter" not in self._stages:
            return np.clip(candidates.correlation, 0.0, 1.0)
        graph = match_graph(candidates)
        if len(graph.nodes) == 0:
            return np.zeros(len(candidates))
        return torch.sigmoid(self._filter(graph)).numpy().astype(np.float64)


def _carried(information: NDArray[np.float64], linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Symmetric matrices (N, 3) = xx, xy, yy of an error after it was mapped by `linear` (2, 2)."""
    back = np.linalg.inv(linear)
    a, b, c = information.T
    matrix = np.stack([a, b, b, c], 1).reshape(-1, 2, 2)
    carried = back.T @ matrix @ back
    return np.asarray(carried.reshape(-1, 4)[:, [0, 1, 3]], np.float64)


def _precision(candidates: Candidates, query_scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse covariance (N, 3) of the aligned positions, in px^-2 of the original query image."""
    normal, correlation = torch.from_numpy(candidates.information), torch.from_numpy(candidates.correlation)
    return original_precision(patch_information(normal, correlation).numpy(), query_scale)
