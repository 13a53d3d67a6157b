"""What it costs to match frames against one keyframe with RoMa or DKM: reuse, then cheaper refiners, step by step.

    python benchmarks/keyframe_reuse.py roma                   # 560 x 560, one direction, no upsampling pass
    python benchmarks/keyframe_reuse.py dkm                    # 540 x 720, one direction, upsampling to 864 x 1152
    python benchmarks/keyframe_reuse.py roma --device cuda --dtype float16 --compile

Every row runs in a process of its own, on random weights (they do not change the amount of work) and a random picture.
Time: encoding what the row has to encode, and the dense match; sampling is left out. Memory: the largest resident set
of the process, or on a GPU the largest allocation; weights included.
The first row does per pair what the published code does: both images through all encoders, the Gaussian process solved
again, sampled features of all offsets at once in the local correlation, batch norms as layers, all stages of the
encoder in the upsampling pass. Each further row adds one change; the last takes the reuse away again.
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

from ros2_densematch.matchers.dense import matcher as dense_matcher
from ros2_densematch.matchers.dense.matcher import DenseMatcher
from ros2_densematch.matchers.dkm.matcher import DkmMatcher
from ros2_densematch.matchers.roma.matcher import RomaMatcher
from ros2_densematch.nn import refiner


@dataclass(frozen=True)
class Row:
    """Which of the changes are on."""

    label: str
    reuse: bool = False
    tiles: bool = False
    channels_last: bool = False
    folded: bool = False
    needed_stages: bool = False


ROWS = {
    "published": Row("encode both, solve again, per pair"),
    "reuse": Row("+ the keyframe's share done once", True),
    "tiles": Row("+ local correlation in tiles", True, True),
    "layout": Row("+ channels last", True, True, True),
    "folded": Row("+ batch norms folded", True, True, True, True),
    "stages": Row("+ only the needed encoder stages", True, True, True, True, True),
    "no_reuse": Row("all of these, but encode both per pair", False, True, True, True, True),
}


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


def build(name: str, row: Row, arguments: argparse.Namespace) -> DenseMatcher:
    with ExitStack() as stack:
        if not row.folded:
            stack.enter_context(patch.object(dense_matcher, "fold_batch_norms", lambda network: 0))
        if not row.channels_last:
            stack.enter_context(patch.object(dense_matcher, "to_channels_last", lambda network: network))
        options = {
            "device": arguments.device,
            "weights": "random",
            "dtype": arguments.dtype,
            "direction": arguments.direction,
            "compile_network": arguments.compile,
        }
        if name == "roma":
            matcher: DenseMatcher = RomaMatcher(**options, preset="fast")
        else:
            matcher = DkmMatcher(**options)
    if not row.tiles:
        refiner.local_correlation = sampled_correlation
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
    seconds = []
    for _ in range(arguments.frames + (2 if gpu else 0)):
        if gpu:
            torch.cuda.synchronize()
        start = clock()
        if not row.reuse:
            keyframe = matcher.encode(images[0], reference=True)
        matcher.dense(keyframe, matcher.encode(images[1]))
        if gpu:
            torch.cuda.synchronize()
        seconds.append(clock() - start)
    # the first frames on a GPU compile or choose kernels
    best = min(seconds[2:] if gpu else seconds)
    peak = torch.cuda.max_memory_allocated() if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": best, "gib": peak / 2**30}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("matcher", choices=["roma", "dkm"])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--frames", type=int, default=2, help="frames per row; the fastest counts")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves PyTorch's choice")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="processor time instead of elapsed time: for a busy machine, --threads 1",
    )
    parser.add_argument("--direction", default="query_to_reference", help="or reference_to_query, or both")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--one", choices=list(ROWS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.matcher, ROWS[arguments.one], arguments)))
        return
    found: dict[str, dict[str, float]] = {}
    print("| step | s per frame | against the first row | against the row before | peak memory, GiB |")
    print("| --- | --- | --- | --- | --- |")
    for key in arguments.rows:
        if arguments.matcher == "roma" and key == "stages":
            continue  # VGG has no deeper stages to leave out
        child = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--one", key], check=True, capture_output=True, text=True
        )
        found[key] = now = json.loads(child.stdout.splitlines()[-1])
        values = list(found.values())
        first, before = values[0]["seconds"] / now["seconds"], values[-2 if len(values) > 1 else -1]["seconds"]
        print(
            f"| {ROWS[key].label} | {now['seconds']:.2f} | {first:.2f}x | {before / now['seconds']:.2f}x "
            f"| {now['gib']:.2f} |",
            flush=True,
        )
    if {"published", "reuse"} <= found.keys():
        ratio = found["published"]["seconds"] / found["reuse"]["seconds"]
        print(f"reuse alone, everything else as published: {ratio:.2f}x")
    last = "folded" if arguments.matcher == "roma" else "stages"
    if {"no_reuse", last} <= found.keys():
        print(f"reuse alone, with all other changes: {found['no_reuse']['seconds'] / found[last]['seconds']:.2f}x")


if __name__ == "__main__":
    main()
