"""ConDL's stage: which samples are told apart from which."""

from __future__ import annotations

import pytest
import torch

from ros2_densematch.training.stages.condl import CondlConfig, CondlModule
from ros2_densematch.training.stages.contrastive import contrastive_loss, sample_map
from ros2_densematch.training.stages.occlusion import OcclusionConfig


def batch_of(groups: list[int]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pairs = len(groups)
    images = torch.rand(2, pairs, 3, 32, 32, generator=generator)
    points = torch.rand(2, pairs, 20, 2, generator=generator) * 31
    valid = torch.arange(20) < torch.tensor([[20], [12]])
    return {
        "image0": images[0],
        "image1": images[1],
        "points0": points[0],
        "points1": points[1],
        "valid": valid,
        "group": torch.tensor(groups),
    }


def module_with(negatives: str) -> CondlModule:
    torch.manual_seed(0)
    return CondlModule(CondlConfig(negatives=negatives, occlusion=OcclusionConfig(chance=0))).eval()


def by_hand(module: CondlModule, batch: dict[str, torch.Tensor], members: list[list[int]]) -> torch.Tensor:
    from ros2_densematch.nn.resnet import imagenet_normalise

    sides = []
    for side in ("0", "1"):
        maps = module.network(imagenet_normalise(batch[f"image{side}"]))
        sides.append(sample_map(maps, batch[f"points{side}"], 32, 32))
    losses = []
    for numbers in members:
        seen = torch.cat([batch["valid"][n] for n in numbers])
        a, b = (torch.cat([side[n] for n in numbers])[seen] for side in sides)
        losses.append(contrastive_loss(a, b, module.config.temperature))
    return torch.stack(losses).mean()


@pytest.mark.parametrize(
    ("negatives", "groups", "members"),
    [
        ("pair", [1, 2], [[0], [1]]),
        ("batch", [1, 2], [[0, 1]]),
        ("batch", [1, 1], [[0], [1]]),  # what shows the same thing is no negative
    ],
)
def test_samples_are_told_apart_from_what_the_setting_says(
    negatives: str, groups: list[int], members: list[list[int]]
) -> None:
    module, batch = module_with(negatives), batch_of(groups)
    with torch.no_grad():
        assert torch.isclose(module.losses(batch)["loss"], by_hand(module, batch, members), atol=1e-5)
