"""Batch norms folded into convolutions, for inference."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_batch_norms(module: nn.Module) -> int:
    """Folds every batch norm into the convolution that is registered right before it in the same parent, in place.

    The outputs in evaluation mode stay the same up to rounding. Sequences keep their numbering: an identity takes the
    batch norm's place. Networks of this package register a batch norm right after the convolution that it follows.

    Returns:
        How many batch norms were folded.
    """
    folded = 0
    for parent in list(module.modules()):
        before: nn.Module | None = None
        for name, child in list(parent.named_children()):
            if (
                isinstance(child, nn.BatchNorm2d)
                and isinstance(before, nn.Conv2d)
                and child.num_features == before.out_channels
                and child.running_mean is not None
                and child.running_var is not None
            ):
                weight, bias = fuse_conv_bn_weights(
                    before.weight,
                    before.bias,
                    child.running_mean,
                    child.running_var,
                    child.eps,
                    child.weight,
                    child.bias,
                )
                before.weight, before.bias = weight, bias
                setattr(parent, name, nn.Identity())
                folded += 1
            before = child
    return folded
