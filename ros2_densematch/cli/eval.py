"""`densematch eval`: matchers measured on data with ground truth, and compared on recordings without."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ros2_densematch.cli.errors import DONE, InputError
from ros2_densematch.cli.options import DeviceOption, MatcherOption, OutOption, PresetOption, WeightsOption

app = typer.Typer(
    help="Measure matchers: pose, homography, dense, trajectory; compare, score again; recordings without truth.",
    no_args_is_help=True,
    add_completion=False,
)

DataArgument = Annotated[
    str | None, typer.Argument(metavar="DATA", help="Short name (with --data) or a folder whose layout is recognised.")
]
FolderOption = Annotated[Path | None, typer.Option("--data", help="Folder of the data set that DATA names.")]
ProtocolOption = Annotated[
    str, typer.Option("--protocol", help="default, densematch, superglue, roma or lightglue (docs/evaluation.md).")
]
EstimatorOption = Annotated[
    str | None, typer.Option("--estimator", help="poselib, opencv, magsac or own (default: the protocol's columns).")
]
ThresholdOption = Annotated[
    str | None, typer.Option("--threshold", help="Pixels, or auto: all are tried and shown, the best is named as such.")
]
HelpOption = Annotated[
    bool, typer.Option("--download-help", help="Say where the data comes from and its licence; downloads nothing.")
]


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
    download_help: bool,
) -> int:
    from ros2_densematch.cli.eval_run import Wanted, evaluate, spec_of

    if download_help:
        return say_download_help(data)
    if data is None or out is None:
        raise InputError(f"eval {task} needs DATA and --out DIR; --download-help lists the data sets")
    entry = spec_of(matcher, preset, weights)
    return evaluate(Wanted(task, data, folder, out, (entry,), device, weights, protocol, estimator, threshold))


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
    download_help: HelpOption = False,
) -> int:
    """Relative poses: AUC, mAP, purity, calibration and covariance on pairs with known cameras."""
    given = (folder, matcher, preset, device, weights, protocol, estimator, threshold, download_help)
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
    download_help: HelpOption = False,
) -> int:
    """Homographies: matching accuracy, corner errors, calibration on HPatches and Oxford folders."""
    given = (folder, matcher, preset, device, weights, protocol, estimator, threshold, download_help)
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
    download_help: HelpOption = False,
) -> int:
    """Dense truth and key points: accuracy, coverage, end-point error, PCK on stereo, flow and category-level sets."""
    given = (folder, matcher, preset, device, weights, protocol, None, None, download_help)
    return _truth_command("dense", data, out, *given)


@app.command()
def compare(
    entries: Annotated[
        list[str],
        typer.Argument(metavar="A B ...", help="MATCHER[:PRESET], a weights file, or a peer (aliked-lightglue)."),
    ],
    *,
    out: OutOption,
    on: Annotated[str, typer.Option("--on", help="Short name of a data set, or its folder.")],
    folder: FolderOption = None,
    task: Annotated[
        str | None, typer.Option("--task", help="pose, homography or dense (default: by the layout of the data).")
    ] = None,
    peers: Annotated[
        str,
        typer.Option(
            "--peers", help="opencv: SIFT, ORB, AKAZE, DIS, Lucas-Kanade beside; all: and installed ones; none."
        ),
    ] = "opencv",
    device: DeviceOption = None,
    protocol: ProtocolOption = "default",
    estimator: EstimatorOption = None,
    threshold: ThresholdOption = None,
) -> int:
    """Compare matchers, presets, checkpoints and peers on one data set: one page with tables and the worst pairs."""
    from ros2_densematch.cli.eval_run import Wanted, evaluate, task_of, with_peers

    chosen = task or task_of(on, folder)
    names = with_peers(entries, peers)
    return evaluate(Wanted(chosen, on, folder, out, names, device, None, protocol, estimator, threshold))


@app.command()
def score(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of an evaluation.")],
    *,
    protocol: ProtocolOption = "default",
    estimator: EstimatorOption = None,
    threshold: ThresholdOption = None,
) -> int:
    """Score stored predictions again, with another estimator or threshold: no matcher runs."""
    from ros2_densematch.cli.eval_run import score_again

    return score_again(out, protocol, estimator, threshold)


def say_download_help(name: str | None) -> int:
    """Prints where data sets come from; 0."""
    from ros2_densematch.evaluation.datasets.catalogue import download_help

    for line in download_help(name):
        print(line)
    return DONE
