"""The pairs of a folder of images for `densematch match --folder`: neighbours, all, or those that look alike."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ros2_densematch.cli.errors import InputError
from ros2_densematch.cli.pair_masks import PairMasks
from ros2_densematch.cli.pairs import Pair
from ros2_densematch.cli.progress import progress_counter

if TYPE_CHECKING:
    from ros2_densematch.matchers.base import Matcher

BLOCK = 8  # images whose encodings are used together


def folder_images(folder: Path) -> list[Path]:
    """The images of a folder and of its subfolders, in natural order of their names.

    Raises:
        FileNotFoundError: there is no such folder.
        InputError: it holds fewer than two images.
    """
    from ros2_densematch.io.sources.folder import SUFFIXES, natural_key

    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: check --folder")
    found = [p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()]
    if len(found) < 2:
        raise InputError(f"--folder {folder} holds {len(found)} images ({', '.join(SUFFIXES)}): at least 2 are needed")
    return sorted(found, key=lambda path: natural_key(path.relative_to(folder).as_posix()))


def folder_pairs(
    images: list[Path],
    matcher: Matcher,
    masks: PairMasks,
    *,
    window: int | None,
    exhaustive: bool,
    retrieve: int | None,
) -> list[Pair]:
    """The pairs to match.

    Args:
        images: in their order.
        matcher, masks: make the encodings for `retrieve`.
        window: each image with so many that follow it.
        exhaustive: each image with each other one.
        retrieve: each image with so many that look most like it.

    Raises:
        InputError: none or several of the three were given.
        ValueError: the matcher's encodings hold no descriptors (`retrieve`).
    """
    if sum((window is not None, exhaustive, retrieve is not None)) != 1:
        raise InputError("--folder needs one of --window N, --exhaustive and --retrieve K")
    count = len(images)
    problems: list[tuple[Path, str]] = []
    if retrieve is not None:
        chosen: Iterable[tuple[int, int]] = _alike(images, matcher, masks, retrieve, problems)
    else:
        reach = count if window is None else window
        chosen = ((i, j) for i in range(count) for j in range(i + 1, min(i + reach, count - 1) + 1))
    # block by block: an image's encoding is used again while it is in memory
    in_blocks = sorted(chosen, key=lambda pair: (pair[0] // BLOCK, pair[1] // BLOCK, pair))
    pairs = [Pair(k, 0, images[i], images[j]) for k, (i, j) in enumerate(in_blocks)]
    return pairs + [Pair(len(pairs) + k, 0, path, path, problem=why) for k, (path, why) in enumerate(problems)]


def _alike(
    images: list[Path], matcher: Matcher, masks: PairMasks, count: int, problems: list[tuple[Path, str]]
) -> list[tuple[int, int]]:
    """Pairs of images that look alike; what cannot be read goes to `problems`."""
    import numpy as np

    from ros2_densematch.files.exif import read_exif
    from ros2_densematch.geometry.orientation import turned_picture
    from ros2_densematch.io.sources.files import read_image
    from ros2_densematch.matchers.retrieval import local_descriptors, nearest_pairs, pooled
    from ros2_densematch.messages.image import ImageDecodeError

    sets = []
    with progress_counter("look", len(images), "image") as counter:
        for path in images:
            try:
                stored, turn = read_image(path), read_exif(path).orientation
                mask = masks.of(path, (stored.shape[1], stored.shape[0]), turn, reference=False)
            except (ImageDecodeError, InputError) as error:
                problems.append((path, str(error)))
                sets.append(np.zeros((0, 1), np.float32))
            else:
                sets.append(local_descriptors(matcher.encode(turned_picture(stored, turn), mask=mask)))
            counter.advance()
    return nearest_pairs(pooled(sets), count)
