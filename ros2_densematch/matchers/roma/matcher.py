"""`roma`: RoMa, outdoor or indoor, as released; see `docs/matchers/roma.md`."""

from __future__ import annotations

from typing import ClassVar

from ros2_densematch.matchers.common.dense.matcher import DenseMatcher, DensePreset, State, chosen_settings, torch_type
from ros2_densematch.matchers.common.dense.sampling import Sampling
from ros2_densematch.matchers.common.dense.weights import load_part, require
from ros2_densematch.matchers.roma.network import RomaNetwork
from ros2_densematch.nn.device import choose_device
from ros2_densematch.nn.dinov2 import Dinov2


class RomaMatcher(DenseMatcher):
    """Edstedt et al., "RoMa: robust dense feature matching", CVPR 2024."""

    name = "roma"
    MULTIPLE = 14
    PRESETS: ClassVar[dict[str, DensePreset]] = {
        "turbo": DensePreset((420, 420), None, "reference_to_query"),
        "fast": DensePreset((560, 560), None, "reference_to_query"),
        "base": DensePreset((560, 560), (864, 864), "both"),
        "precise": DensePreset((672, 672), (1152, 1152), "both"),
    }

    def __init__(
        self,
        *,
        device: str = "auto",
        preset: str = "base",
        weights: str | State | None = None,
        dinov2_weights: str | State | None = None,
        dtype: str = "float32",
        coarse_size: tuple[int, int] | None = None,
        upsample_size: tuple[int, int] | bool | None = True,
        direction: str | None = None,
        attenuate_certainty: bool = True,
        sampling: Sampling | None = None,
        compile_network: bool = False,
        keep_shares: bool = True,
    ) -> None:
        """
        Args:
            device: "auto", "cpu", "cuda" or "cuda:N".
            preset: one of `PRESETS`; base is the released default.
            weights: None for the fetched roma_outdoor, "roma_indoor", "random" (DINOv2 too), a file, or a state
                dictionary.
            dinov2_weights: None for the fetched dinov2_vitl14, a file, or a state dictionary.
            dtype: "float32", "float16" or "bfloat16".
            coarse_size: (height, width) of the coarse pass, multiples of 14; None for the preset's.
            upsample_size: (height, width) of the upsampling pass, False for none, True for the preset's.
            direction: "both", "reference_to_query" or "query_to_reference"; None for the preset's.
            attenuate_certainty: as released (True).
            sampling: None for the released balanced sampling.
            compile_network: with `torch.compile`, at the first use.
            keep_shares: keep what a keyframe's features contribute to the refiners; False saves its memory.

        Raises:
            ValueError: unknown preset, device, direction or dtype, a bad size, or weights of another network.
            FileNotFoundError: the checkpoint was not fetched; the message names it, its licence and the command.
        """
        settings = chosen_settings(
            self.name,
            self.PRESETS,
            preset,
            self.MULTIPLE,
            coarse_size=coarse_size,
            upsample_size=upsample_size,
            direction=direction,
        )
        torch_type(dtype)
        choose_device(device)
        random = isinstance(weights, str) and weights == "random"
        require(("roma_outdoor", weights), ("dinov2_vitl14", "random" if random else dinov2_weights))
        dinov2 = load_part(Dinov2, "dinov2_vitl14", "random" if random else dinov2_weights)
        network = load_part(lambda: RomaNetwork(dinov2=dinov2), "roma_outdoor", weights)
        super().__init__(
            network,
            settings,
            preset=preset,
            device=device,
            dtype=dtype,
            attenuate_certainty=attenuate_certainty,
            sampling=sampling or Sampling(),
            compile_network=compile_network,
            keep_shares=keep_shares,
        )
