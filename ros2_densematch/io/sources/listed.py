"""Frames out of the folders of the trajectory benchmarks: images that a list gives a time, and true poses beside it.

TUM RGB-D: Sturm et al., IROS 2012. EuRoC: Burri et al., IJRR 2016. KITTI odometry: Geiger et al., CVPR 2012. True poses
are brought into the optical frame of the camera whose images are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.trajectory import Trajectory
from ros2_densematch.io.sources.base import Picture, Source
from ros2_densematch.io.sources.files import load_camera, read_image
from ros2_densematch.io.sources.options import SourceOptions, refuse_topics
from ros2_densematch.io.sources.stamps import MAX_STAMP_NS
from ros2_densematch.io.sources.thinning import usual_period_s
from ros2_densematch.messages.image import ImageDecodeError

_TUM_SIZE = (640, 480)
# fx fy cx cy k1 k2 p1 p2 k3 of the three cameras of the TUM RGB-D benchmark, as its page states them; the images of the
# third are undistorted.
_TUM_CAMERAS: dict[str, tuple[float, ...]] = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3, 0.2624, -0.9531, -0.0054, 0.0026, 1.1633),
    "freiburg2": (520.9, 521.0, 325.1, 249.7, 0.2312, -0.7849, -0.0033, -0.0001, 0.9172),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
}
_TUM_CALIBRATIONS = ("camera.yaml", "calib.txt")


@dataclass(frozen=True)
class Listing:
    """What a benchmark's folder says.

    Attributes:
        images: time in nanoseconds and file, in the order of the list.
        camera: calibration, or None where the folder has none.
        truth: true poses T_world_from_camera, or None.
        notes: what was chosen on the user's behalf.
        lacking: what is missing, for the warnings.
    """

    images: list[tuple[int, Path]]
    camera: Camera | None = None
    truth: Trajectory | None = None
    notes: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)


class ListedSource(Source):
    """The frames of a TUM, EuRoC or KITTI folder; see `FrameSource`.

    Raises:
        ValueError: a list is damaged, or names no image; the message names the file and the line.
    """

    def __init__(self, path: Path, options: SourceOptions):
        super().__init__(path.resolve().name, options)
        refuse_topics(options, path)
        read = next(read for recognises, read in _BENCHMARKS if recognises(path))
        listing = read(path)
        if not listing.images:
            raise ValueError(f"{path} lists no image: fetch the sequence again")
        for note in listing.notes:
            self._log.note(note)
        self._files = listing.images
        self._count = len(self._files)
        self._period_s = usual_period_s([stamp for stamp, _ in self._files])
        given = load_camera(options.camera_yaml, options) or listing.camera
        if given is None:
            self._log.warn(f"{self.name} has no calibration: correspondences only, no poses; add --camera FILE")
        for text in listing.lacking:
            self._log.warn(text)
        self._calibrate(given)
        self.ground_truth = listing.truth

    def _pictures(self) -> Iterator[Picture]:
        for stamp_ns, file in self._files:
            yield Picture(stamp_ns, file.name, partial(read_image, file))


def is_benchmark_folder(path: Path) -> bool:
    """Whether a folder is a sequence of TUM RGB-D, EuRoC or KITTI odometry, by the names of its files."""
    return path.is_dir() and any(recognises(path) for recognises, _ in _BENCHMARKS)


# ---- TUM RGB-D: rgb.txt (stamp file), groundtruth.txt (stamp tx ty tz qx qy qz qw)


def _is_tum(path: Path) -> bool:
    return (path / "rgb.txt").is_file()


def _read_tum(path: Path) -> Listing:
    images = []
    for number, words in _rows(path / "rgb.txt"):
        if len(words) != 2:
            raise ValueError(f"{path / 'rgb.txt'}, line {number}: expected `stamp file`, got {' '.join(words)!r}")
        images.append((_seconds(words[0], path / "rgb.txt", number), _inside(path, words[1])))
    camera, notes = _tum_camera(path)
    file = path / "groundtruth.txt"
    if not file.is_file():
        return Listing(images, camera, None, notes, [f"{path.name} has no groundtruth.txt: no errors are computed"])
    stamps, matrices = [], []
    for number, words in _rows(file):
        values = _numbers(words, 8, file, number)
        stamps.append(_seconds(words[0], file, number))
        matrices.append(poses.pose_from_quaternion(values[1:4], values[4:8]))
    return Listing(images, camera, _trajectory(stamps, matrices), notes)


def _tum_camera(path: Path) -> tuple[Camera | None, list[str]]:
    """From a calibration beside the list, else the published one of the camera that the folder's name says."""
    for name in _TUM_CALIBRATIONS:
        if (path / name).is_file():
            given = f"{path / name}@{_TUM_SIZE[0]}x{_TUM_SIZE[1]}" if name.endswith(".txt") else path / name
            return Camera.from_yaml(given), [f"the calibration is read from {name}"]
    for word, values in _TUM_CAMERAS.items():
        if word in path.resolve().name:
            fx, fy, cx, cy, *lens = values
            K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
            model, D = ("plumb_bob", np.array(lens)) if lens else ("none", np.zeros(0))
            note = f"the calibration is the published one of {word}"
            return Camera(*_TUM_SIZE, K, model, D), [note]  # type: ignore[arg-type]  # one of two literals
    return None, []


