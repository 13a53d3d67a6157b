"""Relative pose of two calibrated cameras from correspondences, with an explicit decision about the kind of scene.

Steps: undistort; essential matrix by PoseLib's LO-RANSAC; robust maximum-likelihood refinement (`models`); homography
and pure rotation fitted to the same inliers; decision (`_decide`); metric scale where a source is given (`scale`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ros2_densematch.arrays import BoolArray, Float32, Float64
from ros2_densematch.geometry import hypotheses, models, overlay, poses, rays, scale, two_motions
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.hypotheses import Hypothesis, Sampling
from ros2_densematch.geometry.models import Refined
from ros2_densematch.geometry.pose_config import PoseConfig
from ros2_densematch.geometry.rays import Rays
from ros2_densematch.geometry.relative_pose import (
    UNKNOWN_LENGTH_VARIANCE,
    UNKNOWN_TRANSLATION_VARIANCE,
    Geometry,
    RelativePose,
    Scale,
    no_pose,
)
from ros2_densematch.geometry.scale import ScaleSource

__all__ = ["Geometry", "PoseConfig", "RelativePose", "Scale", "estimate_relative_pose"]


_DRIFT_MISSED, _DRIFT_DOUBT = 20.0, 40.0  # times `drift_px`, see `_drift_px`
_WORST_TURN_DEG = 20.0  # a pose whose rotation is known less well than this (standard deviation) is none
_OPEN_TURN_DEG = 1.0  # a pose whose rotation is known less well than this says so in its status
# A motion behind an overlay explains that many of the other matches, and fixes the rotation that well.
_LEAST_BEHIND, _SUPPORTED, _CREDIBLE_DEG = 40, 0.5, 5.0
# So many matches, of all and of those that the first motion leaves, that agree on another motion are one.
_LEAST_RIVAL, _RIVAL_SHARE, _RIVAL_SUPPORT = 40, 0.1, 0.4
_RIVAL_ROUNDS = 500  # samples of five find a motion of two fifths of the matches
_SAME_MOTION_DEG = 0.4  # two motions that turn alike are one
_ALL_STATIC = 0.9  # share of the inliers that stand still although the picture has changed: no camera's motion
_SAME_TURN_DEG = 1.0  # two estimates of one motion turn alike
_CALIBRATION_PX = 3.0  # a rotation that is off by more cannot be the calibration's fault


def estimate_relative_pose(
    m: Correspondences,
    camera0: Camera,
    camera1: Camera,
    *,
    config: PoseConfig | None = None,
    scale_source: ScaleSource | None = None,
    seed: int = 0,
    thorough: bool = True,
) -> RelativePose:
    """Relative pose of the query camera against the reference camera.

    Args:
        m: correspondences in pixels of the original images; entries that are not finite, or that a camera model cannot
            reach, are left out and counted in the status.
        camera0, camera1: reference and query camera; they must be of the image sizes that `m` names.
        config: settings, default `PoseConfig()`.
        scale_source: where metres come from, see `scale`; None leaves the translation a direction.
        seed: of the random sampling. The same input and seed give the same result.
        thorough: look for further hypotheses beside the best one, which widen the covariance where they are as likely;
            False saves that time where something else, as a prediction, tells wrong answers.

    Returns:
        A RelativePose, whatever the matches: without enough of them it is DEGENERATE with the reason in `status`.

    Raises:
        ValueError: a camera does not belong to the image size of `m`.
    """
    config = config or PoseConfig()
    _check_sizes(m, camera0, camera1)
    prepared, usable = rays.prepare(m, camera0, camera1, config.uncertainty)
    dropped = len(m) - len(prepared)
    note = f"; {dropped} matches left out: not finite or outside the camera model" if dropped else ""
    used = m.select(usable)
    sampling = Sampling(
        config.max_epipolar_error_px,
        config.min_iterations,
        config.max_iterations,
        config.success_probability,
        seed,
        thorough,
    )
    candidates, rivals = _before_overlay(prepared, used, camera1, config, sampling)
    result = candidates[0]
    if scale_source is not None and result.ok:
        result = scale.apply(scale_source, candidates, prepared, used, camera0)
    if result.ok and len(candidates) == 1 and not rivals:
        result = _worth_its_name(result)
    if result.ok and (turn := _rotation_std_deg(result)) > _OPEN_TURN_DEG:
        result = replace(result, status=f"{result.status}; the rotation is known to {turn:.1f} degrees only")
    inliers = np.zeros(len(m), np.bool_)
    inliers[usable] = result.inliers
    return replace(
        result,
        inliers=inliers,
        num_matches=len(m),
        inlier_ratio=result.num_inliers / len(m) if len(m) else 0.0,
        status=result.status + note,
    )


def _worth_its_name(pose: RelativePose) -> RelativePose:
    """The pose, or none where the matches leave its rotation open."""
    turn = _rotation_std_deg(pose)
    if turn <= _WORST_TURN_DEG:
        return pose
    bound = f"the matches fix the rotation to {turn:.0f} degrees only, {_WORST_TURN_DEG:g} are needed"
    return no_pose(pose.num_matches, f"{bound}; {pose.status}", inliers=pose.inliers)


def _rotation_std_deg(pose: RelativePose) -> float:
    """Standard deviation about the worst axis."""
    return float(np.degrees(np.sqrt(np.linalg.eigvalsh(pose.covariance[3:, 3:])[-1])))


@dataclass(frozen=True, eq=False)
class _Evidence:
    """What the three models say about one set of epipolar inliers."""

    essential: Refined
    homography: Float64 | None
    homography_ratio: float
    rotation: Refined
    rotation_ratio: float
    parallax_px: float
    limit_px: float
    on_plane: BoolArray
    calibration: Float64
    hypotheses: list[Hypothesis] = field(default_factory=list)
    planes: list[Hypothesis] = field(default_factory=list)


def _before_overlay(
    all_rays: Rays, m: Correspondences, camera1: Camera, config: PoseConfig, sampling: Sampling
) -> tuple[list[RelativePose], bool]:
    """The pose of the scene, without the matches that the camera carries along; and whether two motions rival."""
    found = overlay.static_matches(m)
    if found is None or not found.hidden.any():
        everything = _estimate(all_rays, m.score, camera1, config, sampling)
        standing = found.static if found is not None and found.standing else None
        return _before_moving_things(everything, all_rays, m, camera1, config, sampling, standing)
    rest = ~found.hidden
    count = int(found.hidden.sum())
    share = f"{count} of {len(m)} matches stay in place while the picture around them changes"
    candidates = [
        _among(pose, rest) for pose in _estimate(all_rays.select(rest), m.score[rest], camera1, config, sampling)
    ]
    best = candidates[0]
    if not best.ok or not _is_credible(best, int(rest.sum())):
        geometry = Geometry.WATERMARK if found.border else Geometry.DEGENERATE
        return [no_pose(len(m), f"{share}: a static overlay, and no motion behind it", geometry=geometry)], False
    R, t = _parts(best.T_query_from_reference)
    if best.scale is Scale.NONE:
        agrees = rays.transfer_distance_px(all_rays.select(found.hidden), R) < config.max_homography_error_px
    else:
        agrees = _epipolar_inliers(all_rays.select(found.hidden), R, t, config)
    if agrees.mean() > 0.5:  # far away, or on the axis of the motion: part of the scene, unless it says otherwise
        everything = _estimate(all_rays, m.score, camera1, config, sampling)
        if poses.rotation_angle_deg(R, everything[0].T_query_from_reference) < _SAME_TURN_DEG:
            if (
                everything[0].ok and found.static[everything[0].inliers].mean() > _ALL_STATIC
            ):  # of a scene that moves, more would
                geometry = Geometry.WATERMARK if found.border else Geometry.DEGENERATE
                return [
                    no_pose(len(m), f"{share}: a static overlay, and no motion behind it", geometry=geometry)
                ], False
            return everything, False
    doubt = two_motions.doubt(best, m.reference_xy, m.reference_size)
    word = f"; {share}: a static overlay, left out{doubt}"
    return [replace(pose, status=pose.status + word) for pose in candidates], False


def _before_moving_things(
    candidates: list[RelativePose],
    all_rays: Rays,
    m: Correspondences,
    camera1: Camera,
    config: PoseConfig,
    sampling: Sampling,
    standing: BoolArray | None,
) -> tuple[list[RelativePose], bool]:
    """The motion of the background where some matches agree on another one, or a word about it; whether nobody can tell
    which of the two is the background's.

    Args:
        standing: the static matches, where the picture says that the camera stands.
    """
    first = candidates[0]
    if not first.ok or not sampling.thorough:
        return candidates, False
    rest = ~first.inliers
    if standing is not None and (first.inliers & standing).sum() < 0.5 * standing.sum():
        rest = standing
    doubt = two_motions.doubt(first, m.reference_xy, m.reference_size)
    other = None
    if rest.sum() >= max(_LEAST_RIVAL, _RIVAL_SHARE * len(m)):
        rounds = min(sampling.max_iterations, _RIVAL_ROUNDS)
        quick = replace(
            sampling, thorough=False, max_iterations=rounds, min_iterations=min(sampling.min_iterations, rounds)
        )
        other = _among(_estimate(all_rays.select(rest), m.score[rest], camera1, config, quick)[0], rest)
    if other is None or not other.ok or other.num_inliers < max(_LEAST_RIVAL, _RIVAL_SUPPORT * rest.sum()):
        return [replace(pose, status=pose.status + doubt) for pose in candidates], False
    if poses.rotation_angle_deg(first.T_query_from_reference, other.T_query_from_reference) < _SAME_MOTION_DEG:
        return candidates, False
    votes = -1 if rest is standing else two_motions.background_votes(m.reference_xy, m.reference_size, first, other)
    if votes < 0:
        word = f"; {first.num_inliers} matches agree on another motion, of an object in front"
        return [replace(other, status=other.status + word)], False
    if votes > 0:
        word = f"; {other.num_inliers} other matches agree on another motion, of an object in front"
        return [replace(pose, status=pose.status + word) for pose in candidates], False
    word = f"; two motions are possible: {other.num_inliers} other matches agree on another one"
    share = other.num_inliers / (first.num_inliers + other.num_inliers)
    return [
        replace(_open(_open(pose, candidates), [other], share), status=pose.status + word) for pose in candidates
    ], True


def _is_credible(pose: RelativePose, among: int) -> bool:
    """Whether the few matches beside an overlay show a motion, and not only what a search always finds."""
    enough = pose.num_inliers >= max(_LEAST_BEHIND, _SUPPORTED * among)
    return enough and _rotation_std_deg(pose) < _CREDIBLE_DEG


def _among(pose: RelativePose, chosen: BoolArray) -> RelativePose:
    """A pose that some of the matches gave, as one of all matches."""
    inliers = np.zeros(len(chosen), np.bool_)
    inliers[chosen] = pose.inliers
    return replace(pose, inliers=inliers, num_matches=len(chosen), inlier_ratio=float(inliers.mean()))


def _estimate(
    all_rays: Rays, score: Float32, camera1: Camera, config: PoseConfig, sampling: Sampling
) -> list[RelativePose]:
    """The pose; of a plane that leaves two motions, both, the preferred one first."""
    n = len(all_rays)
    if n < config.min_inliers:
        return [no_pose(n, f"too few matches: {n}, at least {config.min_inliers} are needed")]
    found = hypotheses.search(all_rays, score, sampling)
    start = found[0].R, found[0].t
    inliers = _epipolar_inliers(all_rays, *start, config)
    needed = _needed_inliers(n, camera1, config)
    if inliers.sum() < needed:
        return [_too_few(inliers, needed, config)]
    calibration = len(all_rays.shared0)
    all_rays = rays.with_drift(all_rays, _drift_px(all_rays, score, *start, config))
    refined = _refine(all_rays, *start, config)
    # Identical images give the translation no gradient, without parallax and noise: a rotation may still explain all.
    essential = refined or Refined(*start, np.zeros((6, 6)), 1.0, np.inf)
    inliers = _epipolar_inliers(all_rays, essential.R, essential.t, config)
    if inliers.sum() < needed:
        return [_too_few(inliers, needed, config)]
    evidence = _gather(all_rays.select(inliers), essential, calibration, config)
    evidence = replace(evidence, hypotheses=found)
    geometry, reason = _decide(evidence, config)
    if refined is None and evidence.rotation_ratio < config.explained_ratio:
        return [no_pose(n, f"the matches do not determine the motion; {reason}", inliers=inliers)]
    if geometry in (Geometry.PANORAMIC, Geometry.PLANAR_OR_PANORAMIC):
        return [_panoramic(all_rays, evidence, geometry, reason, config)]
    kept = all_rays.select(inliers)
    motions = []
    if evidence.homography is not None:
        motions = models.plane_motions(evidence.homography, kept.select(evidence.on_plane))
    planes = hypotheses.of_plane(motions, all_rays, score, config.max_epipolar_error_px)
    if geometry is not Geometry.PLANAR:
        return [_directed(all_rays, essential, geometry, replace(evidence, planes=planes), reason, config)]
    planar, reason = _planar(all_rays, kept, evidence, motions, reason, camera1, config)
    if len(planar) == 1:
        return [_directed(all_rays, planar[0], geometry, replace(evidence, planes=planes), reason, config)]
    # What speaks for the other motion is in the covariance by `_open`.
    shares = hypotheses.nearest(found, [(model.R, model.t) for model in planar])
    directed = [
        _directed(all_rays, model, geometry, replace(evidence, hypotheses=own), reason, config)
        for model, own in zip(planar, shares, strict=True)
    ]
    return [_open(pose, directed) for pose in directed]


def _directed(
    all_rays: Rays, model: Refined, geometry: Geometry, evidence: _Evidence, reason: str, config: PoseConfig
) -> RelativePose:
    """The result with a direction of translation, Scale.UNIT."""
    inliers = _epipolar_inliers(all_rays, model.R, model.t, config)
    kept = all_rays.select(inliers)
    covariance = model.covariance + hypotheses.spread(
        evidence.hypotheses,
        evidence.planes,
        model.R,
        model.t,
        model.covariance,
        on_plane=evidence.homography_ratio,
        independent=config.drift_px == 0,
    )
    covariance[:3, :3] += UNKNOWN_LENGTH_VARIANCE * np.outer(model.t, model.t)
    return RelativePose(
        T_query_from_reference=poses.make_pose(model.R, model.t),
        geometry=geometry,
        scale=Scale.UNIT,
        scale_std=float("nan"),
        covariance=covariance,
        inliers=inliers,
        num_matches=len(all_rays),
        num_inliers=int(inliers.sum()),
        inlier_ratio=float(inliers.mean()),
        median_epipolar_px=_median(rays.epipolar_distance_px(kept, model.R, model.t)),
        median_triangulation_deg=_median(np.degrees(rays.depths(kept, model.R, model.t)[2])),
        homography_inlier_ratio=evidence.homography_ratio,
        status=reason,
    )


def _open(pose: RelativePose, candidates: list[RelativePose], chance: float = 0.5) -> RelativePose:
    """The pose with a covariance that reaches to the other motions, each by the chance that it is the true one."""
    covariance = pose.covariance.copy()
    for other in candidates:
        (R, t), (other_R, other_t) = (_parts(p.T_query_from_reference) for p in (pose, other))
        difference = hypotheses.pose_difference(R, t, other_R, other_t)
        covariance += chance * hypotheses.reach(difference)
    return replace(pose, covariance=covariance)


def _parts(T: Float64) -> tuple[Float64, Float64]:
    return T[:3, :3], T[:3, 3]


def _median(values: Float64) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _refine(all_rays: Rays, R: Float64, t: Float64, config: PoseConfig) -> Refined | None:
    """Refinement over all matches within three times the threshold: the tail of the noise must stay in, or the noise
    and with it the covariance come out too small; Tukey's loss takes the weight off what does not belong there."""
    wide = config.with_wider_epipolar_limit(3.0)
    return models.refine_essential(all_rays.select(_epipolar_inliers(all_rays, R, t, wide)), R, t)


