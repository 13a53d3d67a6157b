"""Pose of a frame against one keyframe: two-view geometry and the keyframe's points in one estimate."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import poselib  # type: ignore[import-untyped]
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.two_view import Geometry, PoseConfig, RelativePose, Scale, estimate_relative_pose
from ros2_densematch.tracking.refinement import PointPriors, chi_squared, refine, solve_rho
from ros2_densematch.tracking.structure import Structure

_MIN_SIGMA_PX, _MAX_SIGMA_PX = 0.15, 2.0  # bounds of the noise that is estimated from the residuals
_INLIER_CHI2 = 9.21  # 99 % of a chi-squared variable with 2 degrees of freedom
_MAX_REFINED = 1000  # points in the refinement of the pose: more of them cost time and change nothing
MIN_KNOWN = 8  # known points that a length of the translation needs
_PNP_PX = 3.0
_CORNER_SHARE = 0.25  # matches that span less of the image lie in a corner


@dataclass(frozen=True)
class Localisation:
    """Where a frame is relative to a keyframe.

    Attributes:
        ok: the frame is tracked; otherwise `reason` says why not and nothing but `two_view` counts.
        T_frame_from_keyframe: (4, 4). In map units where `has_length`; otherwise the translation is the two-view
            direction with unit length where there is one, else zero.
        has_length: the translation's length is known from the keyframe's points.
        inliers: bool (N,) of the matches.
        index: (N,) point of the keyframe for each match, -1 = none.
        xy, weight: (N, 2) normalised query coordinates, (N,) relative weights.
        parallax_deg: median angle between the two rays of the inliers after the rotation is taken out.
        near_parallax_deg: the same for the nearer points: the angle that a fifth of the inliers exceeds.
        two_view: the two-view estimate from the matches alone.
        reason: what happened, in words.
        covariance: (6, 6) of `T_frame_from_keyframe` in map units where `has_length`: order x y z, rotation x y z, left
            perturbation about the fixed axes of the frame (as `geometry.poses`); else None.
        structure: the keyframe's points with those that this frame showed for the first time.
        sigma: standard deviation of one observed coordinate in normalised units, where `has_length`.
    """

    ok: bool
    T_frame_from_keyframe: Float64
    has_length: bool
    inliers: NDArray[np.bool_]
    index: NDArray[np.intp]
    xy: Float64
    weight: Float64
    parallax_deg: float
    near_parallax_deg: float
    two_view: RelativePose
    reason: str
    structure: Structure
    covariance: Float64 | None = None
    sigma: float = float("nan")

    @property
    def rotation_std_deg(self) -> float:
        """Standard deviation of the rotation about its worst axis, degrees; 0 without a covariance."""
        return 0.0 if self.covariance is None else _rotation_std_deg(self.covariance)

    def metric_pose(self, T_frame_from_keyframe: Float64, scale_std: float) -> RelativePose:
        """The two-view estimate with the tracker's pose (4, 4) in metres in place of its own.

        Args:
            scale_std: relative standard deviation of the unit of length; it widens the covariance along the
                translation.
        """
        t = T_frame_from_keyframe[:3, 3]
        covariance = np.zeros((6, 6)) if self.covariance is None else self.covariance.copy()
        covariance[:3, :3] += scale_std**2 * np.outer(t, t)
        length = float(np.linalg.norm(t))
        along = covariance[:3, :3] if length < 1e-9 else (t @ covariance[:3, :3] @ t / length**2)
        return replace(
            self.two_view,
            T_query_from_reference=T_frame_from_keyframe,
            scale=Scale.METRIC,
            covariance=covariance,
            scale_std=float(np.sqrt(np.max(along))),
            inliers=self.inliers,
            num_inliers=int(self.inliers.sum()),
            inlier_ratio=float(self.inliers.mean()) if len(self.inliers) else 0.0,
            status=f"{self.two_view.status}; metric by the keyframe's points",
        )


def localise(
    matches: Correspondences,
    structure: Structure,
    camera: Camera,
    *,
    min_inliers: int,
    max_rotation_std_deg: float,
    predictions: list[Float64],
    config: PoseConfig,
    seed: int,
    thorough: bool = True,
) -> Localisation:
    """Estimates the pose of a frame from its matches with a keyframe.

    The rotation and the epipolar geometry come from all matches, the length of the translation from those at points of
    known depth; both are refined together (`refinement.refine`). Start values: the predictions, the two-view rotation
    with the translation that the known points give linearly, and, when these explain too little, PoseLib's LO-RANSAC
    absolute pose. Matches that the two-view geometry accepts become points of the keyframe where there was none
    (`Localisation.structure`).

    Args:
        matches: reference = keyframe, query = frame.
        structure: points of the keyframe.
        camera: of the frame.
        min_inliers: fewer consistent matches are a failure.
        max_rotation_std_deg: so is a pose from matches in a corner of the image whose rotation is known less well than
            that (standard deviation in degrees about the worst axis): they agree on almost anything.
        predictions: (4, 4) guesses of T_frame_from_keyframe in map units.
        config, seed, thorough: of the two-view estimator.
    """
    two_view = estimate_relative_pose(matches, structure.camera, camera, config=config, seed=seed, thorough=thorough)
    seen = Sights.of(matches, structure, camera)
    if two_view.num_inliers >= min_inliers:
        seen = seen.with_points(two_view.inliers)
    failed = _rotation_only(two_view, seen, min_inliers)
    if len(seen.usable) < MIN_KNOWN:
        return failed
    T = _start(seen, two_view, predictions, seed)
    fit = Fit.of(seen, T)
    if not fit.enough(min_inliers):
        return failed
    if not fit.fixes_rotation(max_rotation_std_deg):
        bound = f"but fix the rotation to {fit.rotation_std_deg:.2f} degrees only (limit {max_rotation_std_deg:g})"
        return replace(failed, ok=False, reason=f"{fit.reason}, {bound}")
    return fit.localisation(two_view)


@dataclass(frozen=True, eq=False)
class Sights:
    """What a frame sees of a keyframe.

    Attributes:
        matches: N of them, reference = keyframe, query = frame.
        structure: points of the keyframe.
        camera: of the frame.
        finite: bool (N,), where both camera models reach.
        xy: (N, 2) normalised coordinates in the frame, 0 where not.
        reference: (N, 2) the same in the keyframe, NaN where its camera model does not reach.
        weight: (N,) relative weights, 0 there.
        index: (N,) point of each match, -1 = none.
        usable: the matches of points of known depth.
    """

    matches: Correspondences
    structure: Structure
    camera: Camera
    finite: NDArray[np.bool_]
    xy: Float64
    reference: Float64
    weight: Float64
    index: NDArray[np.intp]
    usable: NDArray[np.intp]

    @staticmethod
    def of(matches: Correspondences, structure: Structure, camera: Camera) -> Sights:
        """The matches at the points that the keyframe has already."""
        xy = camera.normalise(matches.query_xy)
        reference = structure.camera.normalise(matches.reference_xy)
        finite: NDArray[np.bool_] = np.asarray(np.isfinite(reference).all(1) & np.isfinite(xy).all(1))
        weight = relative_weight(matches) * finite
        index = structure.find(matches.reference_xy)
        usable = np.flatnonzero((index >= 0) & finite)
        index, usable = _unique(index, usable[structure.known[index[usable]]])
        xy = np.where(finite[:, None], xy, 0.0)
        return Sights(
            matches=matches,
            structure=structure,
            camera=camera,
            finite=finite,
            xy=xy,
            reference=reference,
            weight=weight,
            index=index,
            usable=usable,
        )

    def with_points(self, accepted: NDArray[np.bool_]) -> Sights:
        """Matches that are `accepted` (N,) become points where there was none."""
        new = accepted & self.finite & (self.index < 0)
        index = self.index.copy()
        structure, index[new] = self.structure.with_points(self.matches.reference_xy[new])
        index, usable = _unique(index, np.flatnonzero((index >= 0) & self.finite))
        usable = usable[structure.known[index[usable]]]
        return replace(self, structure=structure, index=index, usable=usable)


@dataclass(frozen=True, eq=False)
class Fit:
    """A pose refined on what a frame sees of the keyframe's points.

    Attributes:
        seen: with the coordinates moved to where the points are exactly.
        T: (4, 4) T_frame_from_keyframe.
        inliers: bool (N,) of the matches.
        covariance: (6, 6), see `Localisation`.
        sigma: standard deviation of one observed coordinate in normalised units.
    """

    seen: Sights
    T: Float64
    inliers: NDArray[np.bool_]
    covariance: Float64
    sigma: float

    @staticmethod
    def of(seen: Sights, T: Float64, iterations: int = 10, *, near: bool = False) -> Fit:
        """Refines the pose (4, 4) in at most so many iterations, fewer where it is `near`."""
        structure, camera, index = seen.structure, seen.camera, seen.index
        chosen = np.flatnonzero((index >= 0) & (seen.weight > 0))
        # the bearing of the point may differ from this match's reference pixel by a fraction of a pixel: both move
        shift = (structure.xy[index[chosen]] - seen.matches.reference_xy[chosen]) / structure.camera.focal
        observed = seen.xy[chosen] + shift
        xy = seen.xy.copy()
        xy[chosen] = observed
        priors = structure.priors(index[chosen])
        some = _sample(structure.known[index[chosen]])
        refined = refine(
            T[None],
            priors.select(some),
            observed[None, some],
            seen.weight[None, chosen[some]],
            iterations=iterations,
            near=near,
            min_sigma=_MIN_SIGMA_PX / camera.focal,
            max_sigma=_MAX_SIGMA_PX / camera.focal,
        )
        w = seen.weight[None, chosen] / refined.sigma**2
        rho, _ = solve_rho(refined.poses, priors, observed[None], w, priors.rho)
        consistent = chi_squared(refined.poses, priors, observed[None], w, rho)[0] < _INLIER_CHI2
        inliers = np.zeros(len(seen.matches), np.bool_)
        inliers[chosen[consistent]] = True
        T = refined.poses[0]
        # The refinement turns the pose as a whole; the convention of poses turns rotation and position separately.
        change = np.eye(6)
        change[:3, 3:] = -poses.skew(T[:3, 3])
        covariance = change @ refined.covariance @ change.T
        return Fit(replace(seen, xy=xy), T, inliers, covariance, float(refined.sigma))

    @property
    def known_inliers(self) -> int:
        """Inliers at points of known depth."""
        return int(np.count_nonzero(self.seen.structure.known[self.seen.index[self.inliers]]))

    @property
    def reason(self) -> str:
        """How many agree, in words."""
        count, known = int(self.inliers.sum()), self.known_inliers
        return f"{count} of {len(self.inliers)} matches agree, {known} at points of known depth"

    @property
    def rotation_std_deg(self) -> float:
        """Standard deviation of the rotation about its worst axis, degrees."""
        return _rotation_std_deg(self.covariance)

    def enough(self, min_inliers: int) -> bool:
        """Whether enough matches agree."""
        known = max(MIN_KNOWN, 0.25 * len(self.seen.usable))
        return int(self.inliers.sum()) >= min_inliers and self.known_inliers >= known

    def fixes_rotation(self, max_rotation_std_deg: float) -> bool:
        """Whether the rotation is known that well, or the inliers at least do not lie in a corner of the image."""
        if self.rotation_std_deg <= max_rotation_std_deg:
            return True
        return _covered_share(self.seen.matches.query_xy[self.inliers], self.seen.camera) >= _CORNER_SHARE

    def localisation(self, two_view: RelativePose) -> Localisation:
        """The result, with the two-view estimate beside it."""
        seen, inliers = self.seen, self.inliers
        parallax, near = parallax_deg(self.T, seen.structure.bearing[seen.index[inliers]], seen.xy[inliers])
        return Localisation(
            ok=True,
            T_frame_from_keyframe=self.T,
            has_length=True,
            inliers=inliers,
            index=seen.index,
            xy=seen.xy,
            weight=seen.weight,
            parallax_deg=parallax,
            near_parallax_deg=near,
            two_view=two_view,
            reason=self.reason,
            structure=seen.structure,
            covariance=self.covariance,
            sigma=self.sigma,
        )


def _rotation_std_deg(covariance: Float64) -> float:
    """Largest standard deviation of the rotation, degrees, of a covariance (6, 6) in the order x y z, rotation."""
    return float(np.degrees(np.sqrt(np.linalg.eigvalsh(covariance[3:, 3:])[-1])))


def _covered_share(xy: NDArray[np.float32], camera: Camera) -> float:
    """Share of the image that the central nine tenths of the pixels (N, 2) span along each axis."""
    low, high = np.quantile(xy, [0.05, 0.95], axis=0)
    return float(np.prod(high - low) / (camera.width * camera.height))


def relative_weight(matches: Correspondences) -> Float64:
    """Weight (N,) of each match relative to the typical one, from the matcher's precision; 1 without it."""
    if matches.precision is None or len(matches) == 0:
        return np.ones(len(matches))
    mean = 0.5 * (matches.precision[:, 0] + matches.precision[:, 2]).astype(np.float64)
    good = np.isfinite(mean) & (mean > 0)
    if not good.any():
        return np.ones(len(matches))
    return np.where(good, np.clip(mean / np.median(mean[good]), 0.1, 4.0), 0.0)


