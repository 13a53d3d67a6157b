"""The chance that a guided match is right, from the evidence that guidance has.

Guidance knows no descriptors: similarity, lead over the next best and the way from a coarse place, which the match
filter of a full match uses, are absent here. A small network of its own, fitted on rendered passes
(`benchmarks/guided_score.py`), sees what is left. What the last match believed bounds the result: a frame adds at most
what its own evidence is worth.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.matchers.gcm.guided import Guided
from ros2_densematch.weights.catalogue import path_of
from ros2_densematch.weights.loading import read_state

FEATURES = 14
WIDTH = 24
_MOST_EVIDENCE = 1.0  # logit by which one frame can raise a score at most
_BEYOND = 4.0  # standard deviations of the evidence
_CERTAIN = 1e-3  # scores lie between this and one minus this


class GuidedScore(NamedTuple):
    """A network of one hidden layer.

    Attributes:
        mean, deviation: (FEATURES,), scale of the evidence.
        inner: (FEATURES, WIDTH), inner_bias: (WIDTH,).
        outer: (WIDTH,), outer_bias: ().
        usual: (), logit of the share of right matches among those it was fitted on.
    """

    mean: Float64
    deviation: Float64
    inner: Float64
    inner_bias: Float64
    outer: Float64
    outer_bias: Float64
    usual: Float64

    @staticmethod
    def shipped() -> GuidedScore:
        """The fitted one.

        Raises:
            FileNotFoundError: the file is missing from this installation.
        """
        state = read_state(path_of("gcm_guided"))
        return GuidedScore(*(state[name].double().numpy() for name in GuidedScore._fields))

    def of_evidence(self, features: Float64) -> Float64:
        """Chance (N,) by `evidence` (N, FEATURES) alone."""
        return _sigmoid(self._logit(features))

    def _logit(self, features: Float64) -> Float64:
        # beyond what was seen while it was fitted nothing new is known
        scaled = ((features - self.mean) / self.deviation).clip(-_BEYOND, _BEYOND)
        return np.asarray(np.maximum(scaled @ self.inner + self.inner_bias, 0.0) @ self.outer + self.outer_bias)

    def chance(self, matches: Guided) -> Float64:
        """Chance (N,) that each match is right within 1.5 px; with the score before as its bound."""
        if len(matches) == 0:
            return np.zeros(0)
        logit = self._logit(evidence(matches))
        known = np.isfinite(matches.before)
        last = np.clip(matches.before[known], _CERTAIN, 1 - _CERTAIN)
        gain = np.clip(logit[known] - self.usual, 0.0, _MOST_EVIDENCE)
        logit[known] = np.minimum(logit[known], np.log(last / (1 - last)) + gain)
        return _sigmoid(logit)


def evidence(matches: Guided) -> Float64:
    """(N, FEATURES): of each match alone, of its neighbours' map, and of all matches together."""
    a, b, c = matches.information.T
    half, root = (a + c) / 2, np.sqrt(np.maximum(((a - c) / 2) ** 2 + b**2, 0))
    p, q, r, s = matches.linear.reshape(-1, 4).T
    total, twist = np.hypot(p + s, r - q), np.hypot(p - s, q + r)
    larger, smaller = (total + twist) / 2, np.abs(total - twist) / 2
    blur = -0.3 * np.log(1.001 - np.clip(matches.correlation, -1, 1))
    residual = np.log1p(matches.residual)
    everyone = np.ones(len(matches))
    return np.stack(
        [
            matches.correlation,
            blur,
            0.3 * np.log(np.maximum(half - root, 0) + 1e-4),
            0.3 * np.log(half + root + 1e-4),
            np.log1p(matches.moved),
            residual,
            matches.support,
            0.5 * np.log(np.maximum(larger * smaller, 1e-4)),
            np.log(np.maximum(larger, 1e-3) / np.maximum(smaller, 1e-3)).clip(0, 4),
            matches.grown.astype(np.float64),
            everyone * blur.mean(),
            everyone * residual.mean(),
            everyone * 0.3 * np.log1p(len(matches)),
            np.log(matches.share + 0.02),
        ],
        axis=1,
    )


def _sigmoid(logit: Float64) -> Float64:
    return np.asarray(1 / (1 + np.exp(-np.clip(logit, -30, 30))))