def _epipolar_inliers(all_rays: Rays, R: Float64, t: Float64, config: PoseConfig) -> BoolArray:
    """Matches (N,) near their epipolar lines and before both cameras."""
    limit = config.max_epipolar_error_px
    near = rays.epipolar_distance_px(all_rays, R, t) < limit
    return np.asarray(near & hypotheses.in_front(all_rays, R, t, limit), np.bool_)


def _needed_inliers(n: int, camera1: Camera, config: PoseConfig) -> int:
    """Inliers that random matches would not reach: a random query point lies within the threshold of an epipolar line
    with the probability of that strip's share of the image; the best of many hypotheses has some more."""
    strip = 2.0 * config.max_epipolar_error_px * float(np.hypot(camera1.width, camera1.height))
    expected = n * min(1.0, strip / (camera1.width * camera1.height))
    return max(config.min_inliers, int(np.ceil(expected + 5.0 * np.sqrt(expected) + 5.0)))


def _too_few(inliers: BoolArray, needed: int, config: PoseConfig) -> RelativePose:
    found, n = int(inliers.sum()), len(inliers)
    chance = "" if needed == config.min_inliers else f", no more than chance gives among {n} matches"
    return no_pose(n, f"too few inliers: {found}, at least {needed} are needed{chance}", inliers=inliers)