def _unique(index: NDArray[np.intp], usable: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Keeps the first match of each point; later ones lose their point (-1)."""
    _, first = np.unique(index[usable], return_index=True)
    kept = usable[np.sort(first)]
    cleaned = np.full_like(index, -1)
    cleaned[kept] = index[kept]
    return cleaned, kept


def _sample(known: NDArray[np.bool_]) -> NDArray[np.intp]:
    """At most `_MAX_REFINED` of the points, those of known depth first, evenly over the list."""
    order = np.concatenate([np.flatnonzero(known), np.flatnonzero(~known)])
    enough = max(int(np.count_nonzero(known)), _MAX_REFINED)  # one group or both
    order = order[:enough]
    return np.sort(order[np.linspace(0, len(order) - 1, min(len(order), _MAX_REFINED)).astype(np.intp)])


def _rotation_only(two_view: RelativePose, seen: Sights, min_inliers: int) -> Localisation:
    """What the two-view estimate alone can say: rotation, perhaps a direction, never a length."""
    index, xy, structure = seen.index, seen.xy, seen.structure
    T = np.array(two_view.T_query_from_reference, np.float64)
    enough = two_view.num_inliers >= min_inliers and np.isfinite(T).all()
    # identical images and pure rotations are fine; without a pose there is no trustworthy rotation
    ok = bool(enough and two_view.ok)
    inliers = two_view.inliers & (index >= 0) if ok else np.zeros(len(seen.matches), np.bool_)
    parallax, near = 0.0, 0.0
    if ok:
        parallax, near = parallax_deg(T, structure.bearing[index[inliers]], xy[inliers])
        length = float(np.linalg.norm(T[:3, 3]))
        if two_view.geometry not in (Geometry.CALIBRATED, Geometry.PLANAR) or length < 1e-9:
            T[:3, 3] = 0.0
        else:
            T[:3, 3] /= length
    reason = f"{two_view.num_inliers} of {len(seen.matches)} matches agree: {two_view.status}"
    return Localisation(
        ok=ok,
        T_frame_from_keyframe=T,
        has_length=False,
        inliers=inliers,
        index=index,
        xy=xy,
        weight=seen.weight,
        parallax_deg=parallax,
        near_parallax_deg=near,
        two_view=two_view,
        reason=reason,
        structure=structure,
    )


def _start(seen: Sights, two_view: RelativePose, predictions: list[Float64], seed: int) -> Float64:
    """The best start value, by the share of known points that it explains."""
    usable, xy, weight, focal = seen.usable, seen.xy, seen.weight, seen.camera.focal
    known = seen.structure.priors(seen.index[usable])
    candidates = list(predictions)
    if two_view.num_inliers >= MIN_KNOWN and np.isfinite(two_view.T_query_from_reference).all():
        candidates.append(_translation_given_rotation(two_view.T_query_from_reference[:3, :3], known, xy[usable]))
    scores = [_support(T, known, xy[usable], weight[usable], focal) for T in candidates]
    if not scores or max(scores) < 0.7:
        pnp = _absolute_pose(known, xy[usable], focal, seed)
        candidates.append(pnp)
        scores.append(_support(pnp, known, xy[usable], weight[usable], focal))
    return candidates[int(np.argmax(scores))]


def _support(T: Float64, known: PointPriors, xy: Float64, weight: Float64, focal: float) -> float:
    """Share of known points that fit, softly counted, so that the better of two good candidates wins."""
    w = weight[None] / (1.5 / focal) ** 2
    rho, _ = solve_rho(T[None], known, xy[None], w, known.rho, steps=3)
    chi2 = chi_squared(T[None], known, xy[None], w, rho)[0]
    return float(np.mean(1.0 / (1.0 + np.nan_to_num(chi2, nan=np.inf) / 4.0)))


def _translation_given_rotation(R: Float64, known: PointPriors, xy: Float64) -> Float64:
    """Translation (in map units) that images known points best under a rotation: linear, re-weighted for outliers.

    x (r3 + rho t3) = r1 + rho t1 and likewise for y, with r = R b.
    """
    r = known.bearing @ R.T
    rho = known.rho
    rows = np.zeros((len(rho), 2, 3))
    rows[:, 0, 0] = rows[:, 1, 1] = rho
    rows[:, :, 2] = -rho[:, None] * xy
    right = xy * r[:, 2:] - r[:, :2]
    w = np.ones(len(rho))
    t = np.zeros(3)
    for _ in range(6):
        A = (rows * w[:, None, None]).reshape(-1, 3)
        t = np.linalg.lstsq(A.T @ A + 1e-12 * np.eye(3), A.T @ (right * w[:, None]).reshape(-1), rcond=None)[0]
        residual = np.linalg.norm(rows @ t - right, axis=1)
        scale = max(1.4826 * float(np.median(residual)), 1e-5)
        w = 1.0 / (1.0 + (residual / (2.0 * scale)) ** 2)
    return poses.make_pose(R, t)


def _absolute_pose(known: PointPriors, xy: Float64, focal: float, seed: int) -> Float64:
    """LO-RANSAC absolute pose of PoseLib from known points."""
    points = known.bearing / np.maximum(known.rho, 1e-6)[:, None]
    camera = {"model": "SIMPLE_PINHOLE", "width": 1, "height": 1, "params": [focal, 0.0, 0.0]}
    options = {"max_reproj_error": _PNP_PX, "max_iterations": 2000, "min_iterations": 50, "seed": seed}
    pose, _ = poselib.estimate_absolute_pose(xy * focal, points, camera, options, {})
    return poses.make_pose(pose.R, pose.t)


def parallax_deg(T: Float64, bearing: Float64, xy: Float64) -> tuple[float, float]:
    """Angles between the keyframe's rays, turned by the rotation, and the frame's rays: the median, and the one that a
    fifth of the points exceeds; 0 without points."""
    if len(xy) == 0:
        return 0.0, 0.0
    a = bearing @ T[:3, :3].T
    b = np.column_stack([xy, np.ones(len(xy))])
    sine = np.linalg.norm(np.cross(a, b), axis=1)
    angle = np.degrees(np.arctan2(sine, np.sum(a * b, 1)))
    return float(np.median(angle)), float(np.quantile(angle, 0.8))
