"""Where each millisecond of a frame goes, and how far it is from the floor that operations and bytes set.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/time_spent.py gcm [roma dkm ncnet] [--size 640x480] [--threads 2]

A keyframe and a frame of the rendered flight of `densematch bench` are encoded, matched (for `gcm` also guided) and
given a pose. Each stage is timed without the stages inside it, and the medians stand in a table. A second run counts
the floating-point operations of the tensor operators and the bytes that they read and write. Divided by what a matrix
product and a copy reach on this machine in the same run, they give the least time that the stage could take. Operators
of OpenCV, NumPy and SciPy are not counted: their stages have no floor. Weights are those that ship, else random ones,
which take the same time.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ros2_densematch import estimate_relative_pose, load_matcher
from ros2_densematch.evaluation.timing import machine
from ros2_densematch.geometry.pose_config import PoseConfig
from ros2_densematch.matchers.prior import Prior
from ros2_densematch.simulation.flight import demo_camera, demo_flight
from ros2_densematch.simulation.renderer import render
from ros2_densematch.simulation.worlds import workshop

PACKAGE = "ros2_densematch"
POSE = {
    "pose: hypotheses": "geometry.hypotheses:search",
    "pose: refinement": "geometry.two_view:_refine",
    "pose: geometry class": "geometry.two_view:_gather",
}
DENSE = {
    "pyramid of features": "matchers.common.dense.matcher:DenseMatcher._coarse",
    "pyramid of the upsampling pass": "matchers.common.dense.matcher:DenseMatcher._fine",
    "Gaussian process, conditioning": "matchers.common.dense.network:DenseNetwork.condition",
    "Gaussian process, posterior": "nn.gaussian_process:GaussianProcess.forward",
    "refiners": "matchers.common.dense.network:DenseNetwork._refine",
    "sampling of matches": "matchers.common.dense.matcher:SampledMatcher._drawn",
}
STAGES = {
    "gcm": {
        "network": "matchers.gcm.network:GcmNetwork.forward",
        "key points": "matchers.gcm.encoding:detect",
        "cell anchors": "matchers.gcm.encoding:cell_anchors",
        "nearest neighbours": "matchers.gcm.candidates:mutual_with_margin",
        "local affine maps (coarse)": "matchers.gcm.candidates:estimate_local_affine",
        "alignment (coarse)": "matchers.gcm.candidates:refine",
        "growth": "matchers.gcm.matcher:grow",
        "alignment (grown)": "matchers.gcm.growth:refine",
        "filter: graph": "matchers.gcm.matcher:match_graph",
        "filter: network": "matchers.gcm.match_filter:MatchFilter.forward",
        "guided: flow": "matchers.gcm.guided:carry",
        "guided: local affine maps": "matchers.gcm.guided:_local_maps",
        "guided: templates": "matchers.gcm.guided_reference:GuidedReference.templates",
        "guided: alignment": "matchers.gcm.guided:align",
        "guided: score": "matchers.gcm.guided_score:GuidedScore.chance",
    },
    "roma": {**DENSE, "match decoder": "nn.match_decoder:TransformerMatchDecoder.forward"},
    "dkm": {**DENSE, "embedding decoder": "nn.dfn:DfnDecoder.forward"},
    "ncnet": {
        "features": "matchers.ncnet.network:NcnetNetwork.features",
        "neighbourhood consensus": "matchers.ncnet.network:NcnetNetwork.consensus",
        "4-D convolutions": "nn.conv4d:NeighConsensus.forward",
        "matches of the volume": "matchers.ncnet.matcher:best_matches",
    },
}
KEYFRAME, STEP = 40, 3


class Account:
    """Time, operations and bytes by stage, each without the stages inside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.operations: dict[str, float] = defaultdict(float)
        self.bytes: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    @property
    def current(self) -> str:
        return self._open[-1] if self._open else "outside"

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._close_slice()
        self._open.append(name)
        try:
            yield
        finally:
            self._close_slice()
            self._open.pop()

    def _close_slice(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


class Counted(TorchDispatchMode):
    """Adds the operations and bytes of every tensor operator to the open stage."""

    def __init__(self, account: Account) -> None:
        super().__init__()
        self.account = account

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet not in flop_registry and func is not torch.ops.prim.device.default:
            with self:
                parts = func.decompose(*args, **kwargs)
                if parts is not NotImplemented:
                    return parts
        out = func(*args, **kwargs)
        stage = self.account.current
        if packet in flop_registry:
            self.account.operations[stage] += flop_registry[packet](*args, **kwargs, out_val=out)
        if not func.is_view:
            seen = {id(t): t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)}
            self.account.bytes[stage] += sum(_touched(t) for t in seen.values())
        return out


