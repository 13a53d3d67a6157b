"""Calibrated cameras: projection, normalisation and undistortion for the distortion models of ROS.

Pixel convention: (0, 0) is the centre of the top-left pixel. Camera frame: optical, x right, y down, z forward.
What CameraInfo messages and camera YAML files say is taken apart in `camera_info`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.files import camera_yaml
from ros2_densematch.files.exif import read_exif
from ros2_densematch.geometry import calibration_forms, camera_info, distortion
from ros2_densematch.geometry.camera_info import CameraInfo
from ros2_densematch.geometry.distortion import DistortionModel
from ros2_densematch.geometry.intrinsics import IntrinsicUncertainty

Rectified = Literal["auto"] | bool


class UncalibratedCameraError(ValueError):
    """The camera information says that the camera is not calibrated (K[0] = 0)."""


# Focal lengths for 35 mm film come in whole millimetres and are nominal; a lens's distortion is not told at all.
_GUESSED = IntrinsicUncertainty(focal=0.05, principal_point=0.02, distortion=0.05)


def _no_coefficients() -> Float64:
    return np.zeros(0, np.float64)


@dataclass(frozen=True, eq=False)
class Camera:
    """Immutable intrinsics of a camera for one image size.

    Attributes:
        width, height: image size in pixels.
        K: float64 (3, 3) in pixels, upper triangular with last row 0 0 1; pixel (0, 0) is the centre of the top-left
            pixel.
        distortion_model: "none", "plumb_bob" (k1 k2 p1 p2 k3), "rational_polynomial" (k1 k2 p1 p2 k3 k4 k5 k6 and,
            as in OpenCV, optionally s1 s2 s3 s4 and tau_x tau_y) or "equidistant" (fisheye, k1 k2 k3 k4).
        D: float64 distortion coefficients of that model; empty for "none".
        frame_id: name of the optical frame, or "".
        P: float64 (3, 4), the rectified projection matrix as in CameraInfo, or None. It holds the stereo baseline.
        uncertainty: standard deviations of the calibration; None means the estimator's default.

    Raises:
        UncalibratedCameraError: the focal length is 0.
        ValueError: another field is out of range; the message names it.
    """

    width: int
    height: int
    K: Float64
    distortion_model: DistortionModel = "none"
    D: Float64 = field(default_factory=_no_coefficients)
    frame_id: str = ""
    P: Float64 | None = None
    uncertainty: IntrinsicUncertainty | None = None

    def __post_init__(self) -> None:
        name = f"camera {self.frame_id!r}" if self.frame_id else "camera"
        if self.width < 1 or self.height < 1:
            raise ValueError(f"{name}: image size must be positive, got {self.width} x {self.height}")
        K = _matrix(self.K, (3, 3), f"{name}: K")
        if K[0, 0] == 0 or K[1, 1] == 0:
            raise UncalibratedCameraError(
                f"{name} is not calibrated (K[0] = 0): calibrate it, or give the calibration in a camera YAML file"
            )
        if K[0, 0] < 0 or K[1, 1] < 0:
            raise ValueError(f"{name}: focal lengths must be positive, got {K[0, 0]:g} and {K[1, 1]:g}")
        if K[1, 0] != 0 or not np.array_equal(K[2], [0.0, 0.0, 1.0]):
            raise ValueError(f"{name}: K must be upper triangular with last row 0 0 1, got {K.tolist()}")
        object.__setattr__(self, "K", K)
        model, coefficients = distortion.check(self.distortion_model, self.D, name)
        object.__setattr__(self, "distortion_model", model)
        object.__setattr__(self, "D", coefficients)
        if self.P is not None:
            object.__setattr__(self, "P", _matrix(self.P, (3, 4), f"{name}: P"))

    def __repr__(self) -> str:
        name = f" {self.frame_id!r}" if self.frame_id else ""
        return (
            f"<camera{name} of {self.width} x {self.height}, focal length {self.focal:.1f} px, {self.distortion_model}>"
        )

    @staticmethod
    def from_matrix(K: ArrayLike, width: int, height: int, *, frame_id: str = "") -> Camera:
        """A camera without distortion from K (3, 3) in pixels."""
        return Camera(width, height, np.asarray(K, np.float64), frame_id=frame_id)

    @staticmethod
    def from_yaml(path: str | Path, rectified: Rectified = "auto") -> Camera:
        """A camera from a calibration file of any form that `calibration_forms` reads, recognised by its content: ROS'
        camera_info format first of all, Kalibr, EuRoC, OpenCV, ORB-SLAM, VINS, COLMAP, KITTI, TUM.
        A file in ROS' format may state how well it is known under `intrinsic_uncertainty` (`IntrinsicUncertainty`).

        Args:
            path: the file. `FILE#NAME` chooses one of several cameras, as calib.yaml#cam1; `FILE@WxH` says the image
                size for a file that does not, as calib.txt#P0@1241x376.
            rectified: as in `from_camera_info`; "auto" means raw, because a file names no topic.

        Raises:
            FileNotFoundError: there is no such file.
            UncalibratedCameraError: K[0] is 0.
            ValueError: the file is no calibration, or one of a lens that is not supported, or it leaves open which
                camera or image size is meant; the message names the file, the key and the remedy.
        """
        path, which, size = _file_camera_size(path)
        text = camera_yaml.read_text(path)
        try:
            info, uncertainty = calibration_forms.from_text(text, which, size), None
            if info is None:
                content = camera_yaml.parse_yaml(text, path)
                info = calibration_forms.from_yaml_content(content, which, size)
                uncertainty = IntrinsicUncertainty.from_mapping(content)
            return replace(Camera._from_info(info, rectified is True), uncertainty=uncertainty)
        except UncalibratedCameraError as error:
            raise UncalibratedCameraError(f"{path}: {error}") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None

    @staticmethod
    def from_exif(path: str | Path) -> Camera:
        """A guess: the focal length that the camera wrote into an image file, the principal point in the middle, no
        distortion, for the stored pixels. Its `uncertainty` says that it is one.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file says nothing of its focal length, or was cut after it was taken.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no image {path}")
        exif = read_exif(path)
        if exif.size is None or exif.focal_px is None:
            raise ValueError(f"{path} has no focal length in its EXIF data: give a calibration")
        width, height = exif.size
        K = [[exif.focal_px, 0.0, 0.5 * (width - 1)], [0.0, exif.focal_px, 0.5 * (height - 1)], [0.0, 0.0, 1.0]]
        return Camera(width, height, np.array(K), uncertainty=_GUESSED)

    @staticmethod
    def from_camera_info(msg: Any, rectified: Rectified = "auto", image_topic: str = "") -> Camera:
        """A camera from a CameraInfo message of ROS 1 (K, D, P), ROS 2 (k, d, p) or the rosbags library.

        Args:
            msg: the message; binning and region of interest are applied, so that the camera is that of the image as
                sent.
            rectified: True: the image is rectified, use P and no distortion. False: it is raw, use K and D. "auto":
                rectified where the image topic's name says so (image_rect, image_rect_color), raw otherwise.
            image_topic: name of the image topic, for "auto".

        Raises:
            UncalibratedCameraError: K[0] is 0 (or P[0] where the image is rectified).
            ValueError: a field is missing, out of range or of another size.
        """
        by_name = camera_info.is_rectified_topic(image_topic)
        return Camera._from_info(camera_info.from_message(msg), by_name if rectified == "auto" else bool(rectified))

    def to_yaml(self, path: str | Path) -> None:
        """Writes the camera as a YAML file in ROS' camera_info format, atomically."""
        P = self.P if self.P is not None else np.concatenate([self.K, np.zeros((3, 1))], 1)
        # ROS has no model named "none": zero coefficients of plumb_bob say the same to every reader.
        plain = self.distortion_model == "none"
        model, D = ("plumb_bob", np.zeros(5)) if plain else (self.distortion_model, self.D)
        info = CameraInfo(self.frame_id, self.size, self.K, D, P, model)
        content = camera_info.to_mapping(info) | ({} if self.uncertainty is None else self.uncertainty.to_mapping())
        camera_yaml.write_camera_yaml(Path(path), content)

    @property
    def focal(self) -> float:
        """Mean of the two focal lengths in pixels."""
        return float(self.K[0, 0] + self.K[1, 1]) / 2.0

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.width, self.height

    @property
    def baseline(self) -> float | None:
        """Stereo baseline in metres, -P[0, 3] / P[0, 0]: the position of this camera right of the first one of the
        rectified pair (0 for the first one itself); None where P is not known."""
        if self.P is None or self.P[0, 0] == 0:
            return None
        return float(-self.P[0, 3] / self.P[0, 0])

    def with_baseline(self, metres: float) -> Camera:
        """This camera as the right one of a rectified pair, so far right of the first one."""
        P = np.concatenate([self.K, np.zeros((3, 1))], 1)
        P[0, 3] = -self.K[0, 0] * metres
        return replace(self, P=P)

    def normalise(self, xy: ArrayLike) -> Float64:
        """Undistorted normalised coordinates (N, 2), X/Z and Y/Z, of pixels (N, 2).

        A pixel that no ray in front of the camera reaches under this distortion model becomes NaN.
        """
        points = np.asarray(xy, np.float64).reshape(-1, 2)
        points = np.where(np.isfinite(points), points, np.nan)  # an infinity would warn on its way to NaN
        y = (points[:, 1] - self.K[1, 2]) / self.K[1, 1]
        x = (points[:, 0] - self.K[0, 2] - self.K[0, 1] * y) / self.K[0, 0]
        return distortion.undistort(self.distortion_model, self.D, np.stack([x, y], 1))

    def project(self, xyz: ArrayLike) -> Float64:
        """Pixels (N, 2) of points (N, 3) in the optical frame; NaN where the camera cannot see the point (behind it, or
        beyond the range in which the distortion model is monotonic). Points outside the image keep their coordinates.
        """
        points = np.asarray(xyz, np.float64).reshape(-1, 3)
        return self._to_pixels(distortion.distort(self.distortion_model, self.D, points))

    def pixel_jacobian(self, normalised: ArrayLike) -> Float64:
        """Derivative (N, 2, 2) of the pixel by undistorted normalised coordinates (N, 2), by central differences."""
        points = np.asarray(normalised, np.float64).reshape(-1, 2)
        if self.distortion_model == "none":
            return np.array(np.broadcast_to(self.K[:2, :2], (len(points), 2, 2)), np.float64)
        step = 1e-6
        columns = []
        for axis in (0, 1):
            offset = np.zeros(2)
            offset[axis] = step
            ahead, behind = (
                self._to_pixels(distortion.distort_unchecked(self.distortion_model, self.D, points + sign * offset))
                for sign in (1.0, -1.0)
            )
            columns.append((ahead - behind) / (2.0 * step))
        return np.asarray(np.stack(columns, 2), np.float64)

    def undistort_image(self, image: NDArray[Any]) -> NDArray[Any]:
        """The image as a camera with this K and no distortion would see it; same size, black where nothing is seen.

        Args:
            image: (height, width) or (height, width, C) of this camera's size, any type that `cv2.remap` takes.

        Raises:
            ValueError: the image has another size; use `for_image` first.
        """
        if image.shape[:2] != (self.height, self.width):
            raise ValueError(
                f"the image is {image.shape[1]} x {image.shape[0]}, the camera {self.width} x {self.height}: "
                "use camera.for_image(width, height)"
            )
        if self.distortion_model == "none":
            return np.array(image)
        if self.distortion_model == "equidistant":
            maps = cv2.fisheye.initUndistortRectifyMap(self.K, self.D, np.eye(3), self.K, self.size, cv2.CV_32FC1)
        else:
            maps = cv2.initUndistortRectifyMap(self.K, self.D, np.eye(3), self.K, self.size, cv2.CV_32FC1)
        result: NDArray[Any] = cv2.remap(image, maps[0], maps[1], cv2.INTER_LINEAR)
        return result

    def undistorted(self) -> Camera:
        """The camera of `undistort_image`: the same K, no distortion."""
        return replace(self, distortion_model="none", D=_no_coefficients())

    def resized(self, width: int, height: int) -> Camera:
        """The camera of the same image resized to (width, height): fx' = s fx, cx' = (cx + 0.5) s - 0.5."""
        sx, sy = width / self.width, height / self.height
        return self._affine(width, height, sx, sy, 0.5 * sx - 0.5, 0.5 * sy - 0.5)

    def cropped(self, x: int, y: int, width: int, height: int) -> Camera:
        """The camera of the window with top-left pixel (x, y) and size (width, height)."""
        return self._affine(width, height, 1.0, 1.0, -x, -y)

    def for_image(self, width: int, height: int) -> Camera:
        """This camera for an image of the given size: itself, or rescaled where the two aspect ratios agree.

        Raises:
            ValueError: the aspect ratios differ by more than 1 %: the image is a crop of unknown position.
        """
        if (width, height) == self.size:
            return self
        if abs(width * self.height / (height * self.width) - 1.0) > 0.01:
            raise ValueError(
                f"the image is {width} x {height}, but the camera is calibrated for {self.width} x {self.height} and "
                "the aspect ratios differ: give the calibration of this image size"
            )
        return self.resized(width, height)

    @staticmethod
    def _from_info(info: CameraInfo, rectified: bool) -> Camera:
        if info.K.size != 9:
            raise ValueError(f"K must have 9 entries, got {info.K.size}")
        K, name = info.K.reshape(3, 3), info.frame_id
        projection = info.P.reshape(3, 4) if info.P.size == 12 and info.P.reshape(3, 4)[0, 0] != 0 else None
        if rectified:
            if projection is None and K[0, 0] != 0:
                raise UncalibratedCameraError(
                    f"camera {name!r}: the image is said to be rectified, but P is missing or P[0] = 0: "
                    "give the calibration with P, or say rectified=false"
                )
            camera = Camera(*info.size, K if projection is None else projection[:, :3], frame_id=name, P=projection)
        else:
            model: Any = info.distortion_model  # checked by Camera
            camera = Camera(*info.size, K, model, info.D, frame_id=name, P=projection)
        return camera._window(info.binning, info.roi)

    def _window(self, binning: tuple[int, int], roi: tuple[int, int, int, int]) -> Camera:
        """Region of interest (in unbinned pixels), then binning, in the order that CameraInfo defines."""
        x, y, width, height = roi
        if any(value < 0 for value in (*roi, *binning)):
            raise ValueError(f"camera {self.frame_id!r}: negative region of interest {roi} or binning {binning}")
        # A region of zero size means the whole image.
        width, height = width or self.width - x, height or self.height - y
        if x + width > self.width or y + height > self.height or width < 1 or height < 1:
            raise ValueError(
                f"camera {self.frame_id!r}: the region of interest {width} x {height} at ({x}, {y}) leaves the image "
                f"of {self.width} x {self.height}"
            )
        camera = self if (x, y, width, height) == (0, 0, *self.size) else self.cropped(x, y, width, height)
        bin_x, bin_y = max(binning[0], 1), max(binning[1], 1)
        if (bin_x, bin_y) == (1, 1):
            return camera
        if width < bin_x or height < bin_y:
            raise ValueError(
                f"camera {self.frame_id!r}: binning {bin_x} x {bin_y} leaves nothing of {width} x {height}"
            )
        # Rows and columns that do not fill a whole bin are dropped by the sensor.
        camera = camera.cropped(0, 0, width // bin_x * bin_x, height // bin_y * bin_y)
        return camera.resized(width // bin_x, height // bin_y)

    def _affine(self, width: int, height: int, sx: float, sy: float, dx: float, dy: float) -> Camera:
        A = np.array([[sx, 0.0, dx], [0.0, sy, dy], [0.0, 0.0, 1.0]])
        return replace(self, width=width, height=height, K=A @ self.K, P=None if self.P is None else A @ self.P)

    def _to_pixels(self, distorted: Float64) -> Float64:
        return np.asarray(distorted @ self.K[:2, :2].T + self.K[:2, 2], np.float64)


def _file_camera_size(path: str | Path) -> tuple[Path, str, tuple[int, int] | None]:
    """The parts of FILE#NAME@WxH; a file whose own name looks like that is taken as it is."""
    if Path(path).is_file():
        return Path(path), "", None
    found = re.fullmatch(r"(.+?)(?:#([^#@/]+))?(?:@(\d+)x(\d+))?", str(path))
    assert found is not None  # the first part takes anything
    name, which, width, height = found.groups()
    return Path(name), which or "", (int(width), int(height)) if width else None


def _matrix(value: ArrayLike, shape: tuple[int, int], name: str) -> Float64:
    matrix = np.array(value, np.float64)
    if matrix.size != shape[0] * shape[1]:
        raise ValueError(f"{name} must have {shape[0]} x {shape[1]} entries, got {matrix.size}")
    if not np.all(np.isfinite(matrix)):
        raise ValueError(f"{name} has an entry that is not a finite number: {matrix.ravel().tolist()}")
    matrix = matrix.reshape(shape)
    matrix.setflags(write=False)
    return matrix
