"""What the stages share: a training step that logs the parts of a loss, learning rate schedules, initial weights."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import lightning
import torch
from torch import Tensor, nn

from ros2_densematch.weights.catalogue import SHIPPED, path_of
from ros2_densematch.weights.loading import load_exactly, read_state
from ros2_densematch.weights.official import OFFICIAL
from ros2_densematch.weights.store import checkpoint_path

Batch = dict[str, Tensor]
# in place of a weights file: the initial values of the network, for tests
UNTRAINED = Path("random")
ModuleT = TypeVar("ModuleT", bound=nn.Module)


class StageModule(lightning.LightningModule):
    """A stage that has one network, one optimiser and a loss made of named parts."""

    network: nn.Module

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The sum to minimise, `loss`, and what else is worth a curve, detached."""

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        losses = self.losses(batch)
        self.log_dict({f"train/{name}": value for name, value in losses.items()}, prog_bar=True)
        return losses["loss"]

    def start_from(self, state: dict[str, Tensor]) -> None:
        """Takes over what earlier stages exported under this network's names."""
        own = self.network.state_dict()
        known = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
        self.network.load_state_dict(known, strict=False)


def scheduled(optimizer: torch.optim.Optimizer, factor: Any) -> dict[str, Any]:
    """An optimiser with `factor(step)` on its learning rates, as Lightning takes it."""
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class CosineDecay:
    """A linear warm-up, then half a cosine down to a hundredth."""

    def __init__(self, total: int, warmup: int = 0) -> None:
        self._total, self._warmup = total, warmup

    def __call__(self, step: int) -> float:
        if step < self._warmup:
            return (step + 1) / self._warmup
        progress = (step - self._warmup) / max(1, self._total - self._warmup)
        return max(0.01, 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


class Milestones:
    """Times `gamma` at each of the given shares of the training."""

    def __init__(self, total: int, shares: Sequence[float], gamma: float) -> None:
        self._steps, self._gamma = [share * total for share in shares], gamma

    def __call__(self, step: int) -> float:
        return float(self._gamma ** sum(step >= milestone for milestone in self._steps))


def initial_state(weights: Path) -> dict[str, Tensor]:
    """The tensors that a recipe's `initial_weights` names.

    Args:
        weights: a safetensors file, or a name of the catalogue: shipped weights, or a fetched official checkpoint.

    Raises:
        FileNotFoundError: no such file, or the official checkpoint was not fetched; the message names the command.
        ValueError: not a safetensors file.
    """
    name = str(weights)
    if not weights.is_file():
        if name in SHIPPED:
            return read_state(path_of(name))
        if name in OFFICIAL:
            return read_state(checkpoint_path(name))
        if weights.suffix != ".safetensors":
            names = ", ".join(sorted([*SHIPPED, *OFFICIAL]))
            raise FileNotFoundError(
                f"no initial weights {weights}: give a safetensors file, or a name of the catalogue ({names})"
            )
    return read_state(weights)


def load_initial(network: nn.Module, weights: Path) -> None:
    """Loads `initial_weights` into a network; all of its keys must be there.

    Raises:
        FileNotFoundError: see `initial_state`.
        ValueError: they belong to another network.
    """
    load_exactly(network, initial_state(weights), weights)


def backbone_state(weights: Path) -> dict[str, Tensor]:
    """The tensors of a classification network in torchvision's layout.

    Args:
        weights: a name of the catalogue (vgg19_bn, resnet101, ...), or the published file.

    Raises:
        FileNotFoundError: no such file, or not fetched.
        ValueError: damaged, or no state dictionary.
    """
    if str(weights) in OFFICIAL and not weights.is_file():
        return read_state(checkpoint_path(str(weights)))
    from ros2_densematch.weights.checkpoint import read_container

    content = read_container(weights)
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"{weights} is not a state dictionary: give the file as torchvision publishes it")
    return dict(content)


def load_backbone(module: nn.Module, state: Mapping[str, Tensor], weights: Path, renamed: Mapping[str, str]) -> None:
    """Loads the part of a classification network that a module consists of.

    Args:
        module: the part.
        state: of `backbone_state`.
        weights: what it was read from, for the message.
        renamed: first part of the module's keys -> first part of the state's keys, where they differ.

    Raises:
        ValueError: a tensor is missing or has another shape.
    """
    own = module.state_dict()
    found = {}
    for key in own:
        head, _, rest = key.partition(".")
        name = f"{renamed.get(head, head)}.{rest}"
        if name in state and state[name].shape == own[key].shape:
            found[key] = state[name]
        elif key.endswith("num_batches_tracked"):
            found[key] = own[key]
    missing = sorted(own.keys() - found.keys())
    if missing:
        raise ValueError(
            f"{weights} does not fit {type(module).__name__}: {len(missing)} tensors are missing or of another shape, "
            f"the first is {missing[0]}"
        )
    module.load_state_dict(found)
