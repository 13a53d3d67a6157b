"""Tries every recipe on tiny generated data: does its loss on one fixed batch fall, and do its weights load?

`make train-smoke` prints a table and fails where a loss does not fall by a fifth within twenty steps. Each recipe runs
as it ships, but for the changes in `TINY`: sizes, where the data lies, raised learning rates, and untrained encoders
where the published ones would have to be fetched.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import default_collate

from ros2_densematch.matchers.registry import load_matcher
from ros2_densematch.matchers.roma.network import RomaNetwork
from ros2_densematch.training.data.dataset import PairDataset
from ros2_densematch.training.data.source import Opening
from ros2_densematch.training.data.sources import open_sources
from ros2_densematch.training.recipe import Recipe
from ros2_densematch.training.run.files import write_weights
from ros2_densematch.training.stages.base import Stage, exported_state
from ros2_densematch.training.stages.registry import build_stage

STEPS = 20
# a fall of a fifth, and of this much where the first loss is near zero
SHARE = 0.2
LEAST = 0.01

_PHOTOS = {"kind": "photos", "weight": 1, "folder": "photos"}
_PAIRS = {"kind": "pairs_csv", "weight": 1, "folder": "pairs.csv"}
_DENSE = {"size": 112, "dense": True, "batch_pairs": 1}
_RAISED = {"learning_rate": 5e-4, "encoder_learning_rate": 2.5e-5, "batch_pairs": 8}
# the teacher and the start of what is tried from scratch: the weights that ship
_TAUGHT = {"teacher_weights": "gcm", "imagenet": False}


@dataclass(frozen=True)
class Tiny:
    """What is changed in a recipe.

    Attributes:
        data: fields of `data`.
        stages: fields of each stage's settings.
        options: of `load_matcher` when the weights are tried.
    """

    data: dict[str, Any]
    stages: list[dict[str, Any]]
    options: dict[str, Any]


TINY: dict[str, Tiny] = {
    "cnngeometric": Tiny(
        {"size": 240, "batch_pairs": 2, "sources": [_PHOTOS]}, [{"encoder_weights": "random"}], {"preset": "base"}
    ),
    "condl": Tiny({"size": 64, "sources": [_PHOTOS]}, [{"warmup_steps": 0}], {"preset": "turbo"}),
    "distill-dense": Tiny(
        {"size": 128, "batch_pairs": 2, "sources": [_PHOTOS]},
        [
            {
                # any matcher can teach; this one is here, but starts without what it could teach
                "teacher": {"matcher": "gcm", "preset": "turbo", "min_matches": 20},
                "pairs": 2,
                "size": 128,
                "settings": {**_TAUGHT, "warmup_steps": 0},
            }
        ],
        {"preset": "turbo"},
    ),
    "dkm": Tiny(
        {**_DENSE, "sources": [_PHOTOS]},
        [{"encoder_weights": "random", **_RAISED}],
        {"coarse_size": (112, 112), "upsample_size": False},
    ),
    "finetune": Tiny(
        {"size": 64, "batch_pairs": 2, "sources": [_PHOTOS]},
        [{"initial_weights": None, "keeps_statistics": False, "learning_rate": 1e-3, "warmup_steps": 0}],
        {"preset": "turbo"},
    ),
    "gcm-distill": Tiny(
        {"size": 64, "batch_pairs": 1, "sources": [_PHOTOS]},
        [{"teacher": "r2d2_WASF_N16", "teacher_folder": None, "teacher_weights": "random", "learning_rate": 3e-3}],
        {"preset": "turbo", "backbone_weights": "random"},
    ),
    "gcm-small": Tiny(
        {"size": 64, "batch_pairs": 2, "sources": [_PHOTOS]},
        [
            {"teacher_folder": None, **_TAUGHT, "warmup_steps": 0},
            {"initial_weights": "gcm", "graphs": 2, "learning_rate": 5e-2},  # a fiftieth of it at first
        ],
        {"preset": "turbo"},
    ),
    "ncnet-weak": Tiny(
        {"size": 112, "batch_pairs": 4, "sources": [_PAIRS]},
        [{"encoder_weights": "random", "learning_rate": 5e-3}],
        {"preset": "small"},
    ),
    "roma": Tiny(
        {**_DENSE, "sources": [_PHOTOS]},
        [{"encoder_weights": "random", "dinov2_weights": "random", **_RAISED}],
        {"coarse_size": (112, 112), "upsample_size": False},
    ),
    "roma_v2": Tiny(
        {**_DENSE, "sources": [_PHOTOS]},
        [
            {
                "size": "small",
                "dinov3_weights": "random",
                "vgg_weights": "random",
                "learning_rate": rate,
                "batch_pairs": 8,
            }
            for rate in (2e-3, 1e-3)
        ],
        {"coarse_size": (112, 112)},
    ),
    "sparse-ncnet-weak": Tiny(
        {"size": 112, "batch_pairs": 4, "sources": [_PAIRS]},
        [{"encoder_weights": "random", "learning_rate": 5e-3}],
        {"preset": "small"},
    ),
    "weakalign": Tiny(
        {"size": 240, "batch_pairs": 2, "sources": [_PAIRS]},
        [{"encoder_weights": "random"}, {"learning_rate": 1e-4}],
        {"preset": "base"},
    ),
}


@dataclass(frozen=True)
class Tried:
    """How a stage did.

    Attributes:
        stage: its name.
        losses: on the fixed batch, before each step and at the end.
        seconds: of processor time that it took.
    """

    stage: str
    losses: list[float]
    seconds: float

    @property
    def fell(self) -> bool:
        """Whether the loss fell by a fifth of its first absolute value."""
        return self.losses[-1] <= enough(self.losses[0])


def enough(first: float) -> float:
    """What a loss has to come down to, from its first value."""
    return first - max(SHARE * abs(first), LEAST)


def tiny_recipe(path: Path) -> Recipe:
    """A shipped recipe with its changes for tiny data."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    tiny = TINY[path.stem]
    content["data"] = {**content["data"], **tiny.data, "workers": 0}
    for stage, changes in zip(content["stages"], tiny.stages, strict=True):
        stage["settings"] = {**stage["settings"], **changes}
        stage.pop("batch_pairs", None)
    return Recipe.model_validate(content)


