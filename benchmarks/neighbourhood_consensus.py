"""NCNet and Sparse-NCNet: how time and memory grow with the grid, what a cached keyframe saves, and the convolution.

    python benchmarks/neighbourhood_consensus.py grid           # matching from features alone, a process per row
    python benchmarks/neighbourhood_consensus.py keyframe       # a frame against a cached keyframe, or encoding both
    python benchmarks/neighbourhood_consensus.py convolution    # one batched convolution against a loop over rows
    python benchmarks/neighbourhood_consensus.py all

Weights are random: neither time nor memory depends on them, but for the number of neighbouring entries of the sparse
tensor, which is why its features are smooth: neighbouring cells resemble one another as in a photo.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

DENSE_GRIDS = ((25, 19), (38, 28), (50, 38), (75, 56))
SPARSE_GRIDS = ((25, 19), (50, 38), (100, 75), (200, 150))


def smooth_features(columns: int, rows: int, channels: int, seed: int) -> Tensor:
    """Unit, not negative (1, C, rows, columns) that change over a few cells; images of equal seed show the same."""
    drawn = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, max(2, rows // 3), max(2, columns // 3), generator=drawn).pow_(4)
    return functional.normalize(functional.interpolate(coarse, (rows, columns), mode="bilinear"), dim=1)


def peak_mebibytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one_row(kind: str, columns: int, rows: int, k: int) -> None:
    """Times one match from features, in a process of its own so that the peak is its own."""
    from ros2_densematch.matchers.common.consensus.cells import both_directions
    from ros2_densematch.matchers.ncnet.extraction import best_matches, relocalise
    from ros2_densematch.matchers.ncnet.network import NcnetNetwork
    from ros2_densematch.matchers.sparse_ncnet.extraction import best_entries
    from ros2_densematch.matchers.sparse_ncnet.network import SparseNcnetNetwork
    from ros2_densematch.matchers.sparse_ncnet.relocalisation import relocalise_hard, relocalise_soft

    torch.manual_seed(0)
    with torch.inference_mode():
        if kind == "dense":
            network = NcnetNetwork()
            maps = [smooth_features(columns * k, rows * k, 1024, 0) for _ in range(2)]
            before, start, used = peak_mebibytes(), time.perf_counter(), time.process_time()
            filtered = network.consensus(*maps, relocalisation=k)
            found = [best_matches(filtered.correlation[0, 0], per=per) for per in "BA"]
            if filtered.places is not None:
                found = [relocalise(f, filtered.places[0, 0], k) for f in found]
            matches, entries = both_directions(*found), (columns * rows) ** 2
        else:
            sparse = SparseNcnetNetwork()
            fine = [smooth_features(2 * columns, 2 * rows, 1024, 0) for _ in range(2)]
            fine = [f.contiguous(memory_format=torch.channels_last) for f in fine]
            coarse = [functional.normalize(functional.max_pool2d(f, 2), dim=1) for f in fine]
            before, start, used = peak_mebibytes(), time.perf_counter(), time.process_time()
            correlation = sparse.consensus(coarse[0][0], coarse[1][0])
            matches, entries = best_entries(correlation), len(correlation.keys)
            hard = relocalise_hard(fine[0][0], fine[1][0], matches.a, matches.b)
            relocalise_soft(fine[0][0], fine[1][0], *hard)
        seconds, used = time.perf_counter() - start, time.process_time() - used
    print(
        f"{kind:6} k={k:<2} grid {columns:3}x{rows:<3} {entries:>11,} entries {seconds:8.2f} s, CPU {used:8.2f} s, "
        f"peak {peak_mebibytes():7.0f} MiB, before {before:6.0f} MiB, {len(matches.score)} matches",
        flush=True,
    )


def grid(largest: int) -> None:
    """The growth with the grid, dense beside sparse; grids of at most `largest` columns."""
    jobs = [("dense", *g, 1) for g in DENSE_GRIDS] + [("dense", *g, 2) for g in DENSE_GRIDS[:3]]
    jobs += [("sparse", *g, 10) for g in SPARSE_GRIDS]
    for kind, columns, rows, k in jobs:
        if columns <= largest:
            code = [sys.executable, __file__, "row", kind, str(columns), str(rows), str(k)]
            subprocess.run(code, check=True)


def timed(run: Callable[[], object], repeat: int, clock: Callable[[], float]) -> float:
    times = []
    for _ in range(repeat):
        start = clock()
        run()
        times.append(clock() - start)
    return median(times)


def keyframe(repeat: int, clock: Callable[[], float], presets: list[str]) -> None:
    """Medians of a frame against a cached keyframe, and of the same with both images encoded, taken in turns."""
    from ros2_densematch.matchers.registry import load_matcher

    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (480, 640, 3), np.uint8) for _ in range(2)]
    for preset in presets:
        matcher = load_matcher("ncnet", device="cpu", preset=preset, weights="random")
        reference = matcher.encode(images[0], reference=True)
        matcher.match(reference, matcher.encode(images[1]))
        times: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(repeat):
            for kept in times:
                start = clock()
                first = reference if kept else matcher.encode(images[0], reference=True)
                matcher.match(first, matcher.encode(images[1]))
                times[kept].append(clock() - start)
        cached, both = median(times[True]), median(times[False])
        print(
            f"ncnet {preset}: {1e3 * cached:.0f} ms against a cached keyframe, {1e3 * both:.0f} ms encoding both, "
            f"ratio {both / cached:.2f} (median of {repeat})",
            flush=True,
        )


def by_rows(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The published way: a loop over the rows of A, with one 3-D convolution per tap for each."""
    k, outputs, _, *spatial = weight.shape
    half, padding = k // 2, [side // 2 for side in spatial]
    padded = functional.pad(x, (0, 0, 0, 0, 0, 0, half, half))
    out = x.new_zeros(len(x), outputs, *x.shape[2:])
    for row in range(x.shape[2]):
        for tap in range(k):
            own_bias = bias if tap == half else None
            out[:, :, row] += functional.conv3d(padded[:, :, row + tap], weight[tap], own_bias, padding=padding)
    return out


