"""What the errors of a calibration do to every match at once.

A wrong focal length, principal point or distortion moves all rays together: more matches do not average it out, and on
real cameras it is the larger part of a pose's error. First-order propagation needs the derivative of the rays by these
parameters (Hartley and Zisserman, Multiple View Geometry, 2nd ed., section 5.2.4).
"""

from __future__ import annotations

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.intrinsics import IntrinsicUncertainty

_FARTHEST = 2.0  # normalised radius at which the error of the distortion stops growing: no lens is that far off


def shared_derivatives(
    camera0: Camera,
    camera1: Camera,
    xy: tuple[Float64, Float64],
    normalised: tuple[Float64, Float64],
    per_pixel: tuple[Float64, Float64],
    default: IntrinsicUncertainty,
) -> tuple[Float64, Float64]:
    """Derivatives (Q, 2, N) of the normalised points of both images by Q independent parameters of unit variance.

    One camera that took both images has one set of parameters; two cameras have one each. The turning within a readout
    is another one in every image.

    Args:
        camera0, camera1: reference and query camera; `default` stands in where they carry no uncertainty.
        xy: pixels (N, 2) of reference and query.
        normalised: undistorted normalised coordinates (N, 2).
        per_pixel: derivatives (2, 2, N) of the normalised point by the pixel.
    """
    own = [camera.uncertainty or default for camera in (camera0, camera1)]
    first, second = (
        _intrinsic(camera, std, *points)
        for camera, std, *points in zip((camera0, camera1), own, xy, normalised, per_pixel, strict=True)
    )
    if not same_calibration(camera0, camera1):
        first, second = (
            np.concatenate([first, np.zeros_like(second)]),
            np.concatenate([np.zeros_like(first), second]),
        )
    if own[0].rolling_shutter > 0 or own[1].rolling_shutter > 0:
        turned = [
            _turning(camera, std, *points)
            for camera, std, *points in zip((camera0, camera1), own, xy, normalised, strict=True)
        ]
        first = np.concatenate([first, turned[0], np.zeros_like(turned[1])])
        second = np.concatenate([second, np.zeros_like(turned[0]), turned[1]])
    return first, second


def same_calibration(a: Camera, b: Camera) -> bool:
    """Whether two cameras have the same calibration: their errors are then the same, too."""
    same_model = a.size == b.size and a.distortion_model == b.distortion_model
    return same_model and np.array_equal(a.K, b.K) and np.array_equal(a.D, b.D)


def _intrinsic(
    camera: Camera, std: IntrinsicUncertainty, xy: Float64, normalised: Float64, per_pixel: Float64
) -> Float64:
    """Derivatives (4, 2, N) by focal length, principal point x and y, and k1, each over its standard deviation."""
    fx, fy = float(camera.K[0, 0]), float(camera.K[1, 1])
    offset = (xy - camera.K[:2, 2]).T
    squared = np.minimum((offset[0] / fx) ** 2 + (offset[1] / fy) ** 2, _FARTHEST**2)
    ones, zeros = np.ones(len(xy)), np.zeros(len(xy))
    # What the parameter adds to the pixel of a ray is missing from the ray of a pixel.
    pixels = np.stack(
        [
            -std.focal * offset,
            np.stack([-std.principal_point * fx * ones, zeros]),
            np.stack([zeros, -std.principal_point * fy * ones]),
            -std.distortion * squared * offset,
        ]
    )
    return np.stack(
        [
            per_pixel[0, 0] * pixels[:, 0] + per_pixel[0, 1] * pixels[:, 1],
            per_pixel[1, 0] * pixels[:, 0] + per_pixel[1, 1] * pixels[:, 1],
        ],
        1,
    )


def _turning(camera: Camera, std: IntrinsicUncertainty, xy: Float64, normalised: Float64) -> Float64:
    """Derivatives (3, 2, N) by the rotation about x, y and z within one readout."""
    x, y = normalised.T
    time = std.rolling_shutter * ((xy[:, 1] + 0.5) / camera.height - 0.5)
    about_x = np.stack([-x * y, -1.0 - y * y])
    about_y = np.stack([1.0 + x * x, x * y])
    about_z = np.stack([-y, x])
    return np.stack([about_x, about_y, about_z]) * time
