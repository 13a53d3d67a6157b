"""Features and matches as hloc keeps them: two HDF5 files.

Form: `features.h5` has a group for every image with keypoints (K, 2), scores (K,) and image_size; `matches.h5` a group
`NAME0/NAME1` (slashes in names become dashes) with matches0 (K0,), -1 = none, and matching_scores0 (K0,). hloc counts
pixels from the centre of the top-left one, as this project does.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ros2_densematch.files.atomic import refuse_full_disk, replacing
from ros2_densematch.files.results_folder import make_room
from ros2_densematch.io.exports.keypoints import IndexedPair, Keypoints

_FILES = ("features.h5", "matches.h5", "pairs.txt")
_OVERHEAD = 4096  # bytes of a group with its arrays in HDF5, at most
_CREATOR = "densematch"  # an attribute by which a later export knows its own files


def write_hloc(folder: Path, keypoints: dict[str, Keypoints], pairs: Sequence[IndexedPair]) -> list[str]:
    """Writes features.h5, matches.h5 and pairs.txt into an existing folder; returns their names.

    Raises:
        ModuleNotFoundError: h5py is not installed.
        ForeignFileError: one of these files exists and is no earlier export; nothing was written.
        OSError: the disk has no room for them.
    """
    h5py = import_module("h5py")
    make_room(folder, _FILES, ours=_is_export(folder / _FILES[0], h5py))
    # HDF5 dies of a segmentation fault where it cannot write: the room is looked at first.
    sizes = [points.xy.nbytes + points.score.nbytes for points in keypoints.values()]
    sizes += [6 * len(keypoints[pair.pair.reference].xy) for pair in pairs]
    refuse_full_disk(folder / _FILES[0], needed=sum(sizes) + _OVERHEAD * (len(sizes) + 8))
    with replacing(folder / _FILES[0]) as path, h5py.File(path, "w") as file:
        file.attrs["creator"] = _CREATOR
        for name, points in keypoints.items():
            group = file.create_group(name)
            group.create_dataset("keypoints", data=points.xy)
            group.create_dataset("scores", data=points.score)
            group.create_dataset("image_size", data=np.array(points.size, np.int64))
    with replacing(folder / _FILES[1]) as path, h5py.File(path, "w") as file:
        for pair in pairs:
            count = len(keypoints[pair.pair.reference].xy)
            matches, scores = np.full(count, -1, np.int32), np.zeros(count, np.float16)
            matches[pair.index[:, 0]], scores[pair.index[:, 0]] = pair.index[:, 1], pair.score
            group = file.create_group("/".join(n.replace("/", "-") for n in (pair.pair.reference, pair.pair.query)))
            group.create_dataset("matches0", data=matches)
            group.create_dataset("matching_scores0", data=scores)
    with replacing(folder / _FILES[2]) as path:
        path.write_text("".join(f"{p.pair.reference} {p.pair.query}\n" for p in pairs), "utf-8")
    return list(_FILES)


def _is_export(features: Path, h5py: Any) -> bool:
    try:
        with h5py.File(features) as file:
            return bool(file.attrs.get("creator") == _CREATOR)
    except OSError:
        return False
