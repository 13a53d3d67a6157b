"""WxBS-style two-view sets: two images and hand-marked correspondences, without cameras.

CATEGORY/PAIR/ (or PAIR/) with `01.png` and `02.png` (or img1, img2; .png, .jpg) and `corrs.txt`: a line `x0 y0 x1 y1`.
Mishkin et al., "WxBS: wide baseline stereo generalizations", BMVC 2015.
"""

from __future__ import annotations

from pathlib import Path

from ros2_densematch.evaluation.datasets.base import (
    Dataset,
    DatasetError,
    EpipolarTruth,
    Layout,
    Pair,
    matrix_of,
    read_lines,
)

_POINTS = "corrs.txt"
_LEAST = 8  # points of a fundamental matrix
_STEMS = (("01", "02"), ("1", "2"), ("img1", "img2"))
_SUFFIXES = (".png", ".jpg", ".jpeg", ".ppm")


def _folders(path: Path) -> list[Path]:
    return sorted({f.parent for f in path.rglob(_POINTS)}) if path.is_dir() else []


def _images(folder: Path) -> tuple[Path, Path]:
    for first, second in _STEMS:
        for suffix in _SUFFIXES:
            if (folder / f"{first}{suffix}").is_file():
                others = [folder / f"{second}{s}" for s in _SUFFIXES]
                return folder / f"{first}{suffix}", next((f for f in others if f.is_file()), others[0])
    return folder / "01.png", folder / "02.png"


def read_wxbs(path: Path) -> Dataset:
    """All pairs; the subset is the category, the folder above.

    Raises:
        DatasetError: no folder has this form.
    """
    folders = _folders(path)
    if not folders:
        raise DatasetError(f"{path} holds no pair with {_POINTS}, 01.png and 02.png")
    pairs, unusable = [], []
    for folder in folders:
        name = str(folder.relative_to(path)) if folder != path else folder.name
        subset = folder.parent.name if folder.parent != path and folder != path else ""
        lines = read_lines(folder / _POINTS)
        try:
            words = [word for _, line in lines for word in line.replace(",", " ").split()]
            points = matrix_of(words, len(lines), 4, str(folder / _POINTS))
            if len(points) < _LEAST:
                raise DatasetError(f"{folder / _POINTS}: {len(points)} correspondences, at least {_LEAST} are needed")
        except DatasetError as error:
            unusable.append((name, str(error)))
            continue
        pairs.append(Pair(name, subset, *_images(folder), EpipolarTruth(points[:, :2], points[:, 2:])))
    return Dataset(path.resolve().name, "pose", "WxBS", path, tuple(pairs), tuple(unusable))


LAYOUT = Layout("WxBS", "pose", lambda path: bool(_folders(path)), read_wxbs, "PAIR/01.png, 02.png, corrs.txt")