def _touched(tensor: torch.Tensor) -> int:
    """Bytes behind a tensor, those of a repeated axis once."""
    sizes = [n for n, step in zip(tensor.shape, tensor.stride(), strict=True) if step]
    return min(int(np.prod(sizes)) * tensor.element_size(), tensor.untyped_storage().nbytes())


@contextmanager
def watched(stages: dict[str, str], account: Account) -> Iterator[None]:
    """Enters each named function of the package as a stage of the account."""
    with ExitStack() as stack:
        for label, place in stages.items():
            module, _, path = place.partition(":")
            owner: Any = importlib.import_module(f"{PACKAGE}.{module}")
            *outer, name = path.split(".")
            for attribute in outer:
                owner = getattr(owner, attribute)
            stack.enter_context(mock.patch.object(owner, name, _entered(getattr(owner, name), label, account)))
        yield


def _entered(function: Callable[..., Any], label: str, account: Account) -> Callable[..., Any]:
    @functools.wraps(function)
    def entered(*args: Any, **kwargs: Any) -> Any:
        with account.stage(label):
            return function(*args, **kwargs)

    return entered


def frame(matcher: Any, images: list[Any], camera: Any, account: Account) -> None:
    """One full frame against a keyframe that is encoded already, its pose, and the next frame guided by it."""
    keyframe = matcher.encode(images[0], reference=True)
    matcher.match(keyframe, matcher.encode(images[1]))
    for name in ("seconds", "operations", "bytes"):
        getattr(account, name).clear()
    with account.stage("encode: rest"):
        query = matcher.encode(images[1])
    with account.stage("match: rest"):
        matches = matcher.match(keyframe, query)
    with account.stage("pose: rest"):
        estimate_relative_pose(matches, camera, camera, config=PoseConfig())
    if matcher.uses_prior and any(label.startswith("guided") for label in STAGES[matcher.name]):
        # the frame after the first guided one: what a keyframe makes once is there
        first = matcher.match(keyframe, query, prior=Prior.from_previous(matches, query))
        prior = Prior.from_previous(first, query)
        for label in [name for name in account.seconds if name.startswith("guided")]:
            account.seconds[label] = 0.0
        with account.stage("guided: rest"):
            matcher.match(keyframe, matcher.encode(images[2]), prior=prior)


def peaks() -> tuple[float, float]:
    """Operations a second of a float32 matrix product and bytes a second of a copy, best of ten, here and now."""
    a = torch.rand(1536, 1536)
    source, target = torch.rand(2**25), torch.empty(2**25)

    def best(work: Callable[[], Any]) -> float:
        times = []
        for _ in range(10):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return min(times)

    return 2 * 1536.0**3 / best(lambda: a @ a), 2 * 4 * 2.0**25 / best(lambda: target.copy_(source))


def table(name: str, images: list[Any], camera: Any, repeat: int, peak: tuple[float, float]) -> None:
    """Prints the stages of one matcher, longest first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of random weights: see above
        matcher = load_matcher(name, device="cpu", **({"weights": None} if name == "gcm" else {"weights": "random"}))
    stages = {**STAGES[name], **POSE}
    account, rows = Account(), []
    with watched(stages, account), torch.inference_mode():
        for _ in range(repeat + (repeat > 1)):  # one to warm up, where there is more than one
            frame(matcher, images, camera, account)
            rows.append(dict(account.seconds))
        rows = rows[-repeat:]
        with Counted(account):
            frame(matcher, images, camera, account)
    median = {stage: 1e3 * float(np.median([row.get(stage, 0.0) for row in rows])) for stage in rows[-1]}
    print(f"\n| {name}: stage | ms | Gflop | MB | floor, ms |\n| --- | --: | --: | --: | --: |")
    for stage in sorted(median, key=lambda s: -median[s]):
        operations, moved = account.operations.get(stage, 0.0), account.bytes.get(stage, 0.0)
        floor = 1e3 * max(operations / peak[0], moved / peak[1])
        known = f"{operations / 1e9:.2f} | {moved / 1e6:.0f} | {floor:.1f}" if moved > 1e5 else "– | – | –"
        print(f"| {stage} | {median[stage]:.1f} | {known} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("matchers", nargs="+", choices=STAGES)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    width, height = (int(n) for n in options.size.split("x"))
    camera = demo_camera(width, height)
    flight = demo_flight().T_world_from_camera
    images = [render(workshop(), camera, flight[KEYFRAME + STEP * i]).image for i in range(3)]
    peak = peaks()
    print(f"{machine()['processor']}, {options.threads} threads, {options.size}: a matrix product reaches ", end="")
    print(f"{peak[0] / 1e9:.0f} Gflop/s, a copy {peak[1] / 1e9:.1f} GB/s. Milliseconds, medians of {options.repeat}.")
    for name in options.matchers:
        table(name, images, camera, options.repeat, peak)


if __name__ == "__main__":
    main()
