"""Lens distortion models of ROS and OpenCV on normalised coordinates, and their inverses.

Brown-Conrady radial and tangential terms with OpenCV's rational, thin-prism and tilt extensions; Kannala and Brandt,
"A generic camera model", PAMI 2006, section 2, for the equidistant (fisheye) model.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ros2_densematch.arrays import Float64

DistortionModel = Literal["none", "plumb_bob", "rational_polynomial", "equidistant"]

# Names met in the field for the same model; CameraInfo leaves the string free.
_ALIASES: dict[str, DistortionModel] = {
    "": "plumb_bob",
    "none": "none",
    "pinhole": "none",
    "plumb_bob": "plumb_bob",
    "radtan": "plumb_bob",
    "radial_tangential": "plumb_bob",
    "brown_conrady": "plumb_bob",
    "pinhole_brown_conrady": "plumb_bob",
    "opencv": "plumb_bob",
    "rational_polynomial": "rational_polynomial",
    "rational": "rational_polynomial",
    "thin_prism": "rational_polynomial",
    "full_opencv": "rational_polynomial",
    "equidistant": "equidistant",
    "equi": "equidistant",
    "fisheye": "equidistant",
    "fisheye_model": "equidistant",
    "opencv_fisheye": "equidistant",
    "kannala_brandt": "equidistant",
    "kannala_brandt4": "equidistant",
}
_LENGTHS: dict[str, tuple[int, ...]] = {
    "plumb_bob": (4, 5),
    "rational_polynomial": (8, 12, 14),
    "equidistant": (4,),
}
_RESIDUAL = 1e-8  # normalised units: a millionth of a pixel at common focal lengths
_CONVERGED, _WHOLE_STEPS = 1e-13, 6  # residual at which Newton's method ends, and how often it steps in full
_MAX_ANGLE = np.radians(89.5)  # of the optical axis; X/Z grows without bound at 90 degrees


def check(model: str, D: ArrayLike, name: str = "camera") -> tuple[DistortionModel, Float64]:
    """The model's own name and its coefficients (read-only), or "none" where all coefficients are zero.

    Raises:
        ValueError: unknown model, wrong number of coefficients, or one that is not finite.
    """
    coefficients = np.array(D, np.float64).ravel()
    known = _ALIASES.get(re.sub(r"[\s-]+", "_", model.strip().lower()))
    if known is None:
        raise ValueError(
            f"{name}: distortion model {model!r} is not supported: "
            "use none, plumb_bob, rational_polynomial or equidistant"
        )
    if not np.all(np.isfinite(coefficients)):
        raise ValueError(f"{name}: a distortion coefficient is not a finite number: {coefficients.tolist()}")
    zero = not np.any(coefficients)
    # Zero coefficients mean no distortion for the polynomial models, but an equidistant lens is never a pinhole.
    if known == "none" or (zero and known != "equidistant"):
        if not zero:
            raise ValueError(
                f"{name}: the distortion model is {model!r}, yet D = {coefficients.tolist()}: name the model"
            )
        known, coefficients = "none", np.zeros(0, np.float64)
    elif known == "plumb_bob" and coefficients.size > 5 and coefficients.size in _LENGTHS["rational_polynomial"]:
        known = "rational_polynomial"  # several drivers send eight coefficients under the older name
    elif known == "rational_polynomial" and coefficients.size in _LENGTHS["plumb_bob"]:
        known = "plumb_bob"
    elif known == "equidistant" and coefficients.size > 4 and not np.any(coefficients[4:]):
        coefficients = coefficients[:4]
    if known != "none" and coefficients.size not in _LENGTHS[known]:
        allowed = " or ".join(str(n) for n in _LENGTHS[known])
        raise ValueError(f"{name}: {known} takes {allowed} distortion coefficients, got {coefficients.size}")
    coefficients.setflags(write=False)
    return known, coefficients


def distort(model: DistortionModel, D: Float64, xyz: Float64) -> Float64:
    """Distorted normalised coordinates (N, 2) of points (N, 3) in the optical frame; NaN where the model ends."""
    x, y, z = xyz[:, 0], xyz[:, 1], xyz[:, 2]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        if model == "equidistant":
            radius = np.hypot(x, y)
            theta = np.arctan2(radius, z)
            result = _equidistant(D, theta, radius, z)[:, None] * xyz[:, :2]
            result[~(theta < _end_of_range(tuple(D.tolist()))) | ~np.isfinite(radius + z)] = np.nan
            return result
        plane = np.where(z > 0, 1.0, np.nan)[:, None] * xyz[:, :2] / z[:, None]
        result = distort_unchecked(model, D, plane)
        if model != "none":
            result[~_invertible(D, plane)] = np.nan
    return result


def distort_unchecked(model: DistortionModel, D: Float64, xy: Float64) -> Float64:
    """Distorted normalised coordinates (N, 2) of undistorted ones (N, 2), also where the model folds over itself."""
    if model == "none":
        return np.array(xy)
    if model == "equidistant":
        radius = np.hypot(xy[:, 0], xy[:, 1])
        scale = _equidistant(D, np.arctan(radius), radius, np.ones_like(radius))
        return np.asarray(scale[:, None] * xy, np.float64)
    return _polynomial(D, xy)


def undistort(model: DistortionModel, D: Float64, distorted: Float64) -> Float64:
    """Undistorted normalised coordinates (N, 2) of distorted ones (N, 2); NaN where the model has no inverse."""
    if model == "none":
        return np.array(distorted)
    finite = np.isfinite(distorted).all(1)
    result = np.full(distorted.shape, np.nan)
    if not finite.any():
        return result
    solve = _undistort_equidistant if model == "equidistant" else _undistort_polynomial
    result[finite] = solve(D, distorted[finite])
    return result


def _polynomial(D: Float64, xy: Float64) -> Float64:
    if D.size > 12 and np.any(D[12:]):
        points = np.concatenate([xy, np.ones((len(xy), 1))], 1)
        if len(points) == 0:
            return np.array(xy)
        zero = np.zeros(3)
        return np.asarray(cv2.projectPoints(points, zero, zero, np.eye(3), D)[0], np.float64).reshape(-1, 2)
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = np.concatenate([D, np.zeros(12)])[:12]
    x, y = xy[:, 0], xy[:, 1]
    r2 = x * x + y * y
    radial = (1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1.0 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    result = np.empty_like(xy)
    result[:, 0] = x * radial + 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x) + r2 * (s1 + r2 * s2)
    result[:, 1] = y * radial + p1 * (r2 + 2.0 * y * y) + 2.0 * p2 * x * y + r2 * (s3 + r2 * s4)
    return result


def _polynomial_jacobian(D: Float64, xy: Float64) -> Float64:
    J = np.empty((len(xy), 2, 2))
    if D.size > 12 and np.any(D[12:]):
        step = 1e-6
        for axis, offset in enumerate(step * np.eye(2)):
            J[:, :, axis] = (_polynomial(D, xy + offset) - _polynomial(D, xy - offset)) / (2.0 * step)
        return J
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = np.concatenate([D, np.zeros(12)])[:12]
    x, y = xy[:, 0], xy[:, 1]
    r2 = x * x + y * y
    above, below = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3)), 1.0 + r2 * (k4 + r2 * (k5 + r2 * k6))
    radial = above / below
    slope = (k1 + r2 * (2.0 * k2 + r2 * 3.0 * k3) - radial * (k4 + r2 * (2.0 * k5 + r2 * 3.0 * k6))) / below
    mixed = 2.0 * x * y * slope + 2.0 * p1 * x + 2.0 * p2 * y
    J[:, 0, 0] = radial + 2.0 * x * x * slope + 2.0 * p1 * y + 6.0 * p2 * x + 2.0 * x * (s1 + 2.0 * s2 * r2)
    J[:, 0, 1] = mixed + 2.0 * y * (s1 + 2.0 * s2 * r2)
    J[:, 1, 0] = mixed + 2.0 * x * (s3 + 2.0 * s4 * r2)
    J[:, 1, 1] = radial + 2.0 * y * y * slope + 6.0 * p1 * y + 2.0 * p2 * x + 2.0 * y * (s3 + 2.0 * s4 * r2)
    return J


def _invertible(D: Float64, xy: Float64) -> NDArray[np.bool_]:
    """Where (N,) the distortion keeps orientation all the way from the centre to the point: beyond the first fold two
    rays share one pixel, and only the inner one is what the lens does."""
    inside = np.hypot(xy[:, 0], xy[:, 1]) < _end_of_radius(tuple(D.tolist()))
    return np.asarray(inside & (_determinant(_polynomial_jacobian(D, xy)) > 0.0), np.bool_)


@lru_cache(maxsize=64)  # a camera's coefficients never change, and every frame asks
def _end_of_radius(D: tuple[float, ...]) -> float:
    """Smallest radius at which r (1 + k1 r^2 + ...) / (1 + k4 r^2 + ...) stops growing, or infinity."""
    k1, k2, _, _, k3, k4, k5, k6 = np.concatenate([np.asarray(D), np.zeros(8)])[:8]
    # In u = r^2, with numerator a and denominator b: (a b + 2 u (a' b - a b')) / b^2 changes sign, or b = 0.
    a, b = np.poly1d([k3, k2, k1, 1.0]), np.poly1d([k6, k5, k4, 1.0])
    slope = a * b + np.poly1d([2.0, 0.0]) * (a.deriv() * b - a * b.deriv())
    return min(_positive_roots(slope.coeffs) + _positive_roots(b.coeffs), default=float("inf"))


def _positive_roots(coefficients: ArrayLike) -> list[float]:
    """Square roots of the positive real roots of a polynomial in r^2, highest power first."""
    # A coefficient this small acts far beyond any lens, and only upsets the eigenvalue solver.
    c = np.where(np.abs(np.asarray(coefficients, np.float64)) < 1e-12, 0.0, coefficients)
    return [float(np.sqrt(u.real)) for u in np.roots(c) if abs(u.imag) < 1e-9 * abs(u) + 1e-12 and u.real > 0]


def _determinant(matrices: Float64) -> Float64:
    return np.asarray(matrices[:, 0, 0] * matrices[:, 1, 1] - matrices[:, 0, 1] * matrices[:, 1, 0], np.float64)


def _undistort_polynomial(D: Float64, distorted: Float64) -> Float64:
    """Newton's method; with halved steps where whole ones do not lead to the ray that the lens shows. OpenCV's
    fixed-point iteration does not converge for strong distortion."""
    with np.errstate(all="ignore"):
        xy, good = _whole_steps(D, distorted)
        if not good.all():
            xy[~good] = _halved_steps(D, distorted[~good])
    return xy


def _whole_steps(D: Float64, distorted: Float64) -> tuple[Float64, NDArray[np.bool_]]:
    """Where (N, 2) Newton's whole steps end, and whether (N,) that is the inverse: cheap, enough for most lenses."""
    xy: Float64 = np.array(distorted)
    residual = _polynomial(D, xy) - distorted
    for _ in range(_WHOLE_STEPS):
        if not np.abs(residual).max(initial=0.0) > _CONVERGED:
            break
        xy -= _newton_step(D, xy, residual)
        residual = _polynomial(D, xy) - distorted
    return xy, np.asarray((np.abs(residual).max(1) < 10 * _CONVERGED) & _invertible(D, xy), np.bool_)


