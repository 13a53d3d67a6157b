"""Building and refining the points of keyframes: each function returns another version of what it was given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.tracking.config import TrackerConfig
from ros2_densematch.tracking.keyframe import Keyframe, Observation, WidestObservation
from ros2_densematch.tracking.localisation import Localisation
from ros2_densematch.tracking.metric import rho_from_depth
from ros2_densematch.tracking.refinement import PointPriors, chi_squared, project, refine, solve_rho
from ros2_densematch.tracking.structure import Structure

_OUTLIER_CHI2 = 9.21  # 99 % of a chi-squared variable with 2 degrees of freedom
_MIN_SIGMA_PX, _MAX_SIGMA_PX = 0.15, 2.0
_MAX_REFINED = 700  # points in the refinement of the window's poses
_NEW_SIGHT_RAD = 0.015  # a frame joins the window when its centre moved by this share of the median depth


def triangulate(T_frame_from_keyframe: Float64, bearing: Float64, xy: Float64) -> Float64:
    """Inverse depths (N,) of points seen in two images, by linear least squares on x (r3 + rho t3) = r1 + rho t1.

    Args:
        T_frame_from_keyframe: (4, 4).
        bearing: (N, 3) keyframe rays with third component 1.
        xy: (N, 2) normalised coordinates in the frame.
    """
    r = bearing @ T_frame_from_keyframe[:3, :3].T
    t = T_frame_from_keyframe[:3, 3]
    a = t[:2] - xy * t[2]
    b = xy * r[:, 2:] - r[:, :2]
    return np.asarray(np.sum(a * b, 1) / np.maximum(np.sum(a * a, 1), 1e-12))


def initialise_structure(
    structure: Structure, found: Localisation, focal: float, length: float | None, median_depth: float
) -> tuple[Structure, Float64] | None:
    """Triangulates a keyframe's points from scratch with the first frame of enough parallax.

    Args:
        structure: without known points.
        found: `T_frame_from_keyframe` has a translation of unit length.
        focal: of the frame, pixels.
        length: true length of the translation where odometry knows it; None fixes the unit by `median_depth`.
        median_depth: that the points shall have then, map units.

    Returns:
        The structure with known points and T_frame_from_keyframe (4, 4) in map units, or None when the points do not
        lie in front of both cameras.
    """
    chosen = np.flatnonzero(found.inliers)
    index, T = found.index[chosen], np.array(found.T_frame_from_keyframe, np.float64)
    rho = triangulate(T, structure.bearing[index], found.xy[chosen])
    _, z, d = project(T[None], structure.bearing[index], rho)
    front = (rho > 0) & (z[0] > 0)
    if np.count_nonzero(front) < 0.7 * len(chosen) or not front.any():
        return None
    # with a unit translation rho = baseline / depth
    unit = length if length is not None else median_depth * float(np.median(rho[front]))
    T[:3, 3] *= unit
    index, rho, d = index[front], rho[front] / unit, d[0, front] * unit
    all_rho, all_info = structure.rho.copy(), structure.info.copy()
    all_rho[index] = rho
    all_info[index] = np.sum(d**2, 1) * (focal / 0.5) ** 2
    return replace(structure, rho=all_rho, info=all_info), T


def with_sight(keyframe: Keyframe, found: Localisation, T: Float64, config: TrackerConfig) -> tuple[Keyframe, Float64]:
    """Keeps a frame with its keyframe when it sees the points from a new place, drops the least telling one when there
    are too many, and refines points and poses together.

    Args:
        T: (4, 4) T_frame_from_keyframe, map units.

    Returns:
        The keyframe, and the frame's T_frame_from_keyframe (4, 4), refined where the frame was kept.
    """
    structure = keyframe.structure
    assert structure is not None
    if not np.isfinite(structure.median_rho):
        return keyframe, T
    centre = poses.inverse(T)[:3, 3]
    centres = [np.zeros(3), *(poses.inverse(s.T_frame_from_keyframe)[:3, 3] for s in keyframe.window)]
    if min(float(np.linalg.norm(centre - c)) for c in centres) < _NEW_SIGHT_RAD * structure.median_depth:
        return keyframe, T
    chosen = np.flatnonzero(found.inliers)
    new = Observation(T.copy(), found.index[chosen], found.xy[chosen], found.weight[chosen])
    window = [*keyframe.window, new]
    if len(window) > config.max_window:
        centres.append(centre)
        gaps = []
        for i, sight in enumerate(window[:-1]):
            others = [c for j, c in enumerate(centres) if j != i + 1]
            gap = min(float(np.linalg.norm(centres[i + 1] - c)) for c in others)
            gaps.append(np.inf if sight.fixed else gap)
        del window[int(np.argmin(gaps))]
    keyframe = refined_window(replace(keyframe, window=tuple(window)))
    return keyframe, keyframe.window[-1].T_frame_from_keyframe


def refined_window(keyframe: Keyframe) -> Keyframe:
    """Refines the points of a keyframe and the poses of its window together; outlying observations are dropped."""
    structure = keyframe.structure
    assert structure is not None
    if not keyframe.window:
        return keyframe
    points = np.unique(np.concatenate([s.index for s in keyframe.window]))
    row = np.full(len(structure), -1, np.intp)
    row[points] = np.arange(len(points))
    frames = len(keyframe.window)
    xy, weight = np.zeros((frames, len(points), 2)), np.zeros((frames, len(points)))
    for k, sight in enumerate(keyframe.window):
        xy[k, row[sight.index]], weight[k, row[sight.index]] = sight.xy, sight.weight
    focal = structure.camera.focal
    start = np.stack([s.T_frame_from_keyframe for s in keyframe.window])
    fixed = np.array([s.fixed for s in keyframe.window])
    priors = structure.initial_priors(points)
    # the poses need only the points that most frames see; the others follow
    often = np.argsort(-np.count_nonzero(weight, axis=0), kind="stable")[:_MAX_REFINED]
    result = refine(
        start,
        priors.select(often),
        xy[:, often],
        weight[:, often],
        fixed=fixed,
        iterations=8,
        min_sigma=_MIN_SIGMA_PX / focal,
        max_sigma=_MAX_SIGMA_PX / focal,
    )
    w = weight / result.sigma**2
    present = structure.rho[points]
    rho, _ = solve_rho(result.poses, priors, xy, w, np.where(present > 0, present, priors.rho), steps=3)
    good = np.nan_to_num(chi_squared(result.poses, priors, xy, w, rho), nan=np.inf) < _OUTLIER_CHI2
    _, z, d = project(result.poses, structure.bearing[points], rho)
    good &= z > 0
    info = np.einsum("mn,mnk,mnk->n", good * w, d, d) + structure.prior_info[points]
    poses_refined = result.poses.copy()
    if not fixed.any():
        # Without a fixed view nothing but weak priors holds the unit: it stays that of the points known before.
        unit = _unit_change(structure, points, rho)
        poses_refined[:, :3, 3] *= unit
        rho, info = rho / unit, info * unit**2
    supported = good.any(0)
    new_rho, new_info, new_prior = structure.rho.copy(), structure.info.copy(), structure.prior_info.copy()
    new_rho[points] = rho
    new_info[points] = np.where(supported, info, 0.0)
    new_prior[points] = np.where(supported, new_prior[points], 0.0)
    window = []
    for k, sight in enumerate(keyframe.window):
        kept = good[k, row[sight.index]]
        window.append(
            replace(
                sight,
                T_frame_from_keyframe=poses_refined[k],
                index=sight.index[kept],
                xy=sight.xy[kept],
                weight=sight.weight[kept],
            )
        )
    structure = replace(structure, rho=new_rho, info=new_info, prior_info=new_prior)
    widest = _widest(poses_refined, fixed, result.covariance)
    return replace(keyframe, structure=structure, window=tuple(window), widest=widest)


def _widest(T: Float64, fixed: NDArray[np.bool_], covariance: Float64) -> WidestObservation | None:
    """The farthest of the frames (M, 4, 4) that are not fixed, by their covariance (6 F, 6 F) from `refine`."""
    free = np.flatnonzero(~fixed)
    if not len(free):
        return None
    lengths = np.linalg.norm(T[free, :3, 3], axis=1)
    k = int(np.argmax(lengths))
    t, length = T[free[k], :3, 3], float(lengths[k])
    change = np.eye(6)
    change[:3, 3:] = -poses.skew(t)  # see `Fit.of`
    noise = change @ covariance[6 * k : 6 * k + 6, 6 * k : 6 * k + 6] @ change.T
    if not fixed.any() and length > 0:  # the length is the unit
        across = np.eye(6)
        across[:3, :3] -= np.outer(t, t) / length**2
        noise = across @ noise @ across.T
    return WidestObservation(length, noise)


def _unit_change(structure: Structure, points: NDArray[np.intp], rho: Float64) -> float:
    """Median ratio of refined to present inverse depths of the known points; 1 where depths were measured."""
    before = structure.rho[points]
    both = structure.known[points] & (before > 0) & (rho > 0)
    measured = np.count_nonzero(structure.prior_info[points] > 0)
    if np.count_nonzero(both) < 8 or measured >= 8:
        return 1.0
    return float(np.median(rho[both] / before[both]))


def anchored_to_previous(
    new: Keyframe, previous: Keyframe, matches: Correspondences, T_previous_from_new: Float64, weight: Float64
) -> Keyframe:
    """Gives a new keyframe its first points from matches back to the keyframe before, whose relative pose is known.

    Args:
        new, previous: keyframes with cameras.
        matches: reference = new, query = previous.
        T_previous_from_new: (4, 4) in map units; it holds the scale and is not refined.
        weight: (N,) relative weights of the matches.
    """
    assert new.structure is not None
    assert previous.camera is not None
    camera = new.structure.camera
    xy = previous.camera.normalise(matches.query_xy)
    finite = np.isfinite(xy).all(1) & np.isfinite(camera.normalise(matches.reference_xy)).all(1)
    xy, reference, weight = xy[finite], matches.reference_xy[finite], weight[finite]
    bearing = np.column_stack([camera.normalise(reference), np.ones(len(reference))])
    sigma = 1.0 / previous.camera.focal
    nothing = np.zeros(len(xy))
    rho = np.maximum(triangulate(T_previous_from_new, bearing, xy), 0.0)
    T = T_previous_from_new[None]
    rho, _ = solve_rho(T, PointPriors(bearing, rho, nothing), xy[None], np.ones((1, len(xy))) / sigma**2, rho)
    predicted, z, _ = project(T, bearing, rho)
    agree = (np.sum((predicted[0] - xy) ** 2, 1) < _OUTLIER_CHI2 * sigma**2) & (z[0] > 0) & (weight > 0)
    structure, index = new.structure.with_points(reference[agree])
    _, first = np.unique(index, return_index=True)
    first = first[index[first] >= 0]
    shift = (structure.xy[index[first]] - reference[agree][first]) / camera.focal
    sight = Observation(T_previous_from_new, index[first], xy[agree][first] + shift, weight[agree][first], fixed=True)
    unknown = structure.info[sight.index] <= 0
    start = structure.rho.copy()
    start[sight.index[unknown]] = rho[agree][first][unknown]
    return refined_window(replace(new, structure=replace(structure, rho=start), window=(*new.window, sight)))


def with_query_depth(
    structure: Structure, found: Localisation, T: Float64, depth: NDArray[np.float32], query_xy: Float64
) -> Structure:
    """Takes metric depth measured in a frame as knowledge about the keyframe's points (both in metres).

    Args:
        T: (4, 4) T_frame_from_keyframe, metres.
        depth: float32 (H, W) metres of the frame.
        query_xy: (N, 2) pixels of the frame for the matches of `found`.
    """
    chosen = np.flatnonzero(found.inliers)
    index = found.index[chosen]
    measured, info = rho_from_depth(depth, query_xy[chosen])
    turned_z = structure.bearing[index] @ T[2, :3]
    # depth in the frame z = (turned_z + rho t_z) / rho, so rho = turned_z / (z - t_z)
    z = 1.0 / np.maximum(measured, 1e-9)
    rho = turned_z / np.where(np.abs(z - T[2, 3]) < 1e-6, 1e-6, z - T[2, 3])
    good = (info > 0) & (rho > 0) & (turned_z > 0)
    slope = rho**2 / np.maximum(turned_z, 1e-6) * z**2  # d rho / d measured
    return structure.with_prior(index[good], rho[good], info[good] / np.maximum(slope[good] ** 2, 1e-9))


def metric_ratio(structure: Structure, found: Localisation, depth: NDArray[np.float32], query_xy: Float64) -> float:
    """Metres per map unit from a frame's depth image: median over known points; NaN with fewer than 20 of them."""
    chosen = np.flatnonzero(found.inliers)
    chosen = chosen[structure.known[found.index[chosen]]]
    index = found.index[chosen]
    measured, info = rho_from_depth(depth, query_xy[chosen])
    _, z, _ = project(found.T_frame_from_keyframe[None], structure.bearing[index], structure.rho[index])
    good = (info > 0) & (z[0] > 0) & (structure.rho[index] > 0)
    if np.count_nonzero(good) < 20:
        return float("nan")
    return float(np.median(structure.rho[index][good] / z[0, good] / measured[good]))
