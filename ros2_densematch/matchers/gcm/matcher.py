"""`gcm`: the default matcher.

GCM (arXiv 2403.05388) matches deep features of two images by mutual nearest neighbours, carries the matches down the
pyramid with no threshold on the way, and decides at the end by a patch descriptor of full resolution. Here the deep
features are a distilled network's at salient places, the way down goes through local affine maps that also fill the
cells without a match, the patch is aligned below the pixel, and a learned filter turns all evidence into the chance
that a match is right.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ros2_densematch.arrays import Float64, Image, Mask
from ros2_densematch.geometry.correspondences import DenseWarp
from ros2_densematch.graphs.graph import Graph
from ros2_densematch.matchers.base import Encoding, RawMatches
from ros2_densematch.matchers.common.encoder_graph import encoder_graph, network_graph
from ros2_densematch.matchers.common.precision import original_precision, patch_information
from ros2_densematch.matchers.common.stillness import stands
from ros2_densematch.matchers.common.working_image import working_image
from ros2_densematch.matchers.gcm.candidates import Candidates, Coarse, coarse_matches, refine_coarse
from ros2_densematch.matchers.gcm.config import PRESETS, GcmConfig
from ros2_densematch.matchers.gcm.encoding import GcmEncoding, encode_working_image
from ros2_densematch.matchers.gcm.graph import MOST_KEYPOINTS, MULTIPLE, OUTPUTS, TABLE, GcmEncoder
from ros2_densematch.matchers.gcm.growth import grow
from ros2_densematch.matchers.gcm.guided import Guided
from ros2_densematch.matchers.gcm.guided_matches import guided_matches
from ros2_densematch.matchers.gcm.guided_score import GuidedScore
from ros2_densematch.matchers.gcm.hypotheses import (
    best_hypotheses,
    common_frame,
    common_hypothesis,
    warped_encoding,
)
from ros2_densematch.matchers.gcm.match_filter import NEIGHBOURS, MatchFilter, Surroundings, match_evidence, match_graph
from ros2_densematch.matchers.gcm.network import Features, GcmNetwork
from ros2_densematch.matchers.gcm.pair_evidence import pair_evidence
from ros2_densematch.matchers.gcm.pair_filter import PairFilter, PairTensors
from ros2_densematch.matchers.gcm.recurrence import recurrence
from ros2_densematch.matchers.gcm.uncovered import covered, painted_over
from ros2_densematch.matchers.gcm.warp import cell_warp, dense_warp
from ros2_densematch.matchers.network import NetworkMatcher, State, Weights, read_weights, seeded
from ros2_densematch.matchers.prior import Prior
from ros2_densematch.weights.loading import load_exactly

# More static matches than that share of all, in a picture that has changed, may be an overlay that hides the scene's.
_STANDS_PX, _OVERLAY_SHARE = 1.5, 0.3
_FILTER_PREFIX = "filter."
_GUIDED_BAR, _GUIDED_ENOUGH = 0.5, 300  # the tracker sorts guided matches out by the pose that it predicts
_LEAST_FOR_A_POSE = 5  # right matches: where not even so many are to be expected, doubtful ones are of no use
_RICH = 5  # times the confirmed matches that a hypothesis needs: key points that an image must have to be searched
# an encoding, and the (2, 3) map from its pixels to the working pixels of the image it was made from
_Framed = tuple[GcmEncoding, NDArray[np.float64]]


class GcmMatcher(NetworkMatcher):
    """Dense warp and sub-pixel correspondences from one computation; see `docs/matchers/gcm.md`."""

    name = "gcm"
    uses_prior = True
    finds_new_points = True
    PRESETS = PRESETS
    PARTS = ("encoder",)
    BACKENDS = ("torch", "onnx")
    config: GcmConfig
    network: GcmNetwork

    def _checkpoint(self) -> str:
        return "gcm"

    def _build(self, state: State | None) -> GcmNetwork:
        return GcmNetwork()

    def _loaded(self, weights: Weights) -> GcmNetwork:
        """The network and, of the same file, the filter, which stays on the CPU with the matches."""
        found = read_weights(self._checkpoint(), weights)
        with seeded():
            network, self.filter = GcmNetwork(), MatchFilter()
        if found is not None:
            state, where = found
            filter_state = {k[len(_FILTER_PREFIX) :]: v for k, v in state.items() if k.startswith(_FILTER_PREFIX)}
            load_exactly(network, {k: v for k, v in state.items() if not k.startswith(_FILTER_PREFIX)}, where)
            if filter_state:
                load_exactly(self.filter, filter_state, where)
            else:
                # a network fresh from its first training stage: the correlation stands in for the score
                self.config = self.config.model_copy(update={"filter": False})
        self.filter.eval().requires_grad_(False)
        with seeded():
            self.pair_filter = PairFilter.shipped()
        self._guided_score = GuidedScore.shipped()
        return network

    def _graph(self, part: str, network: GcmNetwork, reference: Image, query: Image) -> Graph:
        rgb, _, _ = working_image(reference, None, self.config.max_pixels)
        encoder = GcmEncoder(network, min(self.config.keypoints, MOST_KEYPOINTS), self.config.saliency_threshold)
        return encoder_graph(self.name, encoder.eval(), rgb, OUTPUTS, multiple=MULTIPLE, table=TABLE)

    def _network_graph(self, network: GcmNetwork) -> Graph:
        outputs = {"descriptors": "at stride 4, not normalised", "saliency": "a logit per pixel"}
        return network_graph(self.name, network, outputs, multiple=MULTIPLE)

    def _network_output(self, *outputs: Tensor) -> Features:
        return Features(*outputs)

    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> GcmEncoding:
        rgb, allowed, scale = working_image(image, mask, self.config.max_pixels)
        return self._encode_working(rgb, allowed, scale)

    def _encode_working(
        self, rgb: Image, allowed: NDArray[np.bool_] | None, scale: NDArray[np.float64] | None = None
    ) -> GcmEncoding:
        return encode_working_image(
            self.network,
            rgb,
            allowed,
            np.ones(2) if scale is None else scale,
            keypoints=self.config.keypoints,
            threshold=self.config.saliency_threshold,
        )

    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> RawMatches:
        return self._matched(reference, query, wide=True)

    def _match_neighbours(
        self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int
    ) -> RawMatches:
        return self._matched(reference, query, wide=False)

    @torch.inference_mode()
    def _matched(self, reference: Encoding, query: Encoding, *, wide: bool) -> RawMatches:
        a: GcmEncoding = reference.data
        b: GcmEncoding = query.data
        candidates, score = self._confident(a, b, self.candidates(a, b, wide=wide))
        static = np.linalg.norm(candidates.reference_xy - candidates.query_xy, axis=1) < _STANDS_PX
        if wide and np.count_nonzero(static) > _OVERLAY_SHARE * len(static) and not stands(reference, query):
            candidates, score = self._uncovered(a, b, candidates, score, static)
        return RawMatches(
            a.to_original(candidates.reference_xy),
            b.to_original(candidates.query_xy),
            score,
            _precision(candidates, b.scale),
            linear=candidates.linear * a.scale[None, None, :] / b.scale[None, :, None],
            make_warp=_warp_maker(candidates, score, (a, b), (reference.size, query.size)),
        )

    @torch.inference_mode()
    def _match_guided(
        self, reference: Encoding, query: Encoding, prior: Prior, *, max_matches: int | None, seed: int
    ) -> RawMatches:
        a: GcmEncoding = reference.data
        b: GcmEncoding = query.data
        found = guided_matches(a, b, prior, self._guided_score, self.config.min_score)
        found = found.select(self._accepted(found.score, _GUIDED_BAR, _GUIDED_ENOUGH))
        return RawMatches(
            found.reference_xy,
            found.query_xy,
            found.score,
            _precision(found.evidence, b.scale),
            linear=found.linear,
            confirmed=True,
            make_warp=_warp_maker(found.evidence, found.score, (a, b), (reference.size, query.size)),
        )

    def _guide_points(self, encoding: Encoding) -> NDArray[np.float32]:
        data: GcmEncoding = encoding.data
        return data.to_original(data.guided.places).astype(np.float32)

    def _confident(
        self, reference: GcmEncoding, query: GcmEncoding, candidates: Candidates
    ) -> tuple[Candidates, NDArray[np.float64]]:
        score = self.score(reference, query, candidates)
        bar = self.config.confident_score
        accepted = self._accepted(score, bar, self.config.enough)
        if score[accepted].sum() < _LEAST_FOR_A_POSE:
            accepted = np.asarray(score >= bar, np.bool_)
        return candidates.select(accepted), score[accepted]

    def _uncovered(
        self,
        reference: GcmEncoding,
        query: GcmEncoding,
        found: Candidates,
        score: NDArray[np.float64],
        static: NDArray[np.bool_],
    ) -> tuple[Candidates, NDArray[np.float64]]:
        """The candidates where a static overlay took most of them, with those of the scene behind it, and without those
        between two parts of the overlay, as recurring letters are."""
        if reference.size != query.size:
            return found, score
        hidden = covered(reference.guide.grey, query.guide.grey)
        first, second = (
            self._encode_working(painted_over(encoding.rgb, hidden), encoding.allowed, encoding.scale)
            for encoding in (reference, query)
        )
        behind, chance = self._confident(
            first, second, self.candidates(first, second, apart_from=found.reference_xy[static])
        )
        moved = np.linalg.norm(behind.reference_xy - behind.query_xy, axis=1) > 2 * _STANDS_PX
        seen = moved & ~(_lie_in(hidden, behind.reference_xy) | _lie_in(hidden, behind.query_xy))
        kept = static | ~(_lie_in(hidden, found.reference_xy) & _lie_in(hidden, found.query_xy))
        return found.select(kept).joined(behind.select(seen)), np.concatenate([score[kept], chance[seen]])

    def _accepted(self, score: NDArray[np.float64], bar: float, enough: int) -> NDArray[np.bool_]:
        """Those above the bar; where they are few, the estimator gets the next best with their own scores and sorts
        them out."""
        if (score >= bar).sum() < enough:
            ranked = np.sort(score)[::-1]
            nth = ranked[enough - 1] if len(ranked) >= enough else 0.0
            bar = max(self.config.min_score, min(bar, float(nth)))
        return np.asarray(score >= bar, np.bool_)

    @torch.inference_mode()
    def candidates(
        self,
        reference: GcmEncoding,
        query: GcmEncoding,
        *,
        wide: bool = True,
        apart_from: NDArray[np.float64] | None = None,
    ) -> Candidates:
        """Candidate matches of two encodings before the filter, in working pixels.

        Args:
            wide: whether a weak plain match is tried again under the hypotheses of thumbnails, which take longest.
            apart_from: (M, 2) working pixels, places of both images where no match may begin.
        """
        plain = coarse_matches(reference, query, self.config, apart_from)
        weak = plain.supported < max(self.config.weak_support, self.config.weak_share * len(plain.similarity))
        # an image of little shows as little however it is turned, and its thumbnails a quarter of that
        rich = min(len(reference.keypoints), len(query.keypoints)) >= _RICH * self.config.min_confirmed
        if rich and self.config.hypotheses:
            maps = []
            if weak and wide:
                maps = best_hypotheses(reference, query, self._encode_working, self.config.similarity_threshold)
            elif not weak:
                common = common_hypothesis(plain.reference_xy, plain.query_xy, reference.size)
                maps = [] if common is None else [common]
            turned = self._in_another_frame(reference, query, [h.linear for h in maps], plain.supported)
            if turned is not None:
                return turned
        return self._finish(reference, query, plain)

    def _finish(self, reference: GcmEncoding, query: GcmEncoding, coarse: Coarse) -> Candidates:
        found = refine_coarse(reference, query, coarse, self.config)
        return grow(reference, query, found, self.config) if self.config.growth else found

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
            coarse = coarse_matches(first[0], second[0], self.config)
            if best is None or coarse.supported > best[2].supported:
                best = first, second, coarse
            if coarse.supported >= self.config.weak_support:
                break
        if best is None or best[2].supported < max(self.config.min_confirmed, 1.3 * supported):
            return None
        (warped_reference, reference_frame), (warped_query, query_frame), coarse = best
        found = self._finish(warped_reference, warped_query, coarse)
        found.reference_xy = found.reference_xy @ reference_frame[:, :2].T + reference_frame[:, 2]
        found.query_xy = found.query_xy @ query_frame[:, :2].T + query_frame[:, 2]
        found.linear = query_frame[:, :2] @ found.linear @ np.linalg.inv(reference_frame[:, :2])
        found.information = _carried(found.information, query_frame[:, :2])
        return found

    @torch.inference_mode()
    def score(self, reference: GcmEncoding, query: GcmEncoding, candidates: Candidates) -> NDArray[np.float64]:
        """The chance (N,) that each candidate lies within 1 px of its true place, in working pixels."""
        # what is too little to be a pair is judged by its neighbours alone
        if not (self.config.filter and self.config.pair_filter and len(candidates) > NEIGHBOURS):
            first = self.first_logit(candidates)
            return np.clip(candidates.correlation, 0.0, 1.0) if first is None else 1 / (1 + np.exp(-first))
        surroundings = Surroundings.of(candidates)
        of_match = match_evidence(candidates, surroundings)
        prior = self.pair_filter.prior(torch.from_numpy(of_match.astype(np.float32))).numpy()
        twins = recurrence(reference, query, candidates.reference_xy, candidates.query_xy)
        evidence = pair_evidence(candidates, of_match, prior.astype(np.float64), twins, surroundings)
        chance = torch.sigmoid(self.pair_filter(PairTensors.of(evidence))[:, 0])
        return np.asarray(chance.numpy(), np.float64)

    @torch.inference_mode()
    def first_logit(self, candidates: Candidates) -> Float64 | None:
        """What the first filter, which sees a match and its neighbours, makes of each candidate (N,); None where the
        correlation stands in for it."""
        if not self.config.filter:
            return None
        graph = match_graph(candidates)
        if len(graph.nodes) == 0:
            return np.full(len(candidates), -np.inf)
        return np.asarray(self.filter(graph).numpy(), np.float64)


def _lie_in(mask: NDArray[np.bool_], xy: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether pixels (N, 2) lie in a mask (H, W)."""
    x, y = np.rint(xy).astype(np.intp).T
    return np.asarray(mask[y.clip(0, mask.shape[0] - 1), x.clip(0, mask.shape[1] - 1)], np.bool_)


