"""Compares the matches of two checkouts bit by bit: gcm, sift and condl on ten pairs of the development data.

    python benchmarks/compare_matches.py ../before
    python benchmarks/compare_matches.py ../before --matchers gcm --presets turbo precise

The pairs: two views of each kind of scene, turned and zoomed views, blur, grey images, and one pair with a mask.
`overlap` is printed, not compared.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from compare_checkouts import HERE, run_in
from numpy.typing import NDArray
from PIL import Image as PilImage

MATCHERS = ("gcm", "sift", "condl")
COMPARED = ("reference_xy", "query_xy", "score", "precision", "warp_xy", "warp_certainty")
_SIDE = 640
# below `data/`; of the last pair the left third of the reference is masked
_PAIRS = (
    ("pose_pairs/scannet", 0),
    ("pose_pairs/strecha_fountain", 3),
    ("pose_pairs/strecha_herzjesu", 20),
    ("pose_pairs/lund_door", 5),
    ("pose_pairs/hololens_wide", 10),
    ("homography/bark", 4),
    ("homography/graf", 5),
    ("homography/bikes", 4),
    ("sequences/kitti_a", 6),
    ("sequences/tum_fr1_rpy", 3),
)


def pairs(data: Path) -> Iterator[tuple[str, Path, Path]]:
    """Name and the two image files of each pair."""
    for folder, index in _PAIRS:
        where = data / folder
        if folder.startswith("pose_pairs"):
            lines = [x for x in (where / "pairs.txt").read_text("utf-8").splitlines() if x and not x.startswith("#")]
            first, second = (where / name for name in lines[index].split()[:2])
        elif folder.startswith("homography"):
            first, second = (where / f"{i}.png" for i in (1, index))
        else:
            lines = (where / "frames.csv").read_text("utf-8").splitlines()[1:]
            first, second = (where / lines[i].split(",")[2] for i in (0, index))
        yield f"{where.name}_{index}", first, second


def load(path: Path) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) or (H, W), the longer side at most 640 pixels."""
    image = PilImage.open(path)
    image.thumbnail((_SIDE, _SIDE), PilImage.Resampling.LANCZOS)
    return np.array(image)


def write(out: Path, data: Path, matchers: list[str], presets: list[str]) -> None:
    """Matches all pairs with the package that is imported, and writes one npz a match."""
    import cv2
    import torch

    from ros2_densematch import load_matcher

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for name in matchers:
        for preset in presets if name != "sift" else ["base"]:
            matcher = load_matcher(name, device="cpu", preset=preset)
            for index, (pair, first, second) in enumerate(pairs(data)):
                images = load(first), load(second)
                mask = None
                if index == len(_PAIRS) - 1:
                    mask = np.ones(images[0].shape[:2], np.bool_)
                    mask[:, : mask.shape[1] // 3] = False
                reference = matcher.encode(images[0], reference=True, mask=mask)
                found = matcher.match(reference, matcher.encode(images[1]))
                arrays: dict[str, Any] = {
                    "reference_xy": found.reference_xy,
                    "query_xy": found.query_xy,
                    "score": found.score,
                    "overlap": np.float64(found.overlap),
                }
                if found.precision is not None:
                    arrays["precision"] = found.precision
                if found.warp is not None:
                    arrays["warp_xy"], arrays["warp_certainty"] = found.warp.xy, found.warp.certainty
                np.savez(out / f"{name}_{preset}_{pair}.npz", **arrays)


def differences(before: Path, after: Path) -> list[str]:
    """Prints a line a match, and gives the names of those that are not identical."""
    differing = []
    for file in sorted(before.glob("*.npz")):
        old, new = np.load(file), np.load(after / file.name)
        wrong = [
            f"{name}: {_difference(old, new, name)}"
            for name in COMPARED
            if (name in old) != (name in new) or (name in old and not np.array_equal(old[name], new[name]))
        ]
        overlaps = f"overlap {float(old['overlap']):.3f} -> {float(new['overlap']):.3f}"
        print(f"{file.stem:32} {len(new['score']):5} matches, {overlaps}  {'; '.join(wrong) or 'identical'}")
        differing += [file.stem] if wrong else []
    return differing


def _difference(old: Any, new: Any, name: str) -> str:
    if name not in old or name not in new:
        return f"only {'before' if name in old else 'after'}"
    a, b = old[name], new[name]
    if a.shape != b.shape:
        return f"shape {a.shape} -> {b.shape}"
    return f"{int((a != b).sum())} of {a.size} values differ, by at most {float(np.abs(a - b).max()):.3g}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("--after", type=Path, default=HERE.parent, help="default: this checkout")
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--matchers", nargs="+", default=list(MATCHERS))
    parser.add_argument("--presets", nargs="+", default=["base"])
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write is not None:
        write(arguments.write, arguments.data, arguments.matchers, arguments.presets)
        return 0
    if not arguments.data.is_dir():
        parser.error(f"there is no development data in {arguments.data}: name its folder with --data")
    options = ["--data", str(arguments.data), "--matchers", *arguments.matchers, "--presets", *arguments.presets]
    with tempfile.TemporaryDirectory() as folder:
        written = []
        for label, checkout in (("before", arguments.before), ("after", arguments.after)):
            out = Path(folder, label)
            out.mkdir()
            run_in(checkout, Path(__file__), str(checkout), "--write", str(out), *options)
            written.append(out)
        differing = differences(*written)
    print(f"{len(differing)} matches differ" if differing else "all matches are identical")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
