"""Relative pose of two calibrated cameras from correspondences, with an explicit decision about the kind of scene.

Steps: undistort; essential matrix by PoseLib's LO-RANSAC; robust maximum-likelihood refinement (`models`); homography
and pure rotation fitted to the same inliers; decision (`_decide`); metric scale where a source is given (`scale`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import poselib  # type: ignore[import-untyped]
from numpy.typing import NDArray

from ros2_densematch.geometry import models, poses, rays, scale
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.models import Refined
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

Float64 = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class PoseConfig:
    """Settings of `estimate_relative_pose`. Distances are in pixels of the original images.

    Attributes:
        max_epipolar_error_px: largest Sampson distance of an inlier.
        max_homography_error_px: upper limit of the distance at which a homography or a rotation explains a match; the
            limit used adapts to the noise found, `noise_factor` times its standard deviation.
        noise_factor: see there; 3 keeps 98.9 % of Gaussian noise in two dimensions.
        min_inliers: fewer are DEGENERATE.
        min_iterations, max_iterations, success_probability: of LO-RANSAC.
        explained_ratio: a homography (rotation) that explains this share of the epipolar inliers makes the scene PLANAR
            (PANORAMIC), as in COLMAP.
        min_parallax_px: below this median shift against the best pure rotation the translation is taken as not visible.
    """

    max_epipolar_error_px: float = 1.0
    max_homography_error_px: float = 3.0
    noise_factor: float = 3.0
    min_inliers: int = 15
    min_iterations: int = 200
    max_iterations: int = 10000
    success_probability: float = 0.9999
    explained_ratio: float = 0.8
    min_parallax_px: float = 0.5

    def __post_init__(self) -> None:
        for name in ("max_epipolar_error_px", "max_homography_error_px", "noise_factor"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("explained_ratio", "success_probability"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if self.min_inliers < 8:
            raise ValueError(f"min_inliers must be at least 8 (the pose alone has 5 unknowns), got {self.min_inliers}")
        if not 1 <= self.min_iterations <= self.max_iterations:
            raise ValueError(
                f"min_iterations must lie in 1..max_iterations, got {self.min_iterations} and {self.max_iterations}"
            )
        if self.min_parallax_px < 0:
            raise ValueError(f"min_parallax_px must not be negative, got {self.min_parallax_px}")


def estimate_relative_pose(
    m: Correspondences,
    camera0: Camera,
    camera1: Camera,
    *,
    config: PoseConfig | None = None,
    scale_source: ScaleSource | None = None,
    seed: int = 0,
) -> RelativePose:
    """Relative pose of the query camera against the reference camera.

    Args:
        m: correspondences in pixels of the original images; entries that are not finite, or that a camera model cannot
            reach, are left out and counted in the status.
        camera0, camera1: reference and query camera; they must be of the image sizes that `m` names.
        config: settings, default `PoseConfig()`.
        scale_source: where metres come from, see `scale`; None leaves the translation a direction.
        seed: of the random sampling. The same input and seed give the same result.

    Returns:
        A RelativePose, whatever the matches: without enough of them it is DEGENERATE with the reason in `status`.

    Raises:
        ValueError: a camera does not belong to the image size of `m`.
    """
    config = config or PoseConfig()
    _check_sizes(m, camera0, camera1)
    prepared, usable = rays.prepare(m, camera0, camera1)
    dropped = len(m) - len(prepared)
    note = f"; {dropped} matches left out: not finite or outside the camera model" if dropped else ""
    candidates = _estimate(prepared, camera1, config, seed)
    result = candidates[0]
    if scale_source is not None and result.ok:
        result = scale.apply(scale_source, candidates, prepared, m.select(usable), camera0)
    inliers = np.zeros(len(m), np.bool_)
    inliers[usable] = result.inliers
    return replace(
        result,
        inliers=inliers,
        num_matches=len(m),
        inlier_ratio=result.num_inliers / len(m) if len(m) else 0.0,
        status=result.status + note,
    )


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


def _estimate(all_rays: Rays, camera1: Camera, config: PoseConfig, seed: int) -> list[RelativePose]:
    """The pose; of a plane that leaves two motions, both, the preferred one first."""
    n = len(all_rays)
    if n < config.min_inliers:
        return [no_pose(n, f"too few matches: {n}, at least {config.min_inliers} are needed")]
    start = _ransac(all_rays, config, seed)
    inliers = _epipolar_inliers(all_rays, start[0], start[1], config)
    needed = _needed_inliers(n, camera1, config)
    if inliers.sum() < needed:
        return [_too_few(inliers, needed, config)]
    refined = _refine(all_rays, *start, config)
    # Identical images give the translation no gradient, without parallax and noise: a rotation may still explain all.
    essential = refined or Refined(*start, np.zeros((6, 6)), 1.0, np.inf)
    inliers = _epipolar_inliers(all_rays, essential.R, essential.t, config)
    if inliers.sum() < needed:
        return [_too_few(inliers, needed, config)]
    evidence = _gather(all_rays.select(inliers), essential, config)
    geometry, reason = _decide(evidence, config)
    if refined is None and evidence.rotation_ratio < config.explained_ratio:
        return [no_pose(n, f"the matches do not determine the motion; {reason}", inliers=inliers)]
    if geometry in (Geometry.PANORAMIC, Geometry.PLANAR_OR_PANORAMIC):
        return [_panoramic(all_rays, evidence, geometry, reason, config)]
    if geometry is Geometry.PLANAR:
        planar, reason = _planar(all_rays, all_rays.select(inliers), evidence, reason, camera1, config)
        return [_directed(all_rays, model, geometry, evidence, reason, config) for model in planar]
    return [_directed(all_rays, essential, geometry, evidence, reason, config)]


def _directed(
    all_rays: Rays, model: Refined, geometry: Geometry, evidence: _Evidence, reason: str, config: PoseConfig
) -> RelativePose:
    """The result with a direction of translation, Scale.UNIT."""
    inliers = _epipolar_inliers(all_rays, model.R, model.t, config)
    kept = all_rays.select(inliers)
    covariance = model.covariance.copy()
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


def _median(values: Float64) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _ransac(all_rays: Rays, config: PoseConfig, seed: int) -> tuple[Float64, Float64]:
    """Rotation and unit translation from PoseLib. Its cameras are pinholes with the mean focal lengths, so that its
    threshold is in pixels."""
    options = {
        "max_epipolar_error": config.max_epipolar_error_px,
        "min_iterations": config.min_iterations,
        "max_iterations": config.max_iterations,
        "success_prob": config.success_probability,
        "seed": seed,
    }
    cameras = [
        {"model": "SIMPLE_PINHOLE", "width": 0, "height": 0, "params": [focal, 0.0, 0.0]}
        for focal in (all_rays.focal0, all_rays.focal1)
    ]
    pose, _ = poselib.estimate_relative_pose(
        all_rays.x0[:2].T * all_rays.focal0, all_rays.x1[:2].T * all_rays.focal1, *cameras, options, {}
    )
    t = np.asarray(pose.t, np.float64).ravel()
    length = float(np.linalg.norm(t))
    t = t / length if np.isfinite(length) and length > 1e-12 else np.array([1.0, 0.0, 0.0])
    return poses.nearest_rotation(pose.R), t


def _refine(all_rays: Rays, R: Float64, t: Float64, config: PoseConfig) -> Refined | None:
    """Refinement over all matches within three times the threshold: the tail of the noise must stay in, or the noise
    and with it the covariance come out too small; Tukey's loss takes the weight off what does not belong there."""
    wide = replace(config, max_epipolar_error_px=3.0 * config.max_epipolar_error_px)
    return models.refine_essential(all_rays.select(_epipolar_inliers(all_rays, R, t, wide)), R, t)