def _drift_px(all_rays: Rays, score: Float32, R: Float64, t: Float64, config: PoseConfig) -> float:
    """How far whole groups of matches may be off together, in pixels.

    Where many matches miss the epipolar line by little more than the limit, about as many lie wrong within it; and so
    do matches whose scores say that they are uncertain. The two factors come from rendered pairs
    (`benchmarks/two_view.py covariance`).
    """
    distance = rays.epipolar_distance_px(all_rays, R, t) / config.max_epipolar_error_px
    near, inside = int((distance < 3.0).sum()), distance < 1.0
    missed = 1.0 - float(inside.sum()) / max(near, 1)
    doubt = 1.0 - float(np.clip(score[inside], 0.0, 1.0).mean()) if inside.any() else 1.0
    return config.drift_px * float(np.sqrt(1.0 + (_DRIFT_MISSED * missed) ** 2 + (_DRIFT_DOUBT * doubt**2) ** 2))


def _gather(kept: Rays, essential: Refined, calibration: int, config: PoseConfig) -> _Evidence:
    # Noise of the difference of two points, each with the noise that the epipolar distances show, in pixels.
    noise_px = 1.4826 * float(np.median(rays.epipolar_distance_px(kept, essential.R, essential.t)))
    limit = float(np.clip(config.noise_factor * np.sqrt(2.0) * noise_px, 0.5, config.max_homography_error_px))
    H = models.fit_homography(kept, limit)
    on_plane = np.zeros(len(kept), np.bool_) if H is None else rays.transfer_distance_px(kept, H) < limit
    guess = models.fit_rotation(kept, essential.R)
    rotation = Refined(guess, np.zeros(3), np.zeros((6, 6)), 1.0, np.inf)
    # Where the parallax is plain, the exact rotation does not matter.
    errors = np.zeros(calibration)
    shift = rays.transfer_distance_px(kept, guess)
    if np.median(shift) < max(3.0 * limit, _CALIBRATION_PX):
        rotation = models.refine_rotation(kept, guess) or rotation
        shift = rays.transfer_distance_px(kept, rotation.R)
        if (shift < limit).mean() < config.explained_ratio:
            turn, wrong = models.calibrate_rotation(kept, rotation.R, calibration)
            again = rays.transfer_distance_px(rays.recalibrated(kept, wrong), turn)
            if (again < limit).mean() >= config.explained_ratio:
                rotation, errors, shift = replace(rotation, R=turn), wrong, again
    return _Evidence(
        essential=essential,
        homography=H,
        homography_ratio=float(on_plane.mean()),
        rotation=rotation,
        rotation_ratio=float((shift < limit).mean()),
        parallax_px=float(np.median(shift)),
        limit_px=limit,
        on_plane=on_plane,
        calibration=errors,
    )


