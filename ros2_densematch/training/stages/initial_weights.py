"""What a stage starts from: weights files, names of the catalogue, classification networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ros2_densematch.weights.catalogue import SHIPPED, path_of
from ros2_densematch.weights.loading import load_exactly, read_state
from ros2_densematch.weights.official import OFFICIAL
from ros2_densematch.weights.store import checkpoint_path

# in place of a weights file: the initial values of the network, for tests
UNTRAINED = Path("random")


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