def _newton_step(D: Float64, xy: Float64, residual: Float64) -> Float64:
    J, step = _polynomial_jacobian(D, xy), np.empty_like(xy)
    determinant = _determinant(J)
    determinant[determinant == 0] = np.nan
    step[:, 0] = (J[:, 1, 1] * residual[:, 0] - J[:, 0, 1] * residual[:, 1]) / determinant
    step[:, 1] = (J[:, 0, 0] * residual[:, 1] - J[:, 1, 0] * residual[:, 0]) / determinant
    return step


def _halved_steps(D: Float64, distorted: Float64) -> Float64:
    """As `_whole_steps`, each step halved until it helps; NaN (N, 2) where there is no inverse."""
    xy: Float64 = np.array(distorted)
    residual = _polynomial(D, xy) - distorted
    for _ in range(20):
        active = np.flatnonzero(np.abs(residual).max(1) > _CONVERGED)
        if active.size == 0:
            break
        step = _newton_step(D, xy[active], residual[active])
        for scale in (1.0, 0.5, 0.25, 0.125):
            trial = xy[active] - scale * step
            trial_residual = _polynomial(D, trial) - distorted[active]
            better = np.abs(trial_residual).max(1) < np.abs(residual[active]).max(1)
            xy[active[better]], residual[active[better]] = trial[better], trial_residual[better]
            active, step = active[~better], step[~better]
            if active.size == 0:
                break
    xy[~((np.abs(residual).max(1) < _RESIDUAL) & _invertible(D, xy))] = np.nan
    return xy