def _decide(evidence: _Evidence, config: PoseConfig) -> tuple[Geometry, str]:
    """The class of the scene and the reason. The simplest model that explains the inliers wins."""
    rotation, homography = evidence.rotation_ratio, evidence.homography_ratio
    numbers = f"rotation explains {rotation:.0%}, homography {homography:.0%} of the inliers"
    if evidence.rotation_ratio >= config.explained_ratio:
        return Geometry.PANORAMIC, f"pure rotation or no visible translation: {numbers}"
    planar = evidence.homography is not None and evidence.homography_ratio >= config.explained_ratio
    if evidence.parallax_px < config.min_parallax_px:
        geometry = Geometry.PLANAR_OR_PANORAMIC if planar else Geometry.PANORAMIC
        return geometry, f"median parallax {evidence.parallax_px:.2f} px is too small for a translation: {numbers}"
    if planar:
        return Geometry.PLANAR, f"planar scene: {numbers}"
    return Geometry.CALIBRATED, f"general scene: {numbers}"


def _planar(
    all_rays: Rays,
    kept: Rays,
    evidence: _Evidence,
    motions: list[tuple[Float64, Float64, Float64]],
    reason: str,
    camera1: Camera,
    config: PoseConfig,
) -> tuple[list[Refined], str]:
    """Motions of the homography, refined with the plane; the refined essential matrix where that fails."""
    assert evidence.homography is not None
    if not motions:
        return [
            evidence.essential
        ], f"{reason}; the homography has no valid decomposition, pose of the essential matrix"
    motions = models.rank_plane_motions(motions, kept, config.max_epipolar_error_px)
    # As in `_refine`, the tail of the noise stays in. Matches off the plane count by their epipolar distance,
    # where there are more of them than outliers would give.
    distance = rays.transfer_distance_px(all_rays, evidence.homography)
    on_plane, apart = distance < 1.5 * evidence.limit_px, distance > 3.0 * evidence.limit_px
    wide = config.with_wider_epipolar_limit(3.0)
    refined = []
    for R, t, n in motions:
        off_plane = apart & _epipolar_inliers(all_rays, R, t, wide)
        if off_plane.sum() < _needed_inliers(int(apart.sum()), camera1, wide):
            off_plane[:] = False
        model = models.refine_plane(all_rays.select(on_plane), all_rays.select(off_plane), R, t, n)
        if model is not None:
            refined.append(model)
    if not refined:
        return [evidence.essential], f"{reason}; the plane could not be refined, pose of the essential matrix"
    return refined, reason + ("; two motions fit the plane, the one that turns less first" if len(refined) > 1 else "")


