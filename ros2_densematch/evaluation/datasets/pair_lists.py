"""Lists of pose pairs in text: `pairs.txt` (36 fields a line) and SuperGlue's form (38 fields, with EXIF turns).

A folder with one list, a folder of such folders, or the list itself. SuperGlue's lists exist for ScanNet-1500, YFCC100M
and Phototourism (`*_pairs_with_gt.txt`): `image0 image1 turns0 turns1 K0(9) K1(9) T_0to1(16)`; images lie in the folder
of the list or in one of its subfolders.
"""

from __future__ import annotations

from pathlib import Path

from ros2_densematch.evaluation.datasets.base import (
    Dataset,
    DatasetError,
    Layout,
    Pair,
    PoseTruth,
    check_intrinsics,
    check_pose,
    matrix_of,
    read_lines,
)

OURS, SUPERGLUE = "pairs.txt", "*_with_gt.txt"
_IMAGE_FOLDERS = (".", "images", "raw_images", "scannet_test_1500", "yfcc100m", "assets")


def _lists(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix == ".txt" else []
    for folder in (path, path / "pose_pairs"):
        if (folder / OURS).is_file():
            return [folder / OURS]
        found = sorted(folder.glob(SUPERGLUE)) or sorted(folder.glob(f"*/{OURS}"))
        if found:
            return found
    return []


def _recognises(path: Path) -> bool:
    lists = _lists(path)
    return bool(lists) and any(len(line.split()) in (36, 38) for _, line in read_lines(lists[0])[:1])


def read_pair_lists(path: Path) -> Dataset:
    """All pairs of all lists; a line that cannot be used is unusable, by its number.

    Raises:
        DatasetError: there is no list, or no pair in any.
    """
    pairs: list[Pair] = []
    unusable: list[tuple[str, str]] = []
    for file in _lists(path):
        subset = file.parent.name if file.name == OURS else file.stem
        for number, line in read_lines(file):
            name = f"{subset}/{number}"
            try:
                pairs.append(_pair(line, file, name, subset))
            except DatasetError as error:
                unusable.append((name, str(error)))
    if not pairs and not unusable:
        raise DatasetError(f"{path} lists no pair: a line is `image0 image1 K0(9) K1(9) T_0to1(16)`")
    return Dataset(path.resolve().name, "pose", "pair lists", path, tuple(pairs), tuple(unusable))


def _pair(line: str, file: Path, name: str, subset: str) -> Pair:
    words, where = line.split(), f"{file}, line {name.rpartition('/')[2]}"
    if len(words) not in (36, 38):
        raise DatasetError(f"{where}: {len(words)} fields, but 36 (or 38 with EXIF turns) are expected")
    turns = (0, 0)
    if len(words) == 38:
        if not all(word.lstrip("-").isdigit() for word in words[2:4]):
            raise DatasetError(f"{where}: the EXIF turns {words[2]} {words[3]} are no whole numbers")
        turns = int(words[2]) % 4, int(words[3]) % 4
    numbers = words[-34:]
    return Pair(
        name,
        subset,
        _image(file.parent, words[0]),
        _image(file.parent, words[1]),
        PoseTruth(
            check_intrinsics(matrix_of(numbers[:9], 3, 3, where), where),
            check_intrinsics(matrix_of(numbers[9:18], 3, 3, where), where),
            check_pose(matrix_of(numbers[18:], 4, 4, where), where),
        ),
        turns,
    )


def _image(folder: Path, name: str) -> Path:
    """The image; where it does not exist the first place, so that the message about it names that."""
    places = [folder / sub / name for sub in _IMAGE_FOLDERS]
    return next((place for place in places if place.is_file()), places[0])


LAYOUT = Layout(
    "pair lists",
    "pose",
    _recognises,
    read_pair_lists,
    f"{OURS} (image0 image1 K0 K1 T_0to1), or SuperGlue's {SUPERGLUE}",
)
