"""Does `gcm`'s network take less time per image when it gets several images at once?

    OMP_WAIT_POLICY=PASSIVE python benchmarks/batches.py --threads 2

Batches and single passes run in turn in one process; the ratio is the time per image in a batch over that of a single
pass, so that a batch wins below 1. The last column is whether the results are equal to the bit.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from ros2_densematch.matchers.gcm.matcher import GcmMatcher
from ros2_densematch.processor import limit_threads

WARM_UP = 2


@torch.inference_mode()
def compare(matcher: GcmMatcher, count: int, size: tuple[int, int], repeat: int) -> tuple[float, float, bool]:
    """Milliseconds per image of single passes and of a batch (medians), and whether the results are equal."""
    width, height = size
    images = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)).to(matcher.device)
    images = images.contiguous(memory_format=torch.channels_last)
    single, batch = [], []
    for _ in range(WARM_UP + repeat):
        begin = time.perf_counter()
        apart = [matcher.network(images[k : k + 1]) for k in range(count)]
        _wait(matcher.device)
        middle = time.perf_counter()
        together = matcher.network(images)
        _wait(matcher.device)
        single.append(1e3 * (middle - begin) / count)
        batch.append(1e3 * (time.perf_counter() - middle) / count)
    equal = all(torch.equal(one.descriptors[0], together.descriptors[k]) for k, one in enumerate(apart))
    return float(np.median(single[WARM_UP:])), float(np.median(batch[WARM_UP:])), equal


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", default="640x480", help="sides are multiples of 16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=7)
    given = parser.parse_args()
    limit_threads(given.threads)
    width, height = map(int, given.size.split("x"))
    matcher = GcmMatcher(device=given.device)
    print(f"gcm, {given.size}, torch {torch.__version__} on {matcher.device}, {given.threads} threads")
    for count in (2, 4):
        single, batch, equal = compare(matcher, count, (width, height), given.repeat)
        same = "equal" if equal else "not equal"
        print(f"{count} images: single {single:.1f}, batch {batch:.1f} ms an image: ratio {batch / single:.2f}, {same}")


if __name__ == "__main__":
    main()