def _panoramic(
    all_rays: Rays, evidence: _Evidence, geometry: Geometry, reason: str, config: PoseConfig
) -> RelativePose:
    """The rotation alone. Where a pure rotation does not explain the matches (small but visible parallax), the rotation
    of the essential matrix is the better one."""
    explains = evidence.rotation_ratio >= config.explained_ratio
    model = evidence.rotation if explains else evidence.essential
    distance = rays.transfer_distance_px(rays.recalibrated(all_rays, evidence.calibration), model.R)
    if explains:
        inliers = distance < evidence.limit_px
    else:
        inliers = _epipolar_inliers(all_rays, model.R, model.t, config)
        distance = rays.epipolar_distance_px(all_rays, model.R, model.t)
    covariance = np.zeros((6, 6))
    covariance[:3, :3] = UNKNOWN_TRANSLATION_VARIANCE * np.eye(3)
    covariance[3:, 3:] = model.covariance[3:, 3:]
    kept = all_rays.select(inliers)
    angle = rays.depths(kept, model.R, np.zeros(3))[2]
    return RelativePose(
        T_query_from_reference=poses.make_pose(model.R, np.zeros(3)),
        geometry=geometry,
        scale=Scale.NONE,
        scale_std=float("nan"),
        covariance=covariance,
        inliers=inliers,
        num_matches=len(all_rays),
        num_inliers=int(inliers.sum()),
        inlier_ratio=float(inliers.mean()),
        median_epipolar_px=_median(distance[inliers]),
        median_triangulation_deg=_median(np.degrees(angle)),
        homography_inlier_ratio=evidence.homography_ratio,
        status=reason,
    )


def _check_sizes(m: Correspondences, camera0: Camera, camera1: Camera) -> None:
    for role, camera, size in (("reference", camera0, m.reference_size), ("query", camera1, m.query_size)):
        if camera.size != tuple(size):
            raise ValueError(
                f"the {role} camera is for {camera.width} x {camera.height} images, the matches are of "
                f"{size[0]} x {size[1]}: use camera.for_image(width, height)"
            )