def try_recipe(path: Path, data: Path, out: Path) -> list[Tried]:
    """Runs the stages of a recipe on a fixed batch each, and loads the weights into their matcher.

    Args:
        path: of the recipe.
        data: from `generate`.
        out: folder that is not there yet.
    """
    out.mkdir(parents=True)
    recipe = tiny_recipe(path)
    options = dict(TINY[path.stem].options)
    tried, state, metadata = [], dict[str, Tensor](), {"matcher": recipe.matcher}
    for number, stage in enumerate(recipe.stages):
        start = time.process_time()
        torch.manual_seed(number)
        module = build_stage(stage, data)
        if state and "initial_weights" not in TINY[path.stem].stages[number]:
            module.start_from(state)
        if isinstance(network := getattr(module, "network", None), RomaNetwork):
            options["dinov2_weights"] = network.dinov2.state_dict()
        batch = _batch(recipe, module, data, out)
        losses = list(_descend(module, batch, stage.gradient_clip))
        state |= exported_state(module)
        metadata |= module.metadata()
        tried.append(Tried(stage.stage, losses, time.process_time() - start))
    weights = out / "last.safetensors"
    write_weights(weights, state, metadata)
    matcher = load_matcher(recipe.matcher, device="cpu", weights=str(weights), **options)
    images = [texture(k, 160, 128) for k in range(2)]
    matcher.match(*(matcher.encode(image) for image in images))
    return tried


def _batch(recipe: Recipe, module: Stage, data: Path, out: Path) -> dict[str, Tensor]:
    settings = recipe.data
    sources = open_sources(settings.sources, data, Opening(out, lambda *_: None, dense=settings.dense))
    dataset = module.make_dataset(sources, out, settings.photometric)
    if dataset is None:
        dataset = PairDataset(
            sources,
            size=settings.size,
            max_points=settings.max_points,
            photometric=settings.photometric,
            dense=settings.dense,
        )
    batch: dict[str, Tensor] = default_collate([dataset[i] for i in range(settings.batch_pairs)])
    return batch