# ---- EuRoC: mav0/cam0/data.csv, sensor.yaml, data/; mav0/state_groundtruth_estimate0/data.csv of the body


def _is_euroc(path: Path) -> bool:
    return (path / "mav0" / "cam0" / "data.csv").is_file()


def _read_euroc(path: Path) -> Listing:
    folder = path / "mav0" / "cam0"
    images = []
    for number, words in _rows(folder / "data.csv"):
        if len(words) != 2 or not words[0].isdigit():
            raise ValueError(f"{folder / 'data.csv'}, line {number}: expected `nanoseconds,file`")
        images.append((int(words[0]), _inside(folder / "data", words[1])))
    camera = Camera.from_yaml(folder / "sensor.yaml") if (folder / "sensor.yaml").is_file() else None
    truth = path / "mav0" / "state_groundtruth_estimate0" / "data.csv"
    if not truth.is_file():
        lacking = [f"{path.name} has no {truth.relative_to(path)}: no errors are computed"]
        return Listing(images, camera, None, [], lacking)
    T_body_from_camera = _euroc_extrinsics(folder / "sensor.yaml")
    stamps, matrices = [], []
    for number, words in _rows(truth):
        values = _numbers(words[:8], 8, truth, number)
        x, y, z, qw, qx, qy, qz = values[1:8]
        stamps.append(int(words[0]))
        matrices.append(poses.pose_from_quaternion([x, y, z], [qx, qy, qz, qw]) @ T_body_from_camera)
    return Listing(images, camera, _trajectory(stamps, matrices))


def _euroc_extrinsics(file: Path) -> Float64:
    """T_BS of a sensor.yaml: pose of the camera in the frame of the body."""
    import yaml

    try:
        content = yaml.safe_load(file.read_text("utf-8").replace("%YAML:1.0", ""))
        T = np.asarray(content["T_BS"]["data"], np.float64).reshape(4, 4)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ValueError(
            f"{file} contains no T_BS ({error}), which is needed because the ground-truth poses are those of the body"
        ) from None
    return T


# ---- KITTI odometry: sequences/SS/{image_0, image_2}/NNNNNN.png, times.txt, calib.txt; poses/SS.txt


def _is_kitti(path: Path) -> bool:
    return (path / "times.txt").is_file() and (path / "calib.txt").is_file()


