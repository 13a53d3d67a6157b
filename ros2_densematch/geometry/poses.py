"""Rigid motions as float64 4x4 matrices, quaternions (x y z w) and their 6x6 covariances.

A matrix ``T_a_from_b`` maps points: X_a = T_a_from_b X_b; it is also the pose of frame b expressed in frame a.

Covariances have the order x y z, rotation x y z, and a perturbation on the left about the fixed axes of the frame
in which the pose is expressed: R = Exp(w) R_estimated, t = t_estimated + d, with (d, w) the 6-vector. This is the
convention of geometry_msgs/PoseWithCovariance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ros2_densematch.arrays import Float64


def make_pose(R: ArrayLike, t: ArrayLike) -> Float64:
    """4x4 matrix from a rotation (3, 3) and a translation (3,)."""
    T = np.eye(4)
    T[:3, :3] = np.asarray(R, np.float64)
    T[:3, 3] = np.asarray(t, np.float64).ravel()
    return T


def inverse(T: ArrayLike) -> Float64:
    """Inverse (..., 4, 4) of rigid motions (..., 4, 4)."""
    T = np.asarray(T, np.float64)
    result = np.zeros_like(T)
    Rt = np.swapaxes(T[..., :3, :3], -1, -2)
    result[..., :3, :3] = Rt
    result[..., :3, 3] = -(Rt @ T[..., :3, 3, None])[..., 0]
    result[..., 3, 3] = 1.0
    return result


def compose(*transforms: ArrayLike) -> Float64:
    """Product T_a_from_b T_b_from_c ... (..., 4, 4) of rigid motions, with its rotation made orthonormal again."""
    T: Float64 = np.eye(4)
    for factor in transforms:
        T = T @ np.asarray(factor, np.float64)
    result: Float64 = np.array(T, np.float64)
    result[..., :3, :3] = nearest_rotation(T[..., :3, :3])
    return result


def transform_points(T: ArrayLike, xyz: ArrayLike) -> Float64:
    """Points (N, 3) moved by T (4, 4)."""
    T = np.asarray(T, np.float64)
    return np.asarray(np.asarray(xyz, np.float64) @ T[:3, :3].T + T[:3, 3], np.float64)


def nearest_rotation(M: ArrayLike) -> Float64:
    """The rotation (..., 3, 3) closest to a matrix (..., 3, 3) in the Frobenius norm, with determinant +1."""
    U, _, Vt = np.linalg.svd(np.asarray(M, np.float64))
    sign = np.sign(np.linalg.det(U @ Vt))
    U = U.copy()
    U[..., :, 2] *= sign[..., None]
    return np.asarray(U @ Vt, np.float64)


def skew(v: ArrayLike) -> Float64:
    """Matrix (..., 3, 3) of the cross product with v (..., 3)."""
    v = np.asarray(v, np.float64)
    S = np.zeros((*v.shape[:-1], 3, 3))
    S[..., 0, 1], S[..., 0, 2], S[..., 1, 2] = -v[..., 2], v[..., 1], -v[..., 0]
    return np.asarray(S - np.swapaxes(S, -1, -2))


def exp_rotation(w: ArrayLike) -> Float64:
    """Rotation (3, 3) of a rotation vector (3,) in radians (Rodrigues' formula)."""
    w = np.asarray(w, np.float64).ravel()
    angle = float(np.linalg.norm(w))
    W = skew(w)
    if angle < 1e-8:
        return np.asarray(np.eye(3) + W + 0.5 * W @ W)
    return np.asarray(np.eye(3) + np.sin(angle) / angle * W + (1.0 - np.cos(angle)) / angle**2 * W @ W)


def log_rotation(R: ArrayLike) -> Float64:
    """Rotation vector (3,) in radians, length in [0, pi], of a rotation (3, 3)."""
    x, y, z, w = quaternion_from_matrix(R)
    v = np.array([x, y, z])
    length = float(np.linalg.norm(v))
    if length < 1e-12:
        return np.asarray(2.0 * v)
    return np.asarray(2.0 * np.arctan2(length, w) / length * v)


def rotation_angle_deg(A: ArrayLike, B: ArrayLike | None = None) -> float:
    """Angle in degrees of a rotation A (3, 3) or pose (4, 4), or between two of them."""
    R = np.asarray(A, np.float64)[:3, :3]
    if B is not None:
        R = np.asarray(B, np.float64)[:3, :3].T @ R
    return float(np.degrees(np.linalg.norm(log_rotation(R))))


def direction_angle_deg(a: ArrayLike, b: ArrayLike) -> float:
    """Angle in degrees between two vectors (3,); NaN where one has no length."""
    a, b = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    if not (np.linalg.norm(a) > 0 and np.linalg.norm(b) > 0):
        return float("nan")
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))


