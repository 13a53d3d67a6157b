"""What a stage of training is: one class with a default for everything that most stages do alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
from torch import Tensor, nn
from torch.utils.data import Dataset

from ros2_densematch.training.data.photometric import PhotometricConfig
from ros2_densematch.training.data.source import PairSource

Batch = dict[str, Tensor]


class Stage(lightning.LightningModule):
    """A stage, made from its configuration alone: `Stage(config)`.

    A subclass sets `network`, gives `losses` and `configure_optimizers`, and overrides what it does in another way. It
    is registered with its configuration in `stages.registry`; the field `max_steps` of the configuration, where there
    is one, is set from the recipe.

    Attributes:
        network: what is trained and exported.
    """

    network: nn.Module

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The sum to minimise, `loss`, and what else is worth a curve, detached.

        Args:
            batch: of the common sample (`training.data.sample`), or of what `make_dataset` gives.
        """
        raise NotImplementedError(f"{type(self).__name__} gives neither losses nor a training step of its own")

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        losses = self.losses(batch)
        self.log_dict({f"train/{name}": value for name, value in losses.items()}, prog_bar=True)
        return losses["loss"]

    def start_from(self, state: dict[str, Tensor]) -> None:
        """Takes over, before training starts, what the stages before exported under this network's names."""
        own = self.network.state_dict()
        known = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
        self.network.load_state_dict(known, strict=False)

    def export_state(self) -> dict[str, Tensor]:
        """What the stage ships; it replaces what an earlier stage exported under the same name."""
        return dict(self.network.state_dict())

    def metadata(self) -> dict[str, str]:
        """What the weights file says in addition, for example which version of the network it is for."""
        return {}

    def make_dataset(
        self, sources: Sequence[tuple[PairSource, float]], out: Path, photometric: PhotometricConfig
    ) -> Dataset[Any] | None:
        """Samples of the stage's own (index -> sample, for any index), or None for pairs of crops.

        Args:
            sources: the recipe's, with their weights.
            out: output folder, for what is made once and kept.
            photometric: how the recipe changes images.
        """
        return None


def exported_state(stage: Stage) -> dict[str, Tensor]:
    """What a stage ships: contiguous CPU tensors by name, copies of its own."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in stage.export_state().items()}