def _epipolar_inliers(all_rays: Rays, R: Float64, t: Float64, config: PoseConfig) -> BoolArray:
    """Matches (N,) near their epipolar lines and before both cameras; a point behind them counts where its rays are
    parallel up to the threshold, because noise decides its sign."""
    near = rays.epipolar_distance_px(all_rays, R, t) < config.max_epipolar_error_px
    z0, z1, angle = rays.depths(all_rays, R, t)
    parallel = angle < 2.0 * config.max_epipolar_error_px / min(all_rays.focal0, all_rays.focal1)
    return np.asarray(near & (((z0 > 0) & (z1 > 0)) | parallel), np.bool_)


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


def _gather(kept: Rays, essential: Refined, config: PoseConfig) -> _Evidence:
    # Noise of the difference of two points, each with the noise that the epipolar distances show, in pixels.
    noise_px = 1.4826 * float(np.median(rays.epipolar_distance_px(kept, essential.R, essential.t)))
    limit = float(np.clip(config.noise_factor * np.sqrt(2.0) * noise_px, 0.5, config.max_homography_error_px))
    H = models.fit_homography(kept, limit)
    on_plane = np.zeros(len(kept), np.bool_) if H is None else rays.transfer_distance_px(kept, H) < limit
    guess = models.fit_rotation(kept, essential.R)
    rotation = Refined(guess, np.zeros(3), np.zeros((6, 6)), 1.0, np.inf)
    # Where the parallax is plain, the exact rotation does not matter.
    if np.median(rays.transfer_distance_px(kept, guess)) < 3.0 * limit:
        rotation = models.refine_rotation(kept, guess) or rotation
    shift = rays.transfer_distance_px(kept, rotation.R)
    return _Evidence(
        essential=essential,
        homography=H,
        homography_ratio=float(on_plane.mean()),
        rotation=rotation,
        rotation_ratio=float((shift < limit).mean()),
        parallax_px=float(np.median(shift)),
        limit_px=limit,
        on_plane=on_plane,
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
    all_rays: Rays, kept: Rays, evidence: _Evidence, reason: str, camera1: Camera, config: PoseConfig
) -> tuple[list[Refined], str]:
    """Motions of the homography, refined with the plane; the refined essential matrix where that fails."""
    assert evidence.homography is not None
    motions = models.plane_motions(evidence.homography, kept.select(evidence.on_plane))
    if not motions:
        return [
            evidence.essential
        ], f"{reason}; the homography has no valid decomposition, pose of the essential matrix"
    motions = models.rank_plane_motions(motions, kept, config.max_epipolar_error_px)
    # As in `_refine`, the tail of the noise stays in. Matches off the plane count by their epipolar distance,
    # where there are more of them than outliers would give.
    distance = rays.transfer_distance_px(all_rays, evidence.homography)
    on_plane, apart = distance < 1.5 * evidence.limit_px, distance > 3.0 * evidence.limit_px
    wide = replace(config, max_epipolar_error_px=3.0 * config.max_epipolar_error_px)
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
    distance = rays.transfer_distance_px(all_rays, model.R)
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
