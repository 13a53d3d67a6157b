"""Records what passes through DKM's and RoMa's networks during a match, by hooks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from golden_set import GoldenSet
from torch import Tensor, nn

from ros2_densematch.matchers.common.dense.matcher import DenseMatcher
from ros2_densematch.matchers.common.dense.network import FINE_SCALES, ScaleOutput
from ros2_densematch.matchers.common.dense.result import DenseResult, cell_positions


class DenseTrace:
    """Inputs and outputs of the modules, in the order of the calls: A before B, A -> B before B -> A."""

    def __init__(self, matcher: DenseMatcher, encoder: nn.Module) -> None:
        network = matcher.network
        self.images: list[Tensor] = []
        self.encoder: list[dict[int, Tensor]] = []
        self.decoder: list[tuple[Tensor, ...]] = []
        self.outputs: list[dict[int, ScaleOutput]] = []
        self._calls: dict[str, list[Tensor]] = defaultdict(list)
        self._handles = [
            encoder.register_forward_hook(self._encoder_hook),
            network.decoder.embedding_decoder.register_forward_hook(lambda m, i, o: self.decoder.append(o)),
        ]
        self._refiners: list[nn.Module] = []
        for kind, modules in (("proj", network.decoder.proj), ("gp", network.decoder.gps)):
            for s, module in modules.items():
                self._record(f"{kind}{s}", module)
        for s, refiner in network.decoder.conv_refiner.items():
            self._refiners.append(refiner)
            refiner.pair_inputs = self._recorded_inputs(f"input{s}", refiner.pair_inputs)
            hook = lambda m, i, o, s=s: self._record_update(s, o)  # noqa: E731
            self._handles.append(refiner.register_forward_hook(hook))
        self._network, self._refine, self._coarse = network, network._refine, network.match_coarse
        self.coarse: list[dict[int, ScaleOutput]] = []
        network._refine, network.match_coarse = self._recorded_refine, self._recorded_coarse
        self.channels = {int(s): r.spec.channels for s, r in network.decoder.conv_refiner.items()}

    def _encoder_hook(self, module: nn.Module, inputs: tuple[Any, ...], output: dict[int, Tensor]) -> None:
        self.images.append(inputs[0])
        self.encoder.append(dict(output) if isinstance(output, dict) else output)

    def _record(self, name: str, module: nn.Module) -> None:
        self._handles.append(module.register_forward_hook(lambda m, i, o: self._calls[name].append(o)))

    def _recorded_inputs(self, name: str, function: Callable[..., list[Tensor]]) -> Callable[..., list[Tensor]]:
        def recorded(*arguments: Any) -> list[Tensor]:
            parts = function(*arguments)
            self._calls[name].append(torch.cat(parts, 1))
            return parts

        return recorded

    def _record_update(self, s: str, output: tuple[Tensor, Tensor]) -> None:
        displacement, certainty = output
        self._calls[f"displacement{s}"].append(displacement.clone())
        self._calls[f"update{s}"].append(certainty.clone())

    def _recorded_refine(self, *arguments: Any) -> dict[int, ScaleOutput]:
        self.outputs.append(self._refine(*arguments))
        return self.outputs[-1]

    def _recorded_coarse(self, *arguments: Any) -> dict[int, ScaleOutput]:
        self.coarse.append(self._coarse(*arguments))
        return self.coarse[-1]

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        for refiner in self._refiners:
            # the instance's attribute hid the method
            refiner.__dict__.pop("pair_inputs", None)
        self._network._refine, self._network.match_coarse = self._refine, self._coarse

    def concatenated(self, name: str, first: int = 0, step: int = 1) -> Tensor:
        """The calls of a module, every `step`-th from `first`, along the batch axis."""
        return torch.cat(self._calls[name][first::step])

    @staticmethod
    def both(calls: list[Any], first: int, step: int) -> Any:
        """Likewise for calls that gave dictionaries or tuples."""
        chosen = calls[first::step]
        if isinstance(chosen[0], dict):
            return {s: torch.cat([c[s] for c in chosen]) for s in chosen[0]}
        return tuple(torch.cat(parts) for parts in zip(*chosen, strict=True))


def check_refiners(
    expected: GoldenSet,
    trace: DenseTrace,
    embedding_channels: dict[int, int],
    sampled_channels: dict[int, int],
) -> None:
    """Inputs of the refiners in the coarse pass of A -> B, and the updates of 16 and 8 in both directions."""
    for s, c in trace.channels.items():
        step = {16: 1, 8: 2, 4: 4, 2: 8, 1: 16}[s]
        # a scale of the upsampling pass has a call per pass; the first is A -> B, coarse
        given = trace.concatenated(f"input{s}")[:1] if s == 16 else trace._calls[f"input{s}"][0]
        expected.compare(f"c_refiner{s}_emb_and_corr", given[:, c :: embedding_channels[s], ::step, ::step])
        expected.compare(f"c_refiner{s}_xhat", given[:, : c : sampled_channels[s], ::step, ::step])
    for s in (16, 8):
        # coarse and upsampling passes of a direction follow each other
        step = 1 if s == 16 else 2
        expected.compare(f"c_refiner{s}_delta_flow", trace.concatenated(f"displacement{s}", 0, step))
        expected.compare(f"c_refiner{s}_delta_cert", trace.concatenated(f"update{s}", 0, step))


def check_scales(expected: GoldenSet, trace: DenseTrace) -> None:
    """Flow and certainty after every scale of both passes."""
    for prefix, first, scales in (("c", 0, (16, *FINE_SCALES)), ("u", 1, FINE_SCALES)):
        for s in scales:
            step = 2 if s == 1 else 1
            for kind in ("flow", "cert"):
                field = "flow" if kind == "flow" else "certainty"
                both = torch.cat([getattr(o[s], field) for o in trace.outputs[first::2]])
                expected.compare(f"{prefix}_{kind}{s}", both[..., ::step, ::step])


def kde_rows(forward: DenseResult, backward: DenseResult, step: int = 37, limit: int | None = 1500) -> Tensor:
    """Every 37th row of the flattened symmetric warp (A half beside B half), at most 1500."""
    height, width = forward.certainty.shape
    cells = torch.from_numpy(cell_positions(torch.arange(height * width).numpy(), height, width))
    cells = cells.reshape(height, width, 2)
    left = torch.cat([cells, forward.flow], 2)
    right = torch.cat([backward.flow, cells], 2)
    return torch.cat([left, right], 1).reshape(-1, 4)[::step][:limit]
