"""What it costs to match frames against one keyframe with RoMa or DKM: reuse, then cheaper refiners, step by step.

    python benchmarks/keyframe_reuse.py roma                   # 560 x 560, one direction, no upsampling pass
    python benchmarks/keyframe_reuse.py dkm                    # 540 x 720, one direction, upsampling to 864 x 1152
    python benchmarks/keyframe_reuse.py tiny_roma              # 640 x 480, as it is: one row
    python benchmarks/keyframe_reuse.py roma --device cuda --dtype float16 --compile

Every row runs in a process of its own, on random weights (they do not change the amount of work) and a random picture.
Time: encoding what the row has to encode, and the dense match; sampling is left out. Memory: the largest resident set
of the process, or on a GPU the largest allocation; weights included. What one encoded keyframe takes stands beside it.
The first row has the operations of the published code: sampled features of all offsets at once in the local
correlation, batch norms as layers, all stages of the encoder in the upsampling pass. Each further row adds one change.
Every row is measured both ways, in turns in one process: encode both images and solve the Gaussian process again per
pair, and the keyframe's share done once. So their ratio is what reuse alone gives with that row's operations.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ros2_densematch.matchers import network as network_matcher
from ros2_densematch.matchers.common.dense import matcher as dense_matcher
from ros2_densematch.matchers.common.dense.matcher import DenseEncoding, DenseMatcher
from ros2_densematch.matchers.common.dense.network import DenseNetwork
from ros2_densematch.matchers.dkm.matcher import DkmMatcher
from ros2_densematch.matchers.roma.matcher import RomaMatcher
from ros2_densematch.matchers.tiny_roma.matcher import TinyEncoding, TinyRomaMatcher
from ros2_densematch.nn import local_correlation, refiner


@dataclass(frozen=True)
class Row:
    """Which of the changes are on."""

    label: str
    tiles: bool = False
    blocks: bool = False
    channels_last: bool = False
    folded: bool = False
    strips: bool = False
    shares: bool = False
    needed_stages: bool = False


def _rows() -> dict[str, Row]:
    """One change after the other; what a row has on, all later ones have."""
    steps = {
        "published": "operations as published",
        "tiles": "+ local correlation in tiles",
        "blocks": "+ neighbouring cells of it share a product",
        "channels_last": "+ channels last",
        "folded": "+ batch norms folded",
        "strips": "+ refiners in strips, their last two convolutions as one",
        "shares": "+ the keyframe's share of the refiners' first blocks apart",
        "needed_stages": "+ only the needed encoder stages in the upsampling pass",
    }
    rows: dict[str, Row] = {}
    on: dict[str, bool] = {}
    for name, label in steps.items():
        if name != "published":
            on[name] = True
        rows[name] = Row(label, **on)
    return rows


ROWS = _rows()


def sampled_correlation(query: Tensor, support: Tensor, flow: Tensor, radius: int) -> Tensor:
    """Local correlation as it is usually written: the features at all offsets, then their products."""
    batch, channels, height, width = query.shape
    side = 2 * radius + 1
    y = torch.linspace(-2 * radius / height, 2 * radius / height, side, device=query.device)
    x = torch.linspace(-2 * radius / width, 2 * radius / width, side, device=query.device)
    offsets = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(1, 1, side * side, 2)
    at = (flow.permute(0, 2, 3, 1).reshape(batch, -1, 1, 2) + offsets).to(support.dtype)
    features = functional.grid_sample(support, at, align_corners=False)
    products = (features * (query * channels**-0.5).reshape(batch, channels, -1, 1)).sum(1)
    return products.transpose(1, 2).reshape(batch, side * side, height, width)


def build(name: str, row: Row, arguments: argparse.Namespace) -> DenseMatcher | TinyRomaMatcher:
    if name == "tiny_roma":
        return TinyRomaMatcher(device=arguments.device, weights="random", dtype=arguments.dtype)
    with ExitStack() as stack:
        if not row.folded:
            stack.enter_context(patch.object(network_matcher, "fold_batch_norms", lambda network: 0))
        if not row.channels_last:
            stack.enter_context(patch.object(dense_matcher, "to_channels_last", lambda network: network))
        if not row.strips:
            stack.enter_context(patch.object(DenseNetwork, "prepare_refiners", lambda network: None))
        options = {
            "device": arguments.device,
            "weights": "random",
            "dtype": arguments.dtype,
            "direction": arguments.direction,
            "compile_network": arguments.compile,
            "keep_shares": row.shares,
        }
        if name == "roma":
            matcher: DenseMatcher = RomaMatcher(**options, preset="fast")
        else:
            matcher = DkmMatcher(**options)
    if not row.tiles:
        refiner.local_correlation = sampled_correlation
    if not row.blocks:
        local_correlation._BLOCK_CELLS = 0
    if not row.needed_stages and name == "dkm":
        pyramid = matcher.network.pyramid

        def whole_pyramid(image: Tensor, *, fine: bool = False) -> dict[int, Tensor]:
            # all stages run, and what the upsampling pass does not need is thrown away
            return {s: f for s, f in pyramid(image).items() if not fine or s <= 8}

        matcher.network.pyramid = whole_pyramid
    return matcher


def measure(name: str, row: Row, arguments: argparse.Namespace) -> dict[str, float]:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    matcher = build(name, row, arguments)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (480, 640, 3), dtype=np.uint8) for _ in range(2)]
    gpu = torch.cuda.is_available() and arguments.device != "cpu"
    keyframe = matcher.encode(images[0], reference=True)
    clock = time.process_time if arguments.cpu_time else time.perf_counter

    def frame(reuse: bool) -> float:
        if gpu:
            torch.cuda.synchronize()
        start = clock()
        # a pair on its own keeps nothing
        if isinstance(matcher, DenseMatcher):
            matcher.config = matcher.config.model_copy(update={"keep_shares": reuse and row.shares})
        matcher.dense(keyframe if reuse else matcher.encode(images[0]), matcher.encode(images[1]))
        if gpu:
            torch.cuda.synchronize()
        return clock() - start

    seconds: dict[bool, list[float]] = {False: [], True: []}
    # the first frames on a GPU compile or choose kernels
    for i in range(arguments.frames + (2 if gpu else 0)):
        for reuse in (True,) if arguments.kept_only else (False, True):
            took = frame(reuse)
            if not gpu or i >= 2:
                seconds[reuse].append(took)
    peak = torch.cuda.max_memory_allocated() if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "both": min(seconds[False], default=0.0),
        "kept": min(seconds[True]),
        "gib": peak / 2**30,
        "keyframe_mib": keyframe_bytes(keyframe.data) / 2**20,
    }


def keyframe_bytes(encoding: DenseEncoding | TinyEncoding) -> int:
    """Memory of an encoded keyframe: features, what is conditioned on it, and its share of the refiners."""
    if isinstance(encoding, TinyEncoding):
        return sum(t.untyped_storage().nbytes() for t in (encoding.features.fine, encoding.features.coarse))
    tensors = [*encoding.coarse.values(), *(encoding.fine or {}).values()]
    for process in encoding.conditioned.values():
        tensors += [process.features, process.norm, process.cholesky, process.solved]
    for shares in encoding.shares or ():
        tensors += shares.values()
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("matcher", choices=["roma", "dkm", "tiny_roma"])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--frames", type=int, default=2, help="frames per row and way; the fastest counts")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves PyTorch's choice")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="processor time instead of elapsed time: for a busy machine, --threads 1",
    )
    parser.add_argument(
        "--direction", default="reference_to_query", help="from the keyframe; or query_to_reference, or both"
    )
    parser.add_argument("--kept-only", action="store_true", help="leave out encoding both per pair, to save time")
    parser.add_argument("--first", type=float, help="seconds of the first column to compare with, of another run")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--one", choices=list(ROWS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.matcher, ROWS[arguments.one], arguments)))
        return
    print("| step | encode both, s | keyframe kept, s | reuse alone | against the first | peak GiB | keyframe MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    first: float | None = arguments.first
    for key in arguments.rows:
        if arguments.matcher == "roma" and key == "needed_stages":
            continue  # VGG has no deeper stages to leave out
        if arguments.matcher == "tiny_roma" and key != "published":
            continue  # nothing to switch on or off
        child = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--one", key], stdout=subprocess.PIPE, text=True
        )
        if child.returncode:
            sys.exit(f"row {key} failed with exit code {child.returncode}")
        now = json.loads(child.stdout.splitlines()[-1])
        first = first or now["both"]
        both, kept = now["both"], now["kept"]
        cells = [f"{both:.3g}" if both else "", f"{kept:.3g}", f"{both / kept:.2f}x" if both else ""]
        cells += [f"{first / kept:.2f}x" if first else "", f"{now['gib']:.2f}", f"{now['keyframe_mib']:.0f}"]
        label = "as it is" if arguments.matcher == "tiny_roma" else ROWS[key].label
        print("| " + " | ".join([label, *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
