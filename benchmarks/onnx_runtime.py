"""The network of a matcher in ONNX Runtime against the same in PyTorch: time, and whether the matches are the same.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/onnx_runtime.py --threads 2
    OMP_WAIT_POLICY=PASSIVE python benchmarks/onnx_runtime.py --threads 2 --matcher condl --repeat 5
    python benchmarks/onnx_runtime.py --repeat 1 --data ../shared/data/train_multiview/photos

Both run in one process, in turn, on a frame of the demo flight; the first turns are not counted. `network` is the pass
alone, `encode` all of an encoding. The ratio is ONNX Runtime's median over PyTorch's. With --data, the first and the
second photo of every folder below are matched with both: a match is the same when both of its ends lie within 0.05 px.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pairs import load
from scipy.spatial import cKDTree

from ros2_densematch.matchers.base import Matcher
from ros2_densematch.matchers.identity import runtime_of
from ros2_densematch.matchers.registry import load_matcher
from ros2_densematch.processor import limit_threads
from ros2_densematch.simulation.flight import demo_camera, demo_flight
from ros2_densematch.simulation.renderer import render
from ros2_densematch.simulation.worlds import workshop

WARM_UP = 3
NEAR_PX = 0.05


def medians(work: dict[str, Callable[[], Any]], repeat: int) -> dict[str, float]:
    """Milliseconds of each, run in turn."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(WARM_UP + repeat):
        for name, run in work.items():
            begin = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - begin))
    return {name: float(np.median(values[WARM_UP:])) for name, values in times.items()}


def network_pass(matcher: Any, width: int, height: int) -> Callable[[], Any]:
    """One pass of a matcher's network over a picture of this size, as its `encode` lays it out."""
    image = torch.rand(1, 3, -(-height // 16) * 16, -(-width // 16) * 16)
    image = image.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run() -> Any:
        return matcher.network(image)

    return run


def encoding(matcher: Matcher, image: np.ndarray) -> Callable[[], Any]:
    """A whole encoding; `gcm` makes its own when the descriptors are first asked for."""
    return lambda: matcher.encode(image).data.descriptors


def shares(matchers: dict[str, Matcher], folder: Path) -> tuple[int, int, int]:
    """Pairs, matches, and how many of them both have."""
    pairs = matches = same = 0
    for place in sorted(p for p in folder.iterdir() if p.is_dir()):
        files = sorted(p for p in place.rglob("*") if p.suffix.lower() in (".jpg", ".png"))[:2]
        if len(files) < 2:
            continue
        images = [load(file)[0] for file in files]
        found = []
        for matcher in matchers.values():
            m = matcher.match(matcher.encode(images[0], reference=True), matcher.encode(images[1]))
            found.append(np.hstack([m.reference_xy, m.query_xy]))
        pairs += 1
        for a, b in (found, found[::-1]):
            matches += len(a)
            same += int((cKDTree(b).query(a, p=np.inf)[0] < NEAR_PX).sum()) if len(a) and len(b) else 0
    return pairs, matches, same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--matcher", default="gcm")
    parser.add_argument("--preset", default="base")
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--data", type=Path, help="folder of folders of photos")
    given = parser.parse_args()
    limit_threads(given.threads)
    width, height = map(int, given.size.split("x"))
    matchers = {
        backend: load_matcher(given.matcher, device="cpu", preset=given.preset, backend=backend)
        for backend in ("torch", "onnx")
    }
    print(f"{given.matcher} {given.preset}, {given.size}, torch {torch.__version__}; {runtime_of(matchers['onnx'])}")
    image = render(workshop(), demo_camera(width, height), demo_flight().T_world_from_camera[20]).image
    stages = {
        "network": {name: network_pass(m, width, height) for name, m in matchers.items()},
        "encode": {name: encoding(m, image) for name, m in matchers.items()},
    }
    for stage, work in stages.items():
        found = medians(work, given.repeat)
        ratio = found["onnx"] / found["torch"]
        print(f"{stage:8} torch {found['torch']:7.1f} ms, ONNX Runtime {found['onnx']:7.1f} ms: ratio {ratio:.2f}")
    if given.data is not None:
        pairs, matches, same = shares(matchers, given.data)
        print(f"{pairs} pairs of photos: {same} of {matches} matches ({same / matches:.2%}) within {NEAR_PX} px")


if __name__ == "__main__":
    main()
