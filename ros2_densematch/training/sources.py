"""From the sources of a recipe to sources of pairs, and from a folder of any kind to the source that fits it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ros2_densematch.io.sources.folder import SUFFIXES as IMAGE_SUFFIXES
from ros2_densematch.io.sources.storage import is_bag
from ros2_densematch.io.sources.video import SUFFIXES as VIDEO_SUFFIXES
from ros2_densematch.training.csv_pairs import CsvPairs
from ros2_densematch.training.homography_pairs import HomographyConfig, HomographyPairs
from ros2_densematch.training.megadepth_pairs import MegaDepthPairs
from ros2_densematch.training.multiview_pairs import MultiviewPairs
from ros2_densematch.training.recipe import (
    AnySource,
    BagSource,
    MegaDepthSource,
    MultiviewSource,
    PairsCsvSource,
    PhotosSource,
    Recipe,
    ScanNetSource,
    ScenesSource,
)
from ros2_densematch.training.recording import Recording
from ros2_densematch.training.recording_pairs import BagConfig, RecordingPairs
from ros2_densematch.training.run_files import fingerprint
from ros2_densematch.training.sample import ImageStore, PairSource, Part, TrainingDataError
from ros2_densematch.training.scannet_pairs import ScanNetPairs
from ros2_densematch.training.scene_jobs import render_missing
from ros2_densematch.training.scene_pairs import ScenePairs

# (what goes on, done, in all, note)
Progress = Callable[[str, int, int, str], None]


def fit_to_data(recipe: Recipe, data: Path) -> tuple[Recipe, str]:
    """A recipe whose sources can be found, and one sentence about what was changed ("" = nothing).

    The folders that a recipe names lie below `data`, or are `data` itself (`.`). Where none of them is there, `data`
    itself is looked at: a recording, a MegaDepth or ScanNet copy, photo sets, scenes, a CSV file of pairs, or photos.
    It then takes the place of all sources.

    Raises:
        FileNotFoundError: `data` does not exist, or some of the recipe's folders are missing and others are there.
        ValueError: `data` is none of these.
    """
    if not data.exists():
        raise FileNotFoundError(f"no data folder {data}: give the folder with the training data as --data")
    folders = [data / s.folder for s in recipe.data.sources]
    missing = [data / s.folder for s in recipe.data.sources if not _is_there(s, data)]
    if not missing:
        return recipe, ""
    if len(missing) < len(folders):
        raise FileNotFoundError(
            f"training data is missing: {', '.join(str(f) for f in missing)}: put it there, or take the source out of "
            f"the recipe {recipe.name}"
        )
    source = _recognise(data, recipe)
    if source is None:
        wanted = ", ".join(s.folder.as_posix() for s in recipe.data.sources)
        raise ValueError(
            f"{data} holds none of the recipe's folders ({wanted}) and is no recording, MegaDepth or ScanNet copy, "
            "photo sets, scenes, CSV file of pairs, or folder with photos in it: check --data, or say folder: . in the "
            "recipe for photos at any depth"
        )
    same = next((s for s in recipe.data.sources if s.kind == source.kind), None)
    if same is not None:  # the recipe's settings for data of this kind, wherever it lies
        source = same.model_copy(update={"folder": Path(".")})
    changed = recipe.model_copy(update={"data": recipe.data.model_copy(update={"sources": [source]})})
    return changed, f"{data} is taken as the only source, of the kind `{source.kind}`, in place of the recipe's sources"


def _is_there(source: AnySource, data: Path) -> bool:
    folder = data / source.folder
    if isinstance(source, PhotosSource) and source.folder == Path("."):
        # "whatever --data is": a bag or a video holds frames, but no image files
        return data.is_dir() and not is_bag(data) and _holds_images(data)
    return folder.exists()


def _holds_images(folder: Path) -> bool:
    return any(p.suffix.lower() in IMAGE_SUFFIXES for p in folder.rglob("*"))


def _recognise(data: Path, recipe: Recipe) -> AnySource | None:
    here = Path(".")
    photos = next((s.settings for s in recipe.data.sources if isinstance(s, PhotosSource)), HomographyConfig())
    if data.suffix.lower() == ".csv":
        return PairsCsvSource(kind="pairs_csv", weight=1, folder=here)
    recorded = is_bag(data) or data.suffix.lower() in VIDEO_SUFFIXES or (data / "frames.csv").is_file()
    if recorded:
        return BagSource(kind="bag", weight=1, folder=here, settings=BagConfig(homography=photos))
    if not data.is_dir():
        return None
    if (data / "prep_scene_info").is_dir():
        return MegaDepthSource(kind="megadepth", weight=1, folder=here)
    if (data / "scannet_indices").is_dir():
        return ScanNetSource(kind="scannet", weight=1, folder=here)
    if any(data.glob("*/tracks.npz")):
        return MultiviewSource(kind="multiview", weight=1, folder=here)
    if any((data / "scenes").glob("*.glb")):
        return ScenesSource(kind="scenes", weight=1, folder=here)
    # Images farther below may be anything, the ones that are measured on among them: `folder: .` asks for them.
    if any(f.suffix.lower() in IMAGE_SUFFIXES for f in data.iterdir()):
        return PhotosSource(kind="photos", weight=1, folder=here, settings=photos)
    return None


def open_sources(
    recipe: Recipe,
    data: Path,
    out: Path,
    report: Progress,
    *,
    part: Part | None = None,
    primary: bool = True,
    recordings: dict[str, Recording] | None = None,
) -> list[tuple[PairSource, float]]:
    """Opens the sources of a recipe.

    Args:
        recipe: what is trained.
        data: folder of the training data, or the one file that it is.
        out: output folder, for what sources keep.
        report: told about rendering and matching.
        part: the part of each source to draw from.
        primary: whether this process renders what is missing.
        recordings: those that were read already; new ones are added.

    Returns:
        Sources with their weights; with a held-out part only those that have one.

    Raises:
        TrainingDataError: a source is empty or damaged.
    """
    store = ImageStore()
    part = part or Part(share=0.0 if recipe.validation is None else recipe.validation.share)
    known = {} if recordings is None else recordings
    opened = [(_open(s, recipe, data, out, report, store, part, primary, known), s.weight) for s in recipe.data.sources]
    return [(source, weight) for source, weight in opened if source is not None]


def _open(
    source: AnySource,
    recipe: Recipe,
    data: Path,
    out: Path,
    report: Progress,
    store: ImageStore,
    part: Part,
    primary: bool,
    recordings: dict[str, Recording],
) -> PairSource | None:
    folder = data / source.folder
    opened: PairSource
    if isinstance(source, PhotosSource):
        opened = HomographyPairs(folder, config=source.settings, store=store, part=part)
    elif isinstance(source, MultiviewSource):
        return None if part.held_out else MultiviewPairs(folder, config=source.settings, store=store)
    elif isinstance(source, ScenesSource):
        cache = source.cache or out / "scenes"
        if primary:
            render_missing(
                folder, cache, source.render, source.processes, lambda done, total: report("render", done, total, "")
            )
        opened = ScenePairs(cache, config=source.settings, groups=source.render.groups, part=part)
    elif isinstance(source, MegaDepthSource):
        opened = MegaDepthPairs(folder, config=source.settings, part=part)
    elif isinstance(source, ScanNetSource):
        opened = ScanNetPairs(folder, config=source.settings, part=part)
    elif isinstance(source, PairsCsvSource):
        opened = CsvPairs(folder, config=source.settings, store=store, part=part)
    else:
        key = fingerprint([folder.resolve().as_posix(), source.settings.recording.model_dump(mode="json")])
        labels = fingerprint([key, source.settings.neighbours.model_dump(mode="json")])[:16]
        pairs = RecordingPairs(
            folder,
            config=source.settings,
            part=part,
            # what is held out is only measured on, and that needs dense truth
            dense=recipe.data.dense or part.held_out,
            cache=source.cache or out / "labels" / labels,
            on_progress=lambda done, total: report("label", done, total, ""),
            recording=recordings.get(key),
        )
        recordings[key] = pairs.recording
        opened = pairs
    if len(opened) == 0 and not part.held_out:
        raise TrainingDataError(f"training source {source.kind} in {folder} is empty once validation has its share")
    return opened if len(opened) else None


def problems(sources: Sequence[tuple[PairSource, float]]) -> list[str]:
    """What could not be used when the sources were opened."""
    return [problem for source, _ in sources for problem in getattr(source, "problems", [])]
