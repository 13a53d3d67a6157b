"""`densematch eval`: matchers measured on data with ground truth, and compared on recordings without."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ros2_densematch.cli.errors import DONE, InputError
from ros2_densematch.cli.options import (
    ConfigOption,
    DeviceOption,
    MatcherOption,
    OutOption,
    PresetOption,
    SetOption,
    WeightsOption,
)

app = typer.Typer(
    help="Measure matchers: pose, homography, dense, trajectory; compare; score again; recordings without ground "
    "truth.",
    no_args_is_help=True,
    add_completion=False,
)

DataArgument = Annotated[
    str | None, typer.Argument(metavar="DATA", help="Short name (with --data) or a folder whose layout is recognised.")
]
FolderOption = Annotated[Path | None, typer.Option("--data", help="Folder of the data set named by DATA.")]
ProtocolOption = Annotated[
    str, typer.Option("--protocol", help="default, densematch, superglue, roma or lightglue (docs/evaluation.md).")
]
EstimatorOption = Annotated[
    str | None, typer.Option("--estimator", help="poselib, opencv, magsac or own (default: the protocol's columns).")
]
ThresholdOption = Annotated[
    str | None,
    typer.Option(
        "--threshold", help="Threshold in pixels, or auto: several are tried and shown, and the best is marked."
    ),
]
HelpOption = Annotated[
    bool, typer.Option("--download-help", help="Print the source and licence of the data; downloads nothing.")
]
NoResumeOption = Annotated[bool, typer.Option("--no-resume", help="Delete the evaluation in --out and start again.")]


def _truth_command(
    task: str,
    data: str | None,
    out: Path | None,
    folder: Path | None,
    matcher: str | None,
    preset: str | None,
    device: str | None,
    weights: Path | None,
    protocol: str,
    estimator: str | None,
    threshold: str | None,
    no_resume: bool,
    download_help: bool,
) -> int:
    from ros2_densematch.cli.eval_run import Wanted, evaluate, spec_of

    if download_help:
        return say_download_help(data)
    if data is None or out is None:
        raise InputError(f"eval {task} needs DATA and --out DIR; --download-help lists the data sets")
    entry = spec_of(matcher, preset, weights)
    return evaluate(
        Wanted(task, data, folder, out, (entry,), device, weights, protocol, estimator, threshold, not no_resume)
    )


@app.command()
def pose(
    data: DataArgument = None,
    *,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the results; created if missing.")] = None,
    folder: FolderOption = None,
    matcher: MatcherOption = None,
    preset: PresetOption = None,
    device: DeviceOption = None,
    weights: WeightsOption = None,
    protocol: ProtocolOption = "default",
    estimator: EstimatorOption = None,
    threshold: ThresholdOption = None,
    no_resume: NoResumeOption = False,
    download_help: HelpOption = False,
) -> int:
    """Relative poses: AUC, mAP, purity, calibration and covariance on pairs with known cameras."""
    given = (folder, matcher, preset, device, weights, protocol, estimator, threshold, no_resume, download_help)
    return _truth_command("pose", data, out, *given)


@app.command()
def homography(
    data: DataArgument = None,
    *,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the results; created if missing.")] = None,
    folder: FolderOption = None,
    matcher: MatcherOption = None,
    preset: PresetOption = None,
    device: DeviceOption = None,
    weights: WeightsOption = None,
    protocol: ProtocolOption = "default",
    estimator: EstimatorOption = None,
    threshold: ThresholdOption = None,
    no_resume: NoResumeOption = False,
    download_help: HelpOption = False,
) -> int:
    """Homographies: matching accuracy, corner errors, calibration on HPatches and Oxford folders."""
    given = (folder, matcher, preset, device, weights, protocol, estimator, threshold, no_resume, download_help)
    return _truth_command("homography", data, out, *given)


@app.command()
def dense(
    data: DataArgument = None,
    *,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the results; created if missing.")] = None,
    folder: FolderOption = None,
    matcher: MatcherOption = None,
    preset: PresetOption = None,
    device: DeviceOption = None,
    weights: WeightsOption = None,
    protocol: ProtocolOption = "default",
    no_resume: NoResumeOption = False,
    download_help: HelpOption = False,
) -> int:
    """Dense truth and key points: accuracy, coverage, end-point error, PCK on stereo, flow and category-level sets."""
    given = (folder, matcher, preset, device, weights, protocol, None, None, no_resume, download_help)
    return _truth_command("dense", data, out, *given)


@app.command()
def trajectory(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA", help="tum, euroc or kitti-odometry (with --data), a sequence, or a folder of them."
        ),
    ] = None,
    *,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the results; created if missing.")] = None,
    folder: FolderOption = None,
    config: ConfigOption = None,
    matcher: MatcherOption = None,
    preset: PresetOption = None,
    device: DeviceOption = None,
    weights: WeightsOption = None,
    assignments: SetOption = None,
    mono: Annotated[
        bool, typer.Option("--mono", help="Use a single camera only: no depth, stereo or odometry.")
    ] = False,
    interruptions: Annotated[
        int,
        typer.Option(
            "--interruptions", min=0, help="Cover the camera N times in a second pass, to measure relocalisation."
        ),
    ] = 0,
    max_frames: Annotated[
        int | None, typer.Option("--max-frames", min=3, help="Maximum number of frames per sequence.")
    ] = None,
    camera: Annotated[Path | None, typer.Option("--camera", help="Calibration, if the data has none.")] = None,
    image_topic: Annotated[str | None, typer.Option("--image-topic", help="Topic of the images (bags).")] = None,
    ground_truth_topic: Annotated[
        str | None,
        typer.Option(
            "--ground-truth-topic", help="Ground-truth poses (bags; default: a topic with a name such as ground_truth)."
        ),
    ] = None,
    no_resume: NoResumeOption = False,
    download_help: HelpOption = False,
) -> int:
    """Trajectories: ATE, RPE, losses, relocalisation and time per stage on TUM, EuRoC, KITTI, frames.csv and bags."""
    if download_help:
        return say_download_help(data)
    if data is None or out is None:
        raise InputError("eval trajectory needs DATA and --out DIR; --download-help lists the data sets")
    from ros2_densematch.cli.eval_run import spec_of
    from ros2_densematch.cli.eval_trajectory import WantedTracks, evaluate_trajectories
    from ros2_densematch.cli.options import configured

    settings = configured(config, matcher, preset, device, weights, assignments)
    if settings.options.get(settings.matcher):
        raise InputError(
            f"options of the matcher ({', '.join(settings.options[settings.matcher])}) cannot be set here, because "
            f"the results are stored under the matcher's name only: use --preset or --weights"
        )
    entry = spec_of(settings.matcher, None if settings.preset == "base" else settings.preset, None)
    file = Path(settings.weights) if settings.weights else None
    rest = (mono, interruptions, max_frames, camera, image_topic, ground_truth_topic, not no_resume)
    return evaluate_trajectories(
        WantedTracks(data, folder, out, (entry,), settings.tracker, settings.device, file, *rest)
    )


@app.command()
def bag(
    path: Annotated[Path, typer.Argument(metavar="BAG", help="Any input of replay: bag, video, image folder.")],
    entries: Annotated[
        list[str] | None, typer.Argument(metavar="A B ...", help="Matchers, as for compare (default: gcm and sift).")
    ] = None,
    *,
    out: OutOption = Path("densematch-eval"),
    device: DeviceOption = None,
    config: ConfigOption = None,
    assignments: SetOption = None,
    triples: Annotated[int, typer.Option("--triples", min=1, help="Number of frame triplets to compare.")] = 12,
    max_frames: Annotated[int | None, typer.Option("--max-frames", min=3, help="Use at most this many frames.")] = None,
    image_topic: Annotated[str | None, typer.Option("--image-topic", help="Topic of the images.")] = None,
    camera: Annotated[
        Path | None, typer.Option("--camera", help="Calibration; overrides the bag's CameraInfo.")
    ] = None,
    odometry_topic: Annotated[
        str | None, typer.Option("--odometry-topic", help="Odometry to compare with; the tracker does not use it.")
    ] = None,
    gps_topic: Annotated[
        str | None, typer.Option("--gps-topic", help="Satellite fixes to compare with (default: the only such topic).")
    ] = None,
    no_resume: NoResumeOption = False,
) -> int:
    """Compare matchers on a recording without true poses: consistency, losses, agreement. These are not accuracies."""
    from ros2_densematch.cli.eval_trajectory import WantedBag, evaluate_bag
    from ros2_densematch.cli.options import configured
    from ros2_densematch.io.sources.options import SourceOptions

    tracker = configured(config, None, None, None, None, assignments).tracker
    source = SourceOptions(image_topic=image_topic, camera_yaml=camera, odometry_topic=odometry_topic)
    names = tuple(entries or ("gcm", "sift"))
    rest = (triples, max_frames, gps_topic, source, not no_resume)
    return evaluate_bag(WantedBag(path, out, names, tracker, device, *rest))


@app.command()
def compare(
    entries: Annotated[
        list[str],
        typer.Argument(metavar="A B ...", help="MATCHER[:PRESET], a weights file, or a peer (aliked-lightglue)."),
    ],
    *,
    out: OutOption = Path("densematch-eval"),
    on: Annotated[str, typer.Option("--on", help="Short name of a data set, or its folder.")],
    folder: FolderOption = None,
    task: Annotated[
        str | None,
        typer.Option("--task", help="pose, homography, dense or trajectory (default: by the layout of the data)."),
    ] = None,
    peers: Annotated[
        str,
        typer.Option(
            "--peers", help="opencv (SIFT, ORB, AKAZE, DIS, Lucas-Kanade), all (also installed peers) or none."
        ),
    ] = "opencv",
    device: DeviceOption = None,
    protocol: ProtocolOption = "default",
    estimator: EstimatorOption = None,
    threshold: ThresholdOption = None,
    no_resume: NoResumeOption = False,
) -> int:
    """Compare matchers, presets, checkpoints and peers on one data set: one page with tables and the worst pairs."""
    from ros2_densematch.cli.eval_run import TRAJECTORY, Wanted, evaluate, task_of, with_peers

    chosen = task or task_of(on, folder)
    names = with_peers(entries, peers)
    if chosen == TRAJECTORY:
        from ros2_densematch.cli.eval_trajectory import WantedTracks, evaluate_trajectories
        from ros2_densematch.tracking.config import TrackerConfig

        if protocol != "default" or estimator is not None or threshold is not None:
            raise InputError("trajectories come from the tracker: leave out --protocol, --estimator and --threshold")
        return evaluate_trajectories(
            WantedTracks(on, folder, out, names, TrackerConfig(), device, resume=not no_resume)
        )
    return evaluate(Wanted(chosen, on, folder, out, names, device, None, protocol, estimator, threshold, not no_resume))


@app.command()
def score(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of an evaluation.")],
    *,
    protocol: ProtocolOption = "default",
    estimator: EstimatorOption = None,
    threshold: ThresholdOption = None,
) -> int:
    """Score stored predictions again, with another estimator or threshold: no matcher runs."""
    from ros2_densematch.cli.eval_run import TRAJECTORY, score_again
    from ros2_densematch.cli.eval_trajectory import score_tracks_again
    from ros2_densematch.evaluation.comparison.run import claimed

    content = claimed(out)
    again = score_tracks_again if content["data"]["task"] in (TRAJECTORY, "bag") else score_again
    return again(out, content, protocol, estimator, threshold)


def say_download_help(name: str | None) -> int:
    """Prints where data sets come from; 0."""
    from ros2_densematch.evaluation.datasets.catalogue import download_help

    for line in download_help(name):
        print(line)
    return DONE
