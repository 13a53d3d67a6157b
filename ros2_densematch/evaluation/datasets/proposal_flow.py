"""Proposal Flow (Ham et al., CVPR 2016 and PAMI 2018): key points of objects of one category.

PF-Pascal: `test_pairs.csv` (source_image, target_image, class, XA, YA, XB, YB; points separated by semicolons),
images in the paths that it names, below the folder. alpha multiplies the larger side of the query image.
PF-Willow: `test_pairs_pf.csv` or `test_pairs.csv` (imageA, imageB, XA, YA, XB, YB; ten columns of points each). alpha
multiplies the larger side of the box around the query's key points.
"""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.evaluation.datasets.base import Dataset, DatasetError, KeypointTruth, Layout, Pair

PASCAL_RULE = "larger side of the query image"
WILLOW_RULE = "larger side of the box around the query's key points"
_WILLOW_POINTS = 10


def _pascal(path: Path) -> Path | None:
    return find_list(path, ("test_pairs_pf_pascal.csv", "test_pairs.csv"), "source_image")


def _willow(path: Path) -> Path | None:
    return find_list(path, ("test_pairs_pf.csv", "test_pairs.csv"), "XA1")


def find_list(path: Path, names: tuple[str, ...], column: str) -> Path | None:
    """The first of some CSV files, in a folder or its image_pairs/, that has a column."""
    places = [p for name in names for p in (path / name, path / "image_pairs" / name)]
    for place in places if path.is_dir() else ():
        if place.is_file():
            with place.open(encoding="utf-8", errors="replace") as stream:
                if column in next(csv.reader(stream), []):
                    return place
    return None


def read_pascal(path: Path) -> Dataset:
    """All pairs; subsets are the classes.

    Raises:
        DatasetError: the list is missing.
    """
    file = _pascal(path)
    if file is None:
        raise DatasetError(
            f"{path} has no test_pairs.csv with columns source_image, target_image, class, XA, YA, XB, YB"
        )
    pairs: list[Pair] = []
    unusable: list[tuple[str, str]] = []
    for number, row in enumerate(read_rows(file), 2):
        name = f"line {number}"
        try:
            first, second = (find_image(path, row[key]) for key in ("source_image", "target_image"))
            points = [semicolons(row[f"X{side}"], row[f"Y{side}"]) for side in "AB"]
            truth = KeypointTruth(points[0], _same(points), _larger_side(second), PASCAL_RULE)
            pairs.append(Pair(f"{first.stem}-{second.stem} {number}", row.get("class", ""), first, second, truth))
        except (DatasetError, KeyError, ValueError) as error:
            unusable.append((name, f"{file}, {name}: {error}"))
    return Dataset(path.resolve().name, "dense", "PF-Pascal", path, tuple(pairs), tuple(unusable))


def read_willow(path: Path) -> Dataset:
    """All pairs; subsets are the folders of the images.

    Raises:
        DatasetError: the list is missing.
    """
    file = _willow(path)
    if file is None:
        raise DatasetError(f"{path} has no test_pairs_pf.csv with columns imageA, imageB, XA1 to YB10")
    pairs: list[Pair] = []
    unusable: list[tuple[str, str]] = []
    for number, row in enumerate(read_rows(file), 2):
        name = f"line {number}"
        try:
            first, second = (find_image(path, row[key]) for key in ("imageA", "imageB"))
            points = [
                np.array([[float(row[f"{axis}{side}{k + 1}"]) for axis in "XY"] for k in range(_WILLOW_POINTS)])
                for side in "AB"
            ]
            length = float(np.ptp(points[1], axis=0).max())
            truth = KeypointTruth(points[0], points[1], length, WILLOW_RULE)
            pairs.append(Pair(f"{first.stem}-{second.stem} {number}", first.parent.name, first, second, truth))
        except (DatasetError, KeyError, ValueError) as error:
            unusable.append((name, f"{file}, {name}: {error}"))
    return Dataset(path.resolve().name, "dense", "PF-Willow", path, tuple(pairs), tuple(unusable))


def read_rows(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file by the names in its first line."""
    with file.open(newline="", encoding="utf-8", errors="replace") as stream:
        return list(csv.DictReader(stream))


def find_image(root: Path, name: str) -> Path:
    """The image that a list names; lists begin with folders that a download may not have."""
    parts = Path(name).parts
    places = [root.joinpath(*parts[k:]) for k in range(len(parts))]
    return next((place for place in places if place.is_file()), places[0])


def semicolons(x: str, y: str) -> Float64:
    """Points (N, 2) from two lists of numbers that are separated by semicolons.

    Raises:
        DatasetError: the lists are empty or of different lengths.
    """
    columns = [[float(v) for v in text.split(";") if v.strip()] for text in (x, y)]
    if len(columns[0]) != len(columns[1]) or not columns[0]:
        raise DatasetError(f"{len(columns[0])} x and {len(columns[1])} y of key points")
    return np.asarray(np.array(columns, np.float64).T, np.float64)


def _same(points: list[Float64]) -> Float64:
    if len(points[0]) != len(points[1]):
        raise DatasetError(f"{len(points[0])} key points in one image and {len(points[1])} in the other")
    return points[1]


def _larger_side(image: Path) -> float:
    found = cv2.imread(str(image), cv2.IMREAD_GRAYSCALE) if image.is_file() else None
    if found is None:
        raise DatasetError(f"there is no image {image}")
    return float(max(found.shape))


PASCAL = Layout(
    "PF-Pascal", "dense", lambda p: _pascal(p) is not None, read_pascal, "test_pairs.csv with XA, YA, XB, YB"
)
WILLOW = Layout(
    "PF-Willow", "dense", lambda p: _willow(p) is not None, read_willow, "test_pairs_pf.csv with XA1 to YB10"
)