def _equidistant(D: Float64, theta: Float64, radius: Float64, z: Float64) -> Float64:
    """Factor (N,) from (X, Y) to the distorted normalised point; the limit 1 / z on the optical axis."""
    t2 = theta * theta
    distorted = theta * (1.0 + t2 * (D[0] + t2 * (D[1] + t2 * (D[2] + t2 * D[3]))))
    on_axis = radius < 1e-12
    return np.asarray(
        np.where(on_axis, 1.0 / np.where(z == 0, 1.0, z), distorted / np.where(on_axis, 1.0, radius)), np.float64
    )


@lru_cache(maxsize=64)
def _end_of_range(D: tuple[float, ...]) -> float:
    """Largest angle from the optical axis up to which the equidistant polynomial grows, at most pi."""
    return min([float(np.pi), *_positive_roots([9.0 * D[3], 7.0 * D[2], 5.0 * D[1], 3.0 * D[0], 1.0])])


def _undistort_equidistant(D: Float64, distorted: Float64) -> Float64:
    goal = np.hypot(distorted[:, 0], distorted[:, 1])
    end = min(_end_of_range(tuple(D.tolist())), float(_MAX_ANGLE))
    low, high = np.zeros_like(goal), np.full_like(goal, end)
    theta = np.minimum(goal, end)

    def value(angle: Float64) -> Float64:
        t2 = angle * angle
        return np.asarray(angle * (1.0 + t2 * (D[0] + t2 * (D[1] + t2 * (D[2] + t2 * D[3])))), np.float64)

    # Newton's method kept inside a shrinking bracket: the polynomial grows on [0, end], so this always converges.
    for _ in range(60):
        residual = value(theta) - goal
        if np.all(np.abs(residual) < 1e-15):
            break
        low, high = np.where(residual < 0, theta, low), np.where(residual > 0, theta, high)
        t2 = theta * theta
        slope = 1.0 + t2 * (3.0 * D[0] + t2 * (5.0 * D[1] + t2 * (7.0 * D[2] + t2 * 9.0 * D[3])))
        newton = theta - residual / np.where(slope > 1e-12, slope, 1e-12)
        theta = np.where((newton > low) & (newton < high), newton, 0.5 * (low + high))
    scale = np.where(goal < 1e-12, 1.0, np.tan(theta) / np.where(goal < 1e-12, 1.0, goal))
    result = np.asarray(distorted * scale[:, None], np.float64)
    result[np.abs(value(theta) - goal) > _RESIDUAL] = np.nan
    return result
