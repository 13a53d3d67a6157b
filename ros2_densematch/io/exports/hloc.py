"""Features and matches as hloc keeps them: two HDF5 files.

Form: `features.h5` has a group for every image with keypoints (K, 2), scores (K,) and image_size; `matches.h5` a group
`NAME0/NAME1` (slashes in names become dashes) with matches0 (K0,), -1 = none, and matching_scores0 (K0,). hloc counts
pixels from the centre of the top-left one, as this project does.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np

from ros2_densematch.files.atomic import replacing
from ros2_densematch.io.exports.keypoints import IndexedPair, Keypoints


def write_hloc(folder: Path, keypoints: dict[str, Keypoints], pairs: Sequence[IndexedPair]) -> list[str]:
    """Writes features.h5, matches.h5 and pairs.txt into an existing folder; returns their names.

    Raises:
        ModuleNotFoundError: h5py is not installed.
    """
    h5py = import_module("h5py")
    with replacing(folder / "features.h5") as path, h5py.File(path, "w") as file:
        for name, points in keypoints.items():
            group = file.create_group(name)
            group.create_dataset("keypoints", data=points.xy)
            group.create_dataset("scores", data=points.score)
            group.create_dataset("image_size", data=np.array(points.size, np.int64))
    with replacing(folder / "matches.h5") as path, h5py.File(path, "w") as file:
        for pair in pairs:
            count = len(keypoints[pair.pair.reference].xy)
            matches, scores = np.full(count, -1, np.int32), np.zeros(count, np.float16)
            matches[pair.index[:, 0]], scores[pair.index[:, 0]] = pair.index[:, 1], pair.score
            group = file.create_group("/".join(n.replace("/", "-") for n in (pair.pair.reference, pair.pair.query)))
            group.create_dataset("matches0", data=matches)
            group.create_dataset("matching_scores0", data=scores)
    with replacing(folder / "pairs.txt") as path:
        path.write_text("".join(f"{p.pair.reference} {p.pair.query}\n" for p in pairs), "utf-8")
    return ["features.h5", "matches.h5", "pairs.txt"]
