"""`densematch export`: results in the forms that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ros2_densematch.cli.errors import DONE, InputError
from ros2_densematch.cli.options import output_folder

app = typer.Typer(
    help="Hand results on: hloc, colmap (from `densematch match`), kitti (from `densematch replay`).",
    no_args_is_help=True,
    add_completion=False,
)

Result = Annotated[Path, typer.Argument(metavar="RESULT", help="The --out folder of an earlier command.")]
Root = Annotated[
    Path | None, typer.Option("--root", help="Folder that image names are relative to (default: the common one).")
]
Cell = Annotated[
    float, typer.Option("--cell", help="Matches of an image within a cell of so many pixels become one key point.")
]


@app.command("hloc")
def hloc(
    result: Result,
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder for features.h5, matches.h5 and pairs.txt.")],
    root: Root = None,
    cell: Cell = 1.0,
) -> int:
    """Features and matches for hloc: features.h5, matches.h5 and pairs.txt from a result of `densematch match`."""
    from ros2_densematch.io.exports.hloc import write_hloc
    from ros2_densematch.io.exports.keypoints import merge_keypoints
    from ros2_densematch.io.exports.matched_pairs import read_matched_pairs

    keypoints, pairs = merge_keypoints(read_matched_pairs(result, root), cell_px=_positive(cell))
    names = write_hloc(output_folder(out), keypoints, pairs)
    print(f"{len(keypoints)} images, {len(pairs)} pairs: {', '.join(names)} in {out}")
    return DONE


@app.command("colmap")
def colmap(
    result: Result,
    *,
    out: Annotated[Path, typer.Option("--out", help="Database to write, as database.db.")],
    root: Root = None,
    cell: Cell = 1.0,
    camera: Annotated[
        Path | None, typer.Option("--camera", help="Calibration of all images (default: what the pairs were given).")
    ] = None,
) -> int:
    """A COLMAP database with key points, matches and two-view geometries from a result of `densematch match`."""
    from ros2_densematch.geometry.camera import Camera
    from ros2_densematch.io.exports.colmap import write_colmap
    from ros2_densematch.io.exports.keypoints import merge_keypoints
    from ros2_densematch.io.exports.matched_pairs import read_matched_pairs

    known = None if camera is None else Camera.from_yaml(camera)
    keypoints, pairs = merge_keypoints(read_matched_pairs(result, root), cell_px=_positive(cell))
    _file(out)
    write_colmap(out, keypoints, pairs, known)
    verified = sum(bool(pair.inlier.any()) for pair in pairs)
    print(f"{len(keypoints)} images, {len(pairs)} pairs, {verified} with inliers: {out}")
    return DONE


@app.command("kitti")
def kitti(
    result: Result, *, out: Annotated[Path, typer.Option("--out", help="Text file to write, as poses.txt.")]
) -> int:
    """The trajectory of a `densematch replay` as rows of KITTI's odometry benchmark."""
    from ros2_densematch.io.exports.kitti import write_kitti
    from ros2_densematch.io.results.tum import read_tum

    source = result / "trajectory.tum"
    if not source.is_file():
        raise InputError(f"{result} holds no trajectory.tum: give the --out folder of `densematch replay`")
    trajectory = read_tum(source)
    _file(out)
    write_kitti(out, trajectory)
    print(f"{len(trajectory.stamps_ns)} poses: {out}")
    return DONE


def _positive(cell: float) -> float:
    if not cell > 0:
        raise InputError(f"--cell {cell:g} must be positive")
    return cell


def _file(out: Path) -> None:
    if out.is_dir():
        raise InputError(f"--out {out} is a folder: name a file")
    output_folder(out.parent)
