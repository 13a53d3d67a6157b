"""The distilled descriptor of `gcm` beside its teacher: likeness, speed, and accuracy of both in the same matcher.

    OMP_NUM_THREADS=1 python benchmarks/distillation.py --data ../shared/data --teachers FOLDER --out out/distill.json

FOLDER holds `EdgePoint2`, a clone of HITCSC/EdgePoint2. Likeness is the mean cosine of the two maps at stride 4, on
images of the development data, which the student never saw. Speed is that of the networks alone, both of which also
draw a score for every pixel: processor time of one thread at 640 x 480. Accuracy: as `backbones.py`, without the
learned filter.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from backbones import matcher_of, measure
from pairs import load, pose_rows, write_results
from torch import Tensor
from torch.nn import functional

from ros2_densematch.matchers.gcm.matcher import GcmMatcher
from ros2_densematch.matchers.gcm.network import parameter_count
from ros2_densematch.training.stages.teachers import EdgePoint2Teacher


def images(data: Path, count: int) -> list[Path]:
    """Evenly spread images of the pose pairs and all first images of the homography sets."""
    posed = sorted({path for _, *paths, _ in pose_rows(data) for path in paths})
    return posed[:: max(1, len(posed) // count)] + [f / "1.png" for f in sorted((data / "homography").iterdir())]


@torch.inference_mode()
def cosines(student: Callable[[Tensor], Tensor], teacher: Callable[[Tensor], Tensor], paths: list[Path]) -> list[float]:
    """Mean cosine of the maps of each image."""
    found = []
    for path in paths:
        image, _ = load(path)
        height, width = (side // 32 * 32 for side in image.shape[:2])
        tensor = torch.from_numpy(image[:height, :width].copy()).permute(2, 0, 1)[None].float() / 255
        found.append(float((student(tensor) * teacher(tensor)).sum(1).mean()))
    return found


@torch.inference_mode()
def milliseconds(networks: dict[str, Callable[[Tensor], Any]], repeats: int = 11) -> dict[str, float]:
    """Median processor time of one pass at 640 x 480, the networks in turns: other work then slows all of them."""
    image = torch.rand(1, 3, 480, 640).contiguous(memory_format=torch.channels_last)
    taken: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(repeats + 1):
        for name, network in networks.items():
            start = time.process_time()
            network(image)
            taken[name].append(1e3 * (time.process_time() - start))
    return {name: round(float(np.median(times[1:])), 1) for name, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--teachers", type=Path, default=Path("teachers"))
    parser.add_argument("--out", type=Path, default=Path("out/distillation.json"))
    parser.add_argument("--every", type=int, default=4, help="use every n-th pose pair")
    parser.add_argument("--images", type=int, default=40, help="how many the cosine is measured on, about")
    arguments = parser.parse_args()
    student_network = GcmMatcher(device="cpu").network
    teacher = EdgePoint2Teacher(arguments.teachers / "EdgePoint2")
    paths = images(arguments.data, arguments.images)
    likeness = cosines(
        lambda image: functional.normalize(student_network(image).descriptors, dim=1),
        lambda image: teacher(image)[0],
        paths,
    )
    taken = milliseconds({"teacher": teacher, "student": student_network})
    rows = {
        "teacher: EdgePoint2 E64": {
            "parameters": parameter_count(teacher),
            "network_ms": taken["teacher"],
            **measure(matcher_of("EdgePoint2 E64", arguments.teachers), arguments.data, arguments.every),
        },
        "student: gcm": {
            "parameters": parameter_count(student_network),
            "network_ms": taken["student"],
            **measure(matcher_of("ours", arguments.teachers), arguments.data, arguments.every),
        },
    }
    spread = [round(float(v), 3) for v in np.percentile(likeness, [10, 50, 90])]
    result = {
        "images": len(paths),
        "cosine": {"mean": round(float(np.mean(likeness)), 3), "percentiles_10_50_90": spread},
        "rows": rows,
    }
    print(json.dumps(result, indent=1))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_results(arguments.out, result)


if __name__ == "__main__":
    main()