def convolution(repeat: int, clock: Callable[[], float]) -> None:
    """The consensus layers of both published networks, against the loop over rows."""
    from ros2_densematch.nn.conv4d import conv4d

    torch.manual_seed(0)
    for name, side, layers in (
        ("ivd 3,3", 20, ((3, 1, 16), (3, 16, 1))),
        ("pfpascal 5,5,5", 13, ((5, 1, 16), (5, 16, 16), (5, 16, 1))),
    ):
        ours = loop = 0.0
        for k, inputs, outputs in layers:
            x = torch.rand(1, inputs, side, side, side, side)
            weight, bias = torch.randn(k, outputs, inputs, k, k, k) / 50, torch.randn(outputs)
            with torch.inference_mode():
                torch.testing.assert_close(conv4d(x, weight, bias), by_rows(x, weight, bias), rtol=1e-3, atol=1e-3)
                ours += timed(lambda x=x, w=weight, b=bias: conv4d(x, w, b), repeat, clock)
                loop += timed(lambda x=x, w=weight, b=bias: by_rows(x, w, b), repeat, clock)
        print(
            f"{name}, {side}^4 cells: {1e3 * ours:.0f} ms, loop over rows {1e3 * loop:.0f} ms, ratio {loop / ours:.1f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["grid", "keyframe", "convolution", "all", "row"])
    parser.add_argument("row", nargs="*", help="dense|sparse COLUMNS ROWS K; for the processes of `grid`")
    parser.add_argument("--presets", nargs="+", default=["small", "base"], help="of `keyframe`")
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--cpu-time", action="store_true", help="CPU seconds for ratios, on a machine that is not idle")
    parser.add_argument("--largest", type=int, default=200, help="columns of the largest grid")
    arguments = parser.parse_args()
    if arguments.what == "row":
        kind, *numbers = arguments.row
        one_row(kind, *(int(number) for number in numbers))
        return
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
    if arguments.what in ("convolution", "all"):
        convolution(arguments.repeat, clock)
    if arguments.what in ("keyframe", "all"):
        keyframe(arguments.repeat, clock, arguments.presets)
    if arguments.what in ("grid", "all"):
        grid(arguments.largest)


if __name__ == "__main__":
    main()
