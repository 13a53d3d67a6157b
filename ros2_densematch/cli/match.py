"""`densematch match`: correspondences and relative pose of two images, of a list of pairs, or of a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ros2_densematch.cli.errors import InputError
from ros2_densematch.cli.folder_pairs import BLOCK, folder_images, folder_pairs
from ros2_densematch.cli.match_job import ENCODINGS_KEPT, MatchJob
from ros2_densematch.cli.options import (
    BackendOption,
    ConfigOption,
    DeviceOption,
    MatcherOption,
    OutOption,
    PresetOption,
    SetOption,
    WeightsOption,
    configured,
    matcher_of,
    output_folder,
)
from ros2_densematch.cli.pair_cameras import cameras_of_options
from ros2_densematch.cli.pair_masks import PairMasks
from ros2_densematch.cli.pairs import Pair, read_pairs
from ros2_densematch.files.shipped import sample_file

_FORMS = {"hloc": "hloc", "colmap": "database.db"}  # what is written in the folder of the results


def command(
    reference: Annotated[Path | None, typer.Argument(metavar="REF", help="Reference image.")] = None,
    query: Annotated[Path | None, typer.Argument(metavar="QUERY", help="Query image.")] = None,
    *,
    out: OutOption = Path("densematch-match"),
    pairs: Annotated[
        Path | None,
        typer.Option("--pairs", help="List with one pair per line: image0 image1 [K0(9) K1(9) [T_0to1(16)]]."),
    ] = None,
    root: Annotated[
        Path | None, typer.Option("--root", help="Folder of the list's images (default: the list's folder).")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder", help="Folder of images to match with each other; needs --window, --exhaustive or --retrieve."
        ),
    ] = None,
    window: Annotated[
        int | None, typer.Option("--window", min=1, help="Match each image of --folder with the next N.")
    ] = None,
    exhaustive: Annotated[
        bool, typer.Option("--exhaustive", help="Match each image of --folder with every other image.")
    ] = False,
    retrieve: Annotated[
        int | None,
        typer.Option("--retrieve", min=1, help="Match each image of --folder with the K most similar images."),
    ] = None,
    export: Annotated[
        str | None, typer.Option("--export", metavar="hloc|colmap", help="Also write the matches in this format.")
    ] = None,
    reference_camera: Annotated[
        Path | None,
        typer.Option(
            "--reference-camera", help="Calibration file of REF, or of all images of --folder (ROS, Kalibr, ...)."
        ),
    ] = None,
    query_camera: Annotated[
        Path | None, typer.Option("--query-camera", help="Calibration of QUERY (default: that of REF).")
    ] = None,
    intrinsics: Annotated[
        str | None, typer.Option("--K", help="Intrinsics of both images in pixels: fx,fy,cx,cy.", metavar="fx,fy,cx,cy")
    ] = None,
    fov: Annotated[
        float | None, typer.Option("--fov", help="Horizontal field of view of both images, in degrees.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option("--mask", help="Mask image of the images' size; black pixels are not matched.")
    ] = None,
    reference_mask: Annotated[
        Path | None, typer.Option("--reference-mask", help="Mask of the reference images, if different from --mask.")
    ] = None,
    config: ConfigOption = None,
    matcher: MatcherOption = None,
    preset: PresetOption = None,
    device: DeviceOption = None,
    backend: BackendOption = None,
    weights: WeightsOption = None,
    assignments: SetOption = None,
    max_matches: Annotated[
        int | None, typer.Option("--max-matches", min=1, help="Maximum number of matches per pair.")
    ] = None,
    pictures: Annotated[
        bool | None,
        typer.Option("--pictures/--no-pictures", help="Write a picture of each pair (default: not for --folder)."),
    ] = None,
    fail_on_empty: Annotated[
        bool, typer.Option("--fail-on-empty", help="Exit with code 3 if a pair has no reliable match.")
    ] = False,
) -> int:
    """Match two images (REF QUERY), a list of pairs (--pairs) or a folder of images (--folder), with relative poses
    where cameras are known. A list or a folder that was stopped goes on with the same command."""
    if export is not None and export not in _FORMS:
        raise InputError(f"--export {export}: choose {' or '.join(_FORMS)}")
    if folder is None and (window is not None or exhaustive or retrieve is not None):
        raise InputError("--window, --exhaustive and --retrieve choose pairs of --folder: give one of them")
    if folder is not None:
        if reference is not None or pairs is not None:
            raise InputError(f"--folder {folder} was given together with images or --pairs: give one of them")
        images = folder_images(folder)
    elif pairs is None:
        if reference is None or query is None:
            raise InputError("give two images (REF QUERY), a list of pairs (--pairs FILE) or a --folder of images")
        reference, query = sample_file(reference), sample_file(query)
        for file in (reference, query):
            if not file.is_file():
                raise FileNotFoundError(f"there is no image {file}: check the path")
        wanted = [Pair(0, 0, reference, query)]
    else:
        if reference is not None:
            raise InputError(f"both an image ({reference}) and --pairs were given: give one of the two")
        if reference_camera is not None or query_camera is not None:
            raise InputError("the cameras of a list of pairs are K0 and K1 of its lines: omit the --...-camera options")
        wanted = read_pairs(pairs, root or pairs.parent)
    cameras = cameras_of_options(reference_camera, query_camera, intrinsics, fov)
    masks = PairMasks(mask, reference_mask)
    chosen = configured(config, matcher, preset, device, weights, assignments, backend=backend)
    results = output_folder(out)
    built = matcher_of(chosen)
    if folder is not None:
        wanted = folder_pairs(images, built, masks, window=window, exhaustive=exhaustive, retrieve=retrieve)
    job = MatchJob(
        configuration=chosen,
        matcher=built,
        cameras=cameras,
        masks=masks,
        max_matches=max_matches,
        folder=results,
        single=folder is None and pairs is None,
        fail_on_empty=fail_on_empty,
        exported=() if export is None else (_FORMS[export],),
        encodings_kept=ENCODINGS_KEPT if folder is None else 2 * BLOCK + 2,
    )
    code = job.run(wanted, folder is None if pictures is None else pictures)
    if export is not None and job.files:
        _export(results, export, folder or root)
    return code


def _export(results: Path, form: str, root: Path | None) -> None:
    from ros2_densematch.io.exports.keypoints import merge_keypoints
    from ros2_densematch.io.exports.matched_pairs import read_matched_pairs

    keypoints, pairs = merge_keypoints(read_matched_pairs(results, root))
    if form == "hloc":
        from ros2_densematch.io.exports.hloc import write_hloc

        where = results / _FORMS[form]
        write_hloc(output_folder(where), keypoints, pairs)
    else:
        from ros2_densematch.io.exports.colmap import write_colmap

        where = results / _FORMS[form]
        write_colmap(where, keypoints, pairs)
    print(f"{len(keypoints)} images, {len(pairs)} pairs for {form}: {where}")