def _read_kitti(path: Path) -> Listing:
    stamps = [_seconds(words[0], path / "times.txt", number) for number, words in _rows(path / "times.txt")]
    camera_number = next((k for k in (0, 2) if (path / f"image_{k}").is_dir()), None)
    if camera_number is None:
        raise ValueError(f"{path} has neither image_0 nor image_2: fetch the grey or the colour images")
    files = sorted(f for f in (path / f"image_{camera_number}").iterdir() if f.suffix.lower() in (".png", ".jpg"))
    if len(files) != len(stamps):
        raise ValueError(f"{path} has {len(stamps)} times but {len(files)} images: fetch the sequence again")
    camera, T_first_from_camera = _kitti_camera(path, camera_number, files)
    truth = next(
        (f for f in (path.parent.parent / "poses" / f"{path.resolve().name}.txt", path / "poses.txt") if f.is_file()),
        None,
    )
    images = list(zip(stamps, files, strict=True))
    if truth is None:
        lacking = [f"{path.name} has no poses/{path.resolve().name}.txt: no errors are computed"]
        return Listing(images, camera, None, [], lacking)
    matrices = []
    for number, words in _rows(truth):
        T = np.eye(4)
        T[:3] = np.reshape(_numbers(words, 12, truth, number), (3, 4))
        T[:3, :3] = poses.nearest_rotation(T[:3, :3])
        matrices.append(T @ T_first_from_camera)
    if len(matrices) != len(stamps):
        raise ValueError(f"{truth} has {len(matrices)} poses for {len(stamps)} images: fetch it again")
    return Listing(images, camera, _trajectory(stamps, matrices))


def _kitti_camera(path: Path, number: int, files: list[Path]) -> tuple[Camera | None, Float64]:
    """The rectified camera, and where it stands in the frame of camera 0, to which the true poses belong: P = K [I | t]
    maps points of camera 0, so that frame is seen from -t."""
    if not files:
        return None, np.eye(4)
    try:
        height, width = read_image(files[0]).shape[:2]
    except ImageDecodeError as error:
        raise ValueError(str(error)) from None
    camera = Camera.from_yaml(f"{path / 'calib.txt'}#P{number}@{width}x{height}")
    T = np.eye(4)
    if camera.P is not None:
        T[:3, 3] = -np.linalg.solve(camera.K, camera.P[:, 3])
    return camera, T


_BENCHMARKS = ((_is_tum, _read_tum), (_is_euroc, _read_euroc), (_is_kitti, _read_kitti))


# ---- common


def _rows(file: Path) -> list[tuple[int, list[str]]]:
    """Numbered lines as words, split at commas and blanks, without comments."""
    try:
        text = file.read_text("utf-8", errors="replace")
    except OSError as error:
        raise ValueError(f"cannot read {file} ({error.strerror}): restore the file") from None
    lines = enumerate(text.splitlines(), 1)
    return [(n, line.replace(",", " ").split()) for n, line in lines if line.strip() and not line.startswith("#")]


def _numbers(words: list[str], count: int, file: Path, line: int) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) != count or not np.isfinite(values).all():
        raise ValueError(f"{file}, line {line}: {count} numbers are expected, got {' '.join(words)!r}")
    return values


def _seconds(word: str, file: Path, line: int) -> int:
    """Nanoseconds of a decimal number of seconds; all digits count where it has no exponent."""
    whole, _, decimals = word.partition(".")
    if whole.isdigit() and (decimals.isdigit() or not decimals):
        stamp_ns = int(whole) * 10**9 + int(decimals.ljust(9, "0")[:9] or 0)
    else:
        stamp_ns = round(_numbers([word], 1, file, line)[0] * 1e9)
    if not 0 <= stamp_ns < MAX_STAMP_NS:
        raise ValueError(f"{file}, line {line}: {word} is not a time in seconds")
    return stamp_ns


def _inside(folder: Path, name: str) -> Path:
    """A file of the folder.

    Raises:
        ValueError: the name leads out of the folder.
    """
    if not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{folder}: the listed file {name} is outside the folder: fetch the sequence again")
    return folder / name


def _trajectory(stamps: list[int], matrices: list[Float64]) -> Trajectory | None:
    if not stamps:
        return None
    unique, index = np.unique(np.array(stamps, np.int64), return_index=True)
    return Trajectory(unique, np.stack([matrices[i] for i in index]))
