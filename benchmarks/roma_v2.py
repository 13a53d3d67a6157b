"""What RoMa v2 costs on a CPU, beside the figures of the published code.

    python benchmarks/roma_v2.py reuse --preset base --dtype bfloat16     # a frame against a kept keyframe
    python benchmarks/roma_v2.py memory --preset base --dtype bfloat16    # peak resident memory, loading included
    python benchmarks/roma_v2.py sampling                                 # balanced sampling of 5000 matches
    python benchmarks/roma_v2.py accuracy --golden DIR                    # what bfloat16 and float16 cost

One thread, processor time, untrained weights (they do not change the amount of work), a random picture. `reuse` begins
with all 24 blocks of the backbone and an untiled local correlation, and adds one change a row; a row is measured both
ways in turns, both images encoded anew and a frame against a kept keyframe. Its ratio is the last row's kept keyframe
over the first row's both images. `memory` and `reuse` load a weights file, which they write where there is none.
`accuracy` needs the golden vectors: it compares the number formats with the float32 arrays that are stored there.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from keyframe_reuse import sampled_correlation
from torch import Tensor

from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.roma_v2 import refiner
from ros2_densematch.matchers.roma_v2.encoding import RomaV2Encoding
from ros2_densematch.matchers.roma_v2.matcher import RomaV2Matcher
from ros2_densematch.matchers.roma_v2.network import RomaV2Network
from ros2_densematch.nn.dinov3 import PATCH, STORAGE_TOKENS, Dinov3
from ros2_densematch.nn.transformer import TransformerBlock

# of the published code, one CPU thread: seconds of a match, and GB of memory at their largest
PUBLISHED_SECONDS = {
    ("turbo", "bfloat16"): 7.7,
    ("turbo", "float32"): 12.8,
    ("fast", "bfloat16"): 22.2,
    ("fast", "float32"): 39.5,
    ("base", "bfloat16"): 40.7,
    ("base", "float32"): 62.3,
    ("precise", "bfloat16"): 188.4,
}
PUBLISHED_GB = {
    ("turbo", "bfloat16"): 4.8,
    ("turbo", "float32"): 5.4,
    ("fast", "bfloat16"): 5.1,
    ("fast", "float32"): 5.5,
    ("base", "bfloat16"): 5.6,
    ("base", "float32"): 6.2,
    ("precise", "bfloat16"): 13.2,
}


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (480, 640, 3), dtype=np.uint8) for _ in range(2)]


# what each row has that the published code has not; every row has what the rows above it have
ROWS = ("published", "blocks", "tiles", "shares")


def reuse(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every row in a process of its own, so that its peak memory is its own."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        file = arguments.weights or Path(folder) / "weights.safetensors"
        if not file.exists():
            run_child("write", arguments, file)
        for row in arguments.rows:
            rows[row] = run_child("row", arguments, file, "--rows", row)
            print(row, rows[row], file=sys.stderr, flush=True)
    if {"published", "shares"} <= rows.keys():
        rows["ratio"] = rows["shares"]["kept_s"] / rows["published"]["both_s"]
    return {**rows, "most": 0.62, "published_s": PUBLISHED_SECONDS.get((arguments.preset, arguments.dtype))}


def row(arguments: argparse.Namespace) -> dict[str, Any]:
    """One row, both ways in turns: both images encoded anew, and a frame against a kept keyframe."""
    on = ROWS[: ROWS.index(arguments.rows[0]) + 1]
    matcher = RomaV2Matcher(
        device="cpu",
        preset=arguments.preset,
        weights=str(arguments.weights),
        dtype=arguments.dtype,
        keep_shares="shares" in on,
    )
    unused = torch.nn.ModuleList(
        TransformerBlock(1024, 16, qkv_bias=True, layer_scale=True, eps=1e-5, masked_key_bias=True)
        for _ in range(0 if "blocks" in on else 6)
    )
    unused.to(matcher.network.f.cls_token.dtype).requires_grad_(False)
    a, b = pictures()
    seconds: dict[str, list[float]] = {"both_s": [], "kept_s": []}
    with ExitStack() as stack:
        if "tiles" not in on:
            stack.enter_context(patch.object(refiner, "local_correlation", sampled_correlation))
        if "blocks" not in on:
            stack.enter_context(patch.object(Dinov3, "forward", lambda self, image: all_blocks(self, unused, image)))
        keyframe = matcher.encode(a, reference=True)
        for _ in range(arguments.frames):
            for name in seconds:
                start = time.process_time()
                matcher.dense(keyframe if name == "kept_s" else matcher.encode(a), matcher.encode(b))
                seconds[name].append(time.process_time() - start)
    best = {name: min(values) for name, values in seconds.items()}
    return {**best, "peak_gib": peak_gb() * 1e9 / 2**30, "keyframe_mib": keyframe_bytes(matcher, keyframe.data) / 2**20}


def keyframe_bytes(matcher: RomaV2Matcher, encoding: RomaV2Encoding) -> int:
    """Memory of an encoded keyframe, with its share of the refiners where that is kept."""
    layers = encoding.layers
    tensors = [] if layers is None else [layers.first, layers.second]
    tensors += [encoding.tokens] if encoding.tokens is not None else []
    tensors += encoding.fine_levels or []
    for maps in (encoding.low, encoding.high, *(matcher._last_shares or ())):
        tensors += (maps or {}).values()
    return encoding.image.nbytes + sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors}.values())


def all_blocks(backbone: Dinov3, unused: torch.nn.ModuleList, image: Tensor) -> list[Tensor]:
    """As the published code: what the last six blocks give is thrown away."""
    x = backbone.tokens(image)
    rotation = backbone.rotation(image.shape[-2] // PATCH, image.shape[-1] // PATCH).to(x)
    found = []
    for i, block in enumerate([*backbone.blocks, *unused]):
        x = block(x, rotation)
        if i in (11, 17):
            found.append(backbone.norm(x)[:, 1 + STORAGE_TOKENS :])
    return found


def memory(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = arguments.weights or Path(folder) / "weights.safetensors"
        if not file.exists():
            run_child("write", arguments, file)
        return run_child("one", arguments, file)


def run_child(what: str, arguments: argparse.Namespace, file: Path, *more: str) -> dict[str, Any]:
    options = ["--preset", arguments.preset, "--dtype", arguments.dtype, "--weights", str(file), *more]
    options += ["--frames", str(arguments.frames)]
    child = subprocess.run([sys.executable, __file__, what, *options], stdout=subprocess.PIPE, text=True)
    if child.returncode:
        sys.exit(f"{what} failed with exit code {child.returncode}")
    result: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return result


def write(arguments: argparse.Namespace) -> dict[str, Any]:
    from safetensors.torch import save_file

    save_file(RomaV2Network().state_dict(), str(arguments.weights), {"version": "2.0.1"})
    return {}


def one(arguments: argparse.Namespace) -> dict[str, Any]:
    """Loads, encodes and matches; the peak is that of the whole process."""
    matcher = RomaV2Matcher(
        device="cpu", preset=arguments.preset, weights=str(arguments.weights), dtype=arguments.dtype
    )
    loaded = peak_gb()
    a, b = pictures()
    start = time.process_time()
    matches: Correspondences = matcher.match(matcher.encode(a, reference=True), matcher.encode(b))
    seconds = time.process_time() - start
    published = PUBLISHED_GB.get((arguments.preset, arguments.dtype))
    share = None if published is None else peak_gb() / published
    return {
        "matches": len(matches),
        "match_s": seconds,
        "published_s": PUBLISHED_SECONDS.get((arguments.preset, arguments.dtype)),
        "loaded_gb": loaded,
        "peak_gb": peak_gb(),
        "published_gb": published,
        "share": share,
        "most": 0.6,
    }


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def sampling(arguments: argparse.Namespace) -> dict[str, Any]:
    from ros2_densematch.matchers.common.dense.sampling import Sampling, sample_matches
    from ros2_densematch.nn.grid import cell_centres

    cells = cell_centres(640, 640).flatten(1).T
    generator = torch.Generator().manual_seed(0)
    flow = 0.8 * cells + 0.03 * torch.randn(cells.shape, generator=generator)
    rows = torch.cat([cells, flow], 1)
    certainty = torch.rand(len(cells), generator=generator)
    found = {}
    for name, points in (("ours_s", 3000), ("exact_s", None)):
        settings = Sampling(mode="certainty", density_points=points)
        start = time.process_time()
        sample_matches(certainty, lambda i: rows[i], 5000, settings, generator)
        found[name] = time.process_time() - start
    return {**found, "published_s": "11 to 14", "most": 1.5}


def accuracy(arguments: argparse.Namespace) -> dict[str, Any]:
    """Median, 99.9 percentile and maximum of the differences to the golden float32 results, beside the sheet's."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test" / "golden"))
    from golden_set import Golden
    from roma_v2_weights import roma_v2_state

    golden = Golden(arguments.golden, {})
    expected = golden.open("roma_v2", "forward")
    state = roma_v2_state(expected)
    found: dict[str, Any] = {}
    for dtype in ("bfloat16", "float16"):
        matcher = RomaV2Matcher(
            device="cpu",
            weights=state,
            version="2.0.1",
            dtype=dtype,
            coarse_size=tuple(expected.settings["coarse_res_hw"]),
            upsample_size=tuple(expected.settings["upsample_res_hw"]),
            direction="both",
        )
        forward = matcher.dense(matcher.encode(golden.image("A")), matcher.encode(golden.image("B")))[0]
        for name, got in (("warp_AB", forward.flow), ("overlap_AB", forward.certainty[..., None])):
            gap = np.abs(got[None, ::4, ::4].numpy() - expected.arrays[name])
            found[f"{dtype} {name}"] = [float(np.quantile(gap, q)) for q in (0.5, 0.999, 1)]
    for name in ("warp_AB", "overlap_AB"):
        entry = expected.settings["arrays"][name]
        found[f"published bfloat16 {name}"] = [entry[f"gap_bf16_f32_{part}"] for part in ("median", "p999", "max")]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = {f.__name__: f for f in (reuse, memory, sampling, accuracy, write, one, row)}
    parser.add_argument("what", choices=list(what))
    parser.add_argument("--preset", choices=list(RomaV2Matcher.PRESETS), default="base")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--frames", type=int, default=1, help="of `reuse`; the fastest counts")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="of `reuse`")
    parser.add_argument("--weights", type=Path, help="of `memory` and `reuse`: this file; written where there is none")
    parser.add_argument("--golden", type=Path, default=Path("../shared/golden"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(what[arguments.what](arguments)))


if __name__ == "__main__":
    main()
