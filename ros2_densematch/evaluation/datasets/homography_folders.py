"""Folders of image sequences under homographies: HPatches, and the Oxford sequences that it grew from.

A folder with `1.*` to `6.*` and `H_1_2` to `H_1_6` (HPatches), or `img1.*` and `H1to2p` (Oxford), or a folder of such.
"""

from __future__ import annotations

from pathlib import Path

from ros2_densematch.evaluation.datasets.base import (
    Dataset,
    DatasetError,
    HomographyTruth,
    Layout,
    Pair,
    read_matrix,
)

_SUFFIXES = (".ppm", ".png", ".pgm", ".jpg", ".jpeg")
_LAST = 6


def _truth_file(scene: Path, i: int) -> Path | None:
    return next((f for f in (scene / f"H_1_{i}", scene / f"H1to{i}p") if f.is_file()), None)


def _scenes(path: Path) -> list[Path]:
    for folder in (path, path / "homography", path / "hpatches-sequences-release"):
        if _truth_file(folder, 2) is not None:
            return [folder]
        if folder.is_dir():
            found = sorted(f for f in folder.iterdir() if f.is_dir() and _truth_file(f, 2) is not None)
            if found:
                return found
    return []


def _image(scene: Path, i: int) -> Path:
    places = [scene / f"{stem}{suffix}" for stem in (f"{i}", f"img{i}") for suffix in _SUFFIXES]
    return next((place for place in places if place.is_file()), places[0])


def read_homography_folders(path: Path) -> Dataset:
    """All pairs (1, i) that have a homography; subsets are HPatches' illumination and viewpoint, else the folders.

    Raises:
        DatasetError: no folder has this form.
    """
    scenes = _scenes(path)
    if not scenes:
        raise DatasetError(f"{path} holds no sequence with 1.ppm and H_1_2 (HPatches) or img1.ppm and H1to2p (Oxford)")
    kinds = {"i_": "illumination", "v_": "viewpoint"}
    is_hpatches = all(scene.name[:2] in kinds for scene in scenes)
    pairs, unusable = [], []
    for scene in scenes:
        subset = kinds[scene.name[:2]] if is_hpatches else scene.name
        for i in range(2, _LAST + 1):
            name, file = f"{scene.name}/1-{i}", _truth_file(scene, i)
            if file is None:
                unusable.append((name, f"{scene} has no homography H_1_{i}"))
                continue
            try:
                H = read_matrix(file, 3, 3)
            except DatasetError as error:
                unusable.append((name, str(error)))
                continue
            pairs.append(Pair(name, subset, _image(scene, 1), _image(scene, i), HomographyTruth(H)))
    notes = (
        (f"{len(scenes)} sequences; published figures on HPatches often leave out 8 of its 116",) if is_hpatches else ()
    )
    return Dataset(
        path.resolve().name, "homography", "homography folders", path, tuple(pairs), tuple(unusable), notes=notes
    )


LAYOUT = Layout(
    "homography folders",
    "homography",
    lambda path: bool(_scenes(path)),
    read_homography_folders,
    "folders with 1.ppm to 6.ppm and H_1_2 to H_1_6",
)