def _descend(module: Stage, batch: dict[str, Tensor], clip: float) -> Iterator[float]:
    """The loss before each step; ends early where it stays a fifth below the first."""
    configured: Any = module.configure_optimizers()
    optimizer: torch.optim.Optimizer = configured["optimizer"] if isinstance(configured, dict) else configured
    module.train()
    replays = [_Replay(encoder) for encoder in _frozen_encoder(module)]
    first = float("nan")
    low = 0
    for step in range(STEPS + 1):
        for replay in replays:
            replay.rewind()
        torch.manual_seed(0)  # what a stage draws is a part of the fixed batch
        result: Any = module.training_step(batch, 0)
        loss = float(result.detach())
        yield loss
        first = loss if step == 0 else first
        low = low + 1 if loss <= enough(first) else 0
        if step == STEPS or low == 2:
            break
        optimizer.zero_grad()
        result.backward()
        nn.utils.clip_grad_norm_(module.parameters(), clip)
        optimizer.step()
    for replay in replays:
        replay.remove()


class _Replay:
    """A frozen encoder that runs once: its features of a fixed batch do not change."""

    def __init__(self, encoder: nn.Module) -> None:
        self._encoder = encoder
        self._run = encoder.forward
        self._outputs: list[Any] = []
        self._next = 0
        vars(encoder)["forward"] = self._replay

    def rewind(self) -> None:
        """To be called before each step: the calls come in the same order in all of them."""
        self._next = 0

    def remove(self) -> None:
        del vars(self._encoder)["forward"]

    def _replay(self, image: Tensor) -> Any:
        if self._next == len(self._outputs):
            with torch.no_grad():
                self._outputs.append(self._run(image))
        self._next += 1
        return self._outputs[self._next - 1]


def _frozen_encoder(module: Stage) -> list[nn.Module]:
    """The encoder that the module only reads, if there is one."""
    network: Any = getattr(module, "network", None)
    encoder = network.dinov2 if isinstance(network, RomaNetwork) else getattr(network, "FeatureExtraction", None)
    return [] if encoder is None or any(p.requires_grad for p in encoder.parameters()) else [encoder]


def texture(seed: int, width: int, height: int) -> NDArray[np.uint8]:
    """A generated picture: coloured noise of several scales with shapes before it, uint8 RGB (height, width, 3)."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float32)
    for cells in (4, 9, 20, 45):
        noise = rng.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * (60 / cells**0.3)
    picture += 128
    for _ in range(25):
        corners = rng.uniform(0, 1, 2) * [width, height] + rng.uniform(-0.15, 0.15, (4, 2)) * width
        cv2.fillPoly(picture, [corners.astype(np.int32)], rng.uniform(0, 255, 3).tolist())
    return np.clip(picture, 0, 255).astype(np.uint8)


def generate(folder: Path, photos: int = 6) -> None:
    """Photos, and pairs of them with a slightly turned copy (`pairs.csv`)."""
    (folder / "photos").mkdir(parents=True)
    lines = ["image0,image1,class"]
    for k in range(photos):
        picture = texture(k, 256, 192)
        turned = cv2.warpAffine(picture, cv2.getRotationMatrix2D((128, 96), 5 + 2 * k, 1.1), (256, 192))
        for name, image in (("a", picture), ("b", turned)):
            cv2.imwrite(str(folder / "photos" / f"{k}{name}.jpg"), image[..., ::-1])
        lines.append(f"photos/{k}a.jpg,photos/{k}b.jpg,{k}")
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> int:
    """Tries recipes; 1 where a loss does not fall."""
    parser = argparse.ArgumentParser(prog="python test/training/smoke.py", description=__doc__)
    parser.add_argument("recipes", nargs="+", type=Path, help="config/training/*.yaml")
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder) / "data")
        for path in parser.parse_args().recipes:
            for tried in try_recipe(path, Path(folder) / "data", Path(folder) / path.stem):
                failed += not tried.fell
                losses = f"{tried.losses[0]:9.4f} -> {tried.losses[-1]:9.4f} in {len(tried.losses) - 1:2d} steps"
                mark = "ok" if tried.fell else "DID NOT FALL BY A FIFTH"
                print(f"{path.stem:18} {tried.stage:20} {losses} {tried.seconds:6.1f} s  {mark}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
