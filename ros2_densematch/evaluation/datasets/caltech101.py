"""Caltech-101 with object outlines: how well labels are carried from one image to another (Kim et al., CVPR 2013).

`test_pairs.csv` (imageA, imageB, class, XA, YA, XB, YB; outlines separated by semicolons) with the images that it names
below the folder, as in weakalign's list. The mask of an object is the inside of its outline.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.evaluation.datasets.base import Dataset, DatasetError, LabelTruth, Layout, Pair
from ros2_densematch.evaluation.datasets.proposal_flow import find_image, find_list, read_rows, semicolons


def _list(path: Path) -> Path | None:
    found = find_list(path, ("test_pairs_caltech_with_category.csv", "test_pairs.csv"), "XA")
    if found is None:
        return None
    return found if "imageA" in (read_rows(found) or [{}])[0] else None


def read_caltech101(path: Path) -> Dataset:
    """All pairs; subsets are the classes.

    Raises:
        DatasetError: the list is missing.
    """
    file = _list(path)
    if file is None:
        raise DatasetError(f"{path} has no test_pairs.csv with columns imageA, imageB, class, XA, YA, XB, YB")
    pairs: list[Pair] = []
    unusable: list[tuple[str, str]] = []
    for number, row in enumerate(read_rows(file), 2):
        name = f"line {number}"
        try:
            first, second = (find_image(path, row[key]) for key in ("imageA", "imageB"))
            outlines = [semicolons(row[f"X{side}"], row[f"Y{side}"]) for side in "AB"]
            truth = LabelTruth(partial(_masks, [first, second], outlines))
            pairs.append(Pair(f"{first.stem}-{second.stem} {number}", row.get("class", ""), first, second, truth))
        except (DatasetError, KeyError, ValueError) as error:
            unusable.append((name, f"{file}, {name}: {error}"))
    return Dataset(path.resolve().name, "dense", "Caltech-101", path, tuple(pairs), tuple(unusable))


def _masks(images: list[Path], outlines: list[Float64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    first, second = (_mask(image, outline) for image, outline in zip(images, outlines, strict=True))
    return first, second


def _mask(image: Path, outline: Float64) -> NDArray[np.bool_]:
    found = cv2.imread(str(image), cv2.IMREAD_GRAYSCALE) if image.is_file() else None
    if found is None:
        raise DatasetError(f"there is no image {image}")
    mask = np.zeros(found.shape, np.uint8)
    cv2.fillPoly(mask, [np.round(outline).astype(np.int32)], 1)
    return np.asarray(mask > 0, np.bool_)


LAYOUT = Layout(
    "Caltech-101",
    "dense",
    lambda p: _list(p) is not None,
    read_caltech101,
    "test_pairs.csv with imageA, imageB, XA, YA",
)
