"""Things that stand before a scene: patches of another picture over a training crop, and points that they hide."""

from __future__ import annotations

import math

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ros2_densematch.training.stages.base import Batch


class OcclusionConfig(BaseModel):
    """How often and how much is hidden."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chance: float = Field(0.5, ge=0, le=1, description="Something stands before this share of the images.")
    most: int = Field(3, ge=1, description="At most this many things stand before an image.")
    size: tuple[float, float] = Field(
        (0.08, 0.35), description="The width and height of these things lie between these shares of the crop."
    )


def occlude(batch: Batch, config: OcclusionConfig) -> Batch:
    """A copy of a batch of the common sample with parts of both images hidden.

    The things are turned rectangles and ellipses cut out of another image of the batch, or of one colour. Points that
    they hide in either image are no longer valid; so are pixels of the dense truth where there is one. Drawn from
    torch's random generator, whose state is part of a checkpoint.
    """
    count, _, height, width = batch["image0"].shape
    changed = dict(batch)
    for side in ("0", "1"):
        image = batch[f"image{side}"]
        hidden = _hidden(count, height, width, config, image.device)
        changed[f"image{side}"] = torch.where(hidden[:, None], _covers(image), image)
        changed["valid"] = changed["valid"] & ~_at(hidden, batch[f"points{side}"])
        if "warp_valid" in batch:
            lost = hidden if side == "0" else _at(hidden, torch.nan_to_num(batch["warp"]).flatten(1, 2)).view_as(hidden)
            changed["warp_valid"] = changed["warp_valid"] & ~lost
    return changed


def _hidden(count: int, height: int, width: int, config: OcclusionConfig, device: torch.device) -> Tensor:
    """bool (count, height, width): what something stands before."""
    shape = (count, config.most, 1, 1)
    y = torch.arange(height, device=device)[:, None] - height * torch.rand(shape, device=device)
    x = torch.arange(width, device=device)[None] - width * torch.rand(shape, device=device)
    angle = math.pi * torch.rand(shape, device=device)
    u, v = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    low, high = config.size
    half = (low + (high - low) * torch.rand((2, *shape), device=device)) / 2
    u, v = (u / (half[0] * width)).abs(), (v / (half[1] * height)).abs()
    round_things = torch.rand(shape, device=device) < 0.5
    inside = torch.where(round_things, u.square() + v.square() < 1, torch.maximum(u, v) < 1)
    number = torch.randint(1, config.most + 1, (count, 1, 1, 1), device=device)
    present = torch.arange(config.most, device=device)[None, :, None, None] < number
    chosen = torch.rand(count, 1, 1, device=device) < config.chance
    return (inside & present).any(1) & chosen


def _covers(image: Tensor) -> Tensor:
    """What the things look like: another image of the batch, mirrored and shifted, or one colour."""
    count, _, height, width = image.shape
    shifts = (int(torch.randint(height, ())), int(torch.randint(width, ())))
    texture = image.roll(1, 0).flip(-1).roll(shifts, (-2, -1))
    colour = torch.rand(count, 3, 1, 1, device=image.device).expand_as(image)
    plain = torch.rand(count, 1, 1, 1, device=image.device) < 0.4
    return torch.where(plain, colour, texture)


def _at(mask: Tensor, points: Tensor) -> Tensor:
    """The mask (B, H, W) at the pixels nearest to (B, N, 2) positions; False outside."""
    height, width = mask.shape[1:]
    x, y = points.round().long().unbind(-1)
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    index = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    return mask.flatten(1).gather(1, index) & inside
