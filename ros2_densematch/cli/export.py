"""`densematch export`: results in the forms that other programs read, and matchers as ONNX graphs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ros2_densematch.cli.errors import DONE, InputError
from ros2_densematch.cli.options import (
    PresetOption,
    SetOption,
    WeightsOption,
    configured,
    image_size,
    matcher_of,
    output_folder,
    say,
)

if TYPE_CHECKING:
    from ros2_densematch.io.sources.base import FrameSource

app = typer.Typer(
    help="Export results: hloc, colmap (from `densematch match`), kitti, gtsam, rerun, foxglove (from `replay`); or "
    "the network of a matcher: onnx.",
    no_args_is_help=True,
    add_completion=False,
)

Result = Annotated[Path, typer.Argument(metavar="RESULT", help="The --out folder of an earlier command.")]
Root = Annotated[
    Path | None, typer.Option("--root", help="Root folder of the image names (default: their common folder).")
]
Cell = Annotated[
    float,
    typer.Option(
        "--cell", help="Size in pixels of the cells in which the matches of an image merge into one key point."
    ),
]


@app.command("hloc")
def hloc(
    result: Result,
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder for features.h5, matches.h5 and pairs.txt.")],
    root: Root = None,
    cell: Cell = 0.5,
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
    out: Annotated[Path, typer.Option("--out", help="Database to write, for example database.db.")],
    root: Root = None,
    cell: Cell = 0.5,
    camera: Annotated[
        Path | None, typer.Option("--camera", help="Calibration of all images (default: that of the pairs).")
    ] = None,
) -> int:
    """A COLMAP database with key points, matches and two-view geometries from a result of `densematch match`."""
    from ros2_densematch.files.results_folder import ForeignFileError
    from ros2_densematch.geometry.camera import Camera
    from ros2_densematch.io.exports.colmap import write_colmap
    from ros2_densematch.io.exports.keypoints import merge_keypoints
    from ros2_densematch.io.exports.matched_pairs import read_matched_pairs

    known = None if camera is None else Camera.from_yaml(camera)
    keypoints, pairs = merge_keypoints(read_matched_pairs(result, root), cell_px=_positive(cell))
    _file(out)
    try:
        write_colmap(out, keypoints, pairs, known)
    except ForeignFileError:
        raise
    except ValueError as error:
        raise InputError(f"--camera {camera}: {error}" if known is not None else str(error)) from None
    verified = sum(bool(pair.inlier.any()) for pair in pairs)
    print(f"{len(keypoints)} images, {len(pairs)} pairs, {verified} with inliers: {out}")
    return DONE


@app.command("kitti")
def kitti(
    result: Result, *, out: Annotated[Path, typer.Option("--out", help="Text file to write, for example poses.txt.")]
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


@app.command("gtsam")
def gtsam(
    result: Result, *, out: Annotated[Path, typer.Option("--out", help="Folder for factors.json and graph.g2o.")]
) -> int:
    """Relative poses of a `densematch replay` as GTSAM's factors: between-factors, or essential-matrix constraints
    where the scale is unknown."""
    from ros2_densematch.io.exports.gtsam import read_factor_graph, write_gtsam

    graph = read_factor_graph(result)
    names = write_gtsam(output_folder(out), graph)
    counts = Counter(factor.kind for factor in graph.factors)
    print(f"{', '.join(f'{count} {kind}' for kind, count in counts.items())} factors: {', '.join(names)} in {out}")
    return DONE


Images = Annotated[
    Path | None,
    typer.Option("--images", help="Recording with the images (default: the replayed one)."),
]


@app.command("rerun")
def rerun(
    result: Result,
    *,
    out: Annotated[Path, typer.Option("--out", help="Recording to write, for example replay.rrd.")],
    images: Images = None,
) -> int:
    """A `densematch replay` as a rerun recording: images, matches, keyframes and trajectory on a timeline."""
    from ros2_densematch.io.exports.replay_result import beside_their_frames, read_frame_results, replay_summary
    from ros2_densematch.io.exports.rerun import RerunLog

    if out.suffix != ".rrd":
        raise InputError(f"--out {out}: a rerun recording ends in .rrd")
    summary = replay_summary(result)
    source = _source_of(summary, images)
    _file(out)
    count = seen = 0
    with RerunLog(str(out), summary["input"]["name"]) as log:
        for frame_result, frame in beside_their_frames(read_frame_results(result), source):
            log.add(frame_result, frame)
            count, seen = count + 1, seen + (frame is not None)
    print(f"{count} frames, {seen} with their image: {out}")
    return DONE


@app.command("foxglove")
def foxglove(
    result: Result,
    *,
    out: Annotated[Path, typer.Option("--out", help="MCAP file to write, for example annotations.mcap.")],
) -> int:
    """Matches of a `densematch replay` as Foxglove's image annotations: open the file beside the recording."""
    from ros2_densematch.io.exports.foxglove import ANNOTATIONS, write_foxglove
    from ros2_densematch.io.exports.replay_result import read_frame_results

    if out.suffix != ".mcap":
        raise InputError(f"--out {out}: Foxglove's recordings end in .mcap")
    frames = read_frame_results(result)
    _file(out)
    print(f"{write_foxglove(out, frames)} frames on {ANNOTATIONS}: {out}")
    return DONE


@app.command("onnx")
def onnx(
    matcher: Annotated[str, typer.Argument(metavar="MATCHER", help="Whose network: gcm, condl, tiny_roma, ...")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder for the .onnx files and a .json beside each.")],
    size: Annotated[str, typer.Option("--size", metavar="WxH", help="Size of the camera's images.")] = "640x480",
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Leave the sides of the images open.")] = False,
    preset: PresetOption = None,
    weights: WeightsOption = None,
    assignments: SetOption = None,
) -> int:
    """A matcher's network as ONNX graphs (opset 18), compared with PyTorch, for ONNX Runtime, TensorRT, OpenVINO."""
    from ros2_densematch.io.exports.onnx import write_graphs

    configuration = configured(None, matcher, preset, "cpu", weights, assignments)
    width_height = image_size(size)
    folder = output_folder(out)
    built = matcher_of(configuration)
    for file, written in write_graphs(built, configuration.weights, folder, width_height, dynamic=dynamic):
        worst = max(written.difference.values())
        print(f"{file.name} and {file.stem}.json in {out}: differs from PyTorch by at most {worst:.1e} of the largest")
    return DONE


def _source_of(summary: dict[str, Any], images: Path | None) -> FrameSource | None:
    """The recording that was replayed, or the one named instead; None, with a word, where it is gone."""
    from ros2_densematch.io.sources.opening import open_source
    from ros2_densematch.io.sources.options import SourceOptions

    path = images or Path(summary["input"]["path"])
    if images is None and not path.exists():
        say(f"{path} no longer exists, so no images are written: give the recording with --images")
        return None
    topic = next((i["name"] for i in summary["inputs"] if i["role"] == "images" and i["name"].startswith("/")), None)
    return open_source(path, SourceOptions(image_topic=topic))


def _positive(cell: float) -> float:
    if not cell > 0:
        raise InputError(f"--cell {cell:g} must be positive")
    return cell


def _file(out: Path) -> None:
    if out.is_dir():
        raise InputError(f"--out {out} is a folder: name a file")
    output_folder(out.parent)