def quaternion_from_matrix(R: ArrayLike) -> Float64:
    """Unit quaternion x y z w with w >= 0 of a rotation (3, 3) or pose (4, 4).

    Shepperd, "Quaternion from rotation matrix", J. Guidance and Control 1978: the largest component is taken first.
    """
    M = np.asarray(R, np.float64)[:3, :3]
    trace = float(np.trace(M))
    largest = int(np.argmax([M[0, 0], M[1, 1], M[2, 2], trace]))
    q = np.zeros(4)
    if largest == 3:
        q[:] = M[2, 1] - M[1, 2], M[0, 2] - M[2, 0], M[1, 0] - M[0, 1], 1.0 + trace
    else:
        i, j, k = largest, (largest + 1) % 3, (largest + 2) % 3
        q[i] = 1.0 - trace + 2.0 * M[i, i]
        q[j] = M[j, i] + M[i, j]
        q[k] = M[k, i] + M[i, k]
        q[3] = M[k, j] - M[j, k]
    q /= np.linalg.norm(q)
    return -q if q[3] < 0 else q


def matrix_from_quaternion(q: ArrayLike) -> Float64:
    """Rotation (3, 3) of a quaternion x y z w of any length but 0.

    Raises:
        ValueError: the quaternion has no length or is not finite.
    """
    v = np.asarray(q, np.float64).ravel()
    norm = float(np.linalg.norm(v))
    if v.shape != (4,) or not np.isfinite(norm) or norm < 1e-12:
        raise ValueError(f"a rotation needs a quaternion x y z w of non-zero length, got {v.tolist()}")
    x, y, z, w = v / norm
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def pose_from_quaternion(t: ArrayLike, q: ArrayLike) -> Float64:
    """4x4 pose of a translation (3,) and a quaternion x y z w."""
    return make_pose(matrix_from_quaternion(q), t)


def interpolate(A: ArrayLike, B: ArrayLike, fraction: float) -> Float64:
    """Pose (4, 4) between A (fraction 0) and B (fraction 1): linear in position, constant angular speed in rotation."""
    A, B = np.asarray(A, np.float64), np.asarray(B, np.float64)
    turn = exp_rotation(fraction * log_rotation(B[:3, :3] @ A[:3, :3].T))
    return make_pose(turn @ A[:3, :3], (1.0 - fraction) * A[:3, 3] + fraction * B[:3, 3])


def inverse_covariance_jacobian(T: ArrayLike) -> Float64:
    """Derivative (6, 6) of the inverse pose's perturbation by that of the pose T, both on the left."""
    T = np.asarray(T, np.float64)
    Rt = T[:3, :3].T
    J = np.zeros((6, 6))
    J[:3, :3], J[:3, 3:], J[3:, 3:] = -Rt, -Rt @ skew(T[:3, 3]), -Rt
    return J


def invert_with_covariance(T: ArrayLike, covariance: ArrayLike) -> tuple[Float64, Float64]:
    """Inverse of a pose (4, 4) and its covariance (6, 6): first-order propagation, same conventions."""
    J = inverse_covariance_jacobian(T)
    C = J @ np.asarray(covariance, np.float64) @ J.T
    return inverse(T), np.asarray(0.5 * (C + C.T))
