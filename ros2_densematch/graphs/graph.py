"""What a graph is: a part of a matcher that takes and gives tensors of fixed shape, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Graph:
    """A part of a matcher, ready to be written as a graph.

    Attributes:
        name: for messages, as "gcm encoder".
        module: takes the inputs in their order and returns a tensor or a tuple of tensors; in evaluation mode.
        inputs: name -> tensor of the shape that the graph gets, with values that mean something: the graph is compared
            with PyTorch on them.
        outputs: name -> what it is, in the order in which the module returns them.
        preparation: name of an input -> how it is made.
        multiple: where height and width of the (1, C, H, W) inputs may be left open, what they must be multiples of;
            0 where they may not.
        table: outputs (1, K, ...) whose rows belong together, first the places (1, K, 2) by which a row is known;
            rounding may exchange rows.
        facts: what else belongs into the sidecar.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, str]
    preparation: Mapping[str, str]
    multiple: int = 0
    table: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