def _warp_maker(
    matches: Candidates | Guided,
    score: NDArray[np.float64],
    encodings: tuple[GcmEncoding, GcmEncoding],
    sizes: tuple[tuple[int, int], tuple[int, int]],
) -> Callable[[NDArray[np.bool_]], DenseWarp]:
    """Makes the warp of those matches that count, when somebody first looks at it."""
    places, targets = matches.reference_xy, matches.query_xy
    working_size, query_scale = encodings[0].size, encodings[1].scale

    def make(kept: NDArray[np.bool_]) -> DenseWarp:
        cells, certainty = cell_warp(places[kept], targets[kept], score[kept], working_size)
        return dense_warp(cells, certainty, working_size, *sizes, query_scale)

    return make


def _carried(information: NDArray[np.float64], linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Symmetric matrices (N, 3) = xx, xy, yy of an error after it was mapped by `linear` (2, 2)."""
    back = np.linalg.inv(linear)
    a, b, c = information.T
    matrix = np.stack([a, b, b, c], 1).reshape(-1, 2, 2)
    carried = back.T @ matrix @ back
    return np.asarray(carried.reshape(-1, 4)[:, [0, 1, 3]], np.float64)


def _precision(candidates: Candidates | Guided, query_scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse covariance (N, 3) of the aligned positions, in px^-2 of the original query image."""
    normal, correlation = torch.from_numpy(candidates.information), torch.from_numpy(candidates.correlation)
    return original_precision(patch_information(normal, correlation).numpy(), query_scale)
