"""Pose pairs: errors of relative poses by several estimators, purity, calibration, covariance."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.evaluation.datasets.base import Dataset, Pair, PoseTruth
from ros2_densematch.evaluation.pose import pose_auc, pose_errors_deg
from ros2_densematch.evaluation.predictions.entries import Entry
from ros2_densematch.evaluation.predictions.store import Prediction, PredictionStore
from ros2_densematch.evaluation.protocols import SWEEP_PX, EstimatorSetting, Protocol
from ros2_densematch.evaluation.scores.areas import recall_areas, recall_at
from ros2_densematch.evaluation.scores.covariance import covariance_group, pose_error_squared
from ros2_densematch.evaluation.scores.epipolar import epipolar_errors
from ros2_densematch.evaluation.scores.estimators import Problem, estimate, own_pose
from ros2_densematch.evaluation.scores.figures import (
    Curve,
    EntryScores,
    Figure,
    FigureGroup,
    PairScore,
    bootstrap,
    cumulative,
)
from ros2_densematch.evaluation.scores.judging import (
    Cost,
    ScoreJudgement,
    predictions_of,
    purity,
    purity_group,
    unusable_pairs,
)

AUC_DEG = (1.0, 5.0, 10.0, 20.0)
MAP_DEG = (5.0, 10.0, 20.0)
CURVE_LIMIT_DEG = 20.0
OWN_THRESHOLD_PX = 1.0
RIGHT_PX = 1.0
_PURITY_NOTE = (
    "Distance from the true epipolar line, mean of both images. A pair without matches counts as wholly wrong. A wrong "
    "match can lie on the line by chance, so the true shares are a little larger."
)


@dataclass(frozen=True)
class _Errors:
    """Of one pair under one estimator and seed, degrees."""

    rotation: float
    translation: float
    largest: float
    inliers: int
    failed: bool


@dataclass
class _Columns:
    """Errors of all pairs: setting and threshold -> (repeats, pairs)."""

    rows: dict[tuple[EstimatorSetting, float], list[list[_Errors]]] = field(default_factory=dict)

    def add(self, setting: EstimatorSetting, threshold: float, errors: list[_Errors]) -> None:
        self.rows.setdefault((setting, threshold), []).append(errors)

    def largest(self, setting: EstimatorSetting, threshold: float) -> Float64:
        """(repeats, pairs)."""
        rows = [[e.largest for e in pair] for pair in self.rows[setting, threshold]]
        return np.asarray(np.array(rows, np.float64).T, np.float64)


def score_pose(dataset: Dataset, store: PredictionStore, entry: Entry, protocol: Protocol) -> EntryScores:
    """All figures of one entry; the same predictions, truth and protocol give the same result."""
    columns, cost, judged = _Columns(), Cost.empty(), ScoreJudgement.empty()
    distances: list[Float64] = []
    covariances: list[tuple[float, int]] = []
    rows: list[PairScore] = []
    kept: list[str] = []  # subsets of the pairs in `columns`
    # a covariance is stated by our own estimator alone; a peer is not judged by it
    ours = not entry.own_limit or any(setting.name == "own" for setting in protocol.estimators)
    for item in predictions_of(dataset, store):
        pair, prediction = item.pair, item.prediction
        if prediction is None:
            rows.append(PairScore(pair.name, pair.subset, "missing", None, item.reason))
            continue
        cost.add(prediction)
        problem, T_true = judged_problem(pair, prediction, protocol)
        assert isinstance(pair.truth, PoseTruth)
        for setting in protocol.estimators:
            for threshold in SWEEP_PX if setting.threshold_px is None else (setting.threshold_px,):
                errors = _repeated(problem, T_true, pair.truth.min_baseline, setting, threshold, protocol)
                columns.add(setting, threshold, errors)
        kept.append(pair.subset)
        far = np.zeros(0)
        if np.linalg.norm(T_true[:3, 3]) > 1e-9:
            far = epipolar_errors(*problem.rays(), T_true, problem.focal) if len(problem.xy0) else far
            distances.append(far)
            judged.add(prediction.score, far <= RIGHT_PX)
        if ours:
            stated = pose_error_squared(own_pose(problem, OWN_THRESHOLD_PX, 0), T_true)
            covariances += [] if stated is None else [stated]
        rows.append(_row(pair, prediction, columns, protocol, far))
    rows += unusable_pairs(dataset)
    groups = [_auc_group(columns, setting, protocol, None) for setting in protocol.estimators] if kept else []
    subsets = sorted(set(kept))
    by_subset = []
    if len(subsets) > 1:
        for name in subsets:
            index = np.array([i for i, s in enumerate(kept) if s == name], np.intp)
            by_subset.append(
                (name, tuple(_auc_group(columns, setting, protocol, index) for setting in protocol.estimators))
            )
    curves = [_curve(columns, setting, protocol) for setting in protocol.estimators] if kept else []
    if kept:
        groups.append(purity_group(distances, protocol.judged_label, _PURITY_NOTE))
        note = "Right: within 1 px of the true epipolar line, which chance also passes: shares are upper bounds."
        calibration, reliability = judged.group(entry.name, protocol.judged_label, note)
        groups += calibration
        curves += reliability
        groups += covariance_group(
            "covariance",
            "Covariance of the pose",
            f"densematch {OWN_THRESHOLD_PX:g} px, {protocol.judged_label}",
            covariances,
            "Of our own estimator on these matches; the others state none. Errors of the truth count as the pose's.",
        )
        groups.append(cost.group(store))
    return EntryScores(
        entry.name, entry.facts, tuple(groups), tuple(by_subset), tuple(rows), tuple(curves), error_unit="°"
    )


def judged_problem(pair: Pair, prediction: Prediction, protocol: Protocol) -> tuple[Problem, Float64]:
    """The matches with the cameras of the judged images, and the true pose (4, 4) between them."""
    truth = pair.truth
    assert isinstance(truth, PoseTruth)
    turned = [np.eye(4), np.eye(4)]
    for T, seen in zip(turned, prediction.seeing, strict=True):
        T[:3, :3] = seen.rotation()
    T_true = turned[1] @ truth.T_query_from_reference @ turned[0].T
    points, intrinsics, sizes = [], [], []
    for xy, K, seen in zip(
        (prediction.reference_xy, prediction.query_xy),
        (truth.reference_K, truth.query_K),
        prediction.seeing,
        strict=True,
    ):
        g = _judged_scale(seen.size, protocol)
        points.append((xy.astype(np.float64) + 0.5) * g - 0.5)
        offset = 0.5 * (g - 1) if protocol.images.half_pixel else 0.0
        intrinsics.append(np.array([[g, 0, offset], [0, g, offset], [0, 0, 1]]) @ seen.intrinsics(K))
        sizes.append((round(seen.size[0] * g), round(seen.size[1] * g)))
    problem = Problem(
        xy0=points[0],
        xy1=points[1],
        K0=intrinsics[0],
        K1=intrinsics[1],
        D0=truth.reference_D,
        D1=truth.query_D,
        size0=sizes[0],
        size1=sizes[1],
        score=prediction.score,
        precision=prediction.precision,
    )
    return problem, T_true


def _judged_scale(size: tuple[int, int], protocol: Protocol) -> float:
    if protocol.judged_longer_side is not None:
        return protocol.judged_longer_side / max(size)
    if protocol.judged_shorter_side is not None:
        return protocol.judged_shorter_side / min(size)
    return 1.0


def _repeated(
    problem: Problem,
    T_true: Float64,
    min_baseline: float,
    setting: EstimatorSetting,
    threshold: float,
    protocol: Protocol,
) -> list[_Errors]:
    found = []
    for seed in range(protocol.repeats):
        given = problem
        if protocol.shuffle:
            given = problem.shuffled(np.random.default_rng(seed).permutation(len(problem.xy0)))
        estimated = estimate(given, setting.name, threshold, seed)
        if estimated.T is None:
            failure = protocol.failure_deg
            found.append(_Errors(failure, failure, failure, estimated.inliers, True))
            continue
        rotation, translation = pose_errors_deg(estimated.T, T_true)
        if not protocol.signed_translation:
            translation = min(translation, 180.0 - translation)
        short = np.linalg.norm(T_true[:3, 3]) < max(min_baseline, 1e-9)
        largest = rotation if short and min_baseline > 0 else max(rotation, translation)
        found.append(_Errors(rotation, translation, largest, estimated.inliers, False))
    return found


def _row(pair: Pair, prediction: Prediction, columns: _Columns, protocol: Protocol, far: Float64) -> PairScore:
    setting = protocol.estimators[0]
    threshold = SWEEP_PX[SWEEP_PX.index(1.0)] if setting.threshold_px is None else setting.threshold_px
    first = columns.rows[setting, threshold][-1][0]
    reason = prediction.error
    if first.failed and not reason:
        reason = "too few matches" if len(prediction.score) < 5 else "the estimator found no pose"
    values: dict[str, float | None] = {
        "rotation_deg": first.rotation,
        "translation_deg": first.translation,
        "matches": float(len(prediction.score)),
        "inliers": float(first.inliers),
        "beyond_3_px": purity(far)[1],
    }
    for setting in protocol.estimators[1:]:
        if setting.threshold_px is not None:
            values[f"error_deg {setting.label}"] = columns.rows[setting, setting.threshold_px][-1][0].largest
    return PairScore(pair.name, pair.subset, "failed" if first.failed else "scored", first.largest, reason, values)


def _auc_group(
    columns: _Columns, setting: EstimatorSetting, protocol: Protocol, index: NDArray[np.intp] | None
) -> FigureGroup:
    """AUC and mAP of one estimator over all pairs or those of a subset."""

    def errors(threshold: float) -> Float64:
        found = columns.largest(setting, threshold)
        return found if index is None else found[:, index]

    sweep: tuple[tuple[float, tuple[Figure, ...]], ...] = ()
    threshold = setting.threshold_px
    if threshold is None:
        sweep = tuple((t, auc_figures(errors(t))) for t in SWEEP_PX)
        threshold = max(SWEEP_PX, key=lambda t: float(pose_auc(columns.largest(setting, t).mean(0), (5.0,))[0]))
    label = setting.label if setting.threshold_px is not None else f"{setting.label}: {threshold:g} px"
    repeats = f", mean of {protocol.repeats} runs" if protocol.repeats > 1 else ""
    sign = "sign of the translation counted" if protocol.signed_translation else "sign of the translation not counted"
    note = f"Error: the larger of rotation and translation direction, {sign}; a pair without a pose counts as "
    note += f"{protocol.failure_deg:g} degrees."
    if sweep:
        note += " The threshold was chosen on the test data: the figures are those of the best one and flatter."
    key = f"{setting.name} {'auto' if setting.threshold_px is None else f'{threshold:g}'}"
    return FigureGroup(
        key, "Pose", f"{label}, {protocol.judged_label}{repeats}", auc_figures(errors(threshold)), note, sweep
    )


def auc_figures(errors: Float64) -> tuple[Figure, ...]:
    """AUC at `AUC_DEG` and mAP at `MAP_DEG` in per cent.

    Args:
        errors: (repeats, pairs) degrees.
    """
    labels = [f"AUC@{t:g}°" for t in AUC_DEG] + [f"mAP@{t:g}°" for t in MAP_DEG]
    keys = [f"auc_{t:g}" for t in AUC_DEG] + [f"map_{t:g}" for t in MAP_DEG]
    runs = _areas(errors)
    low, high = bootstrap(errors.shape[1], lambda index: np.mean([_areas(e[index]) for e in errors], axis=0))
    std = runs.std(0, ddof=1) if len(runs) > 1 else [None] * len(keys)
    mean = runs.mean(0)
    return tuple(
        Figure(
            key=k,
            label=label,
            value=float(v),
            digits=1,
            unit="%",
            low=float(a),
            high=float(b),
            std=None if s is None else float(s),
        )
        for k, label, v, a, b, s in zip(keys, labels, mean, low, high, std, strict=True)
    )


def _areas(errors: Float64) -> Float64:
    """AUC and mAP in per cent, (R, 7), of errors (R, N)."""
    shares = recall_at(errors, np.arange(5.0, MAP_DEG[-1] + 1e-9, 5.0).tolist())
    precision = [shares[:, : round(t / 5)].mean(1) for t in MAP_DEG]
    return np.asarray(100 * np.hstack([recall_areas(errors, AUC_DEG), np.stack(precision, 1)]), np.float64)


def _curve(columns: _Columns, setting: EstimatorSetting, protocol: Protocol) -> Curve:
    threshold = 1.0 if setting.threshold_px is None else setting.threshold_px
    label = setting.label if setting.threshold_px is not None else f"{setting.label}: {threshold:g} px"
    return cumulative(label, columns.largest(setting, threshold)[0].tolist(), CURVE_LIMIT_DEG)
