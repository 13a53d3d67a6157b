"""`dkm`: DKM v3, outdoor or indoor, as released; see `docs/matchers/dkm.md`."""

from __future__ import annotations

from typing import ClassVar

from ros2_densematch.matchers.common.dense.matcher import DenseMatcher, DensePreset, State, chosen_settings, torch_type
from ros2_densematch.matchers.common.dense.sampling import Sampling
from ros2_densematch.matchers.common.dense.weights import load_part
from ros2_densematch.matchers.dkm.network import DkmNetwork
from ros2_densematch.nn.device import choose_device

# the released indoor model's settings take the place of base
_INDOOR_BASE = DensePreset((480, 640), None, "both")


class DkmMatcher(DenseMatcher):
    """Edstedt et al., "DKM: dense kernelized feature matching for geometry estimation", CVPR 2023; version 3."""

    name = "dkm"
    PRESETS: ClassVar[dict[str, DensePreset]] = {
        "turbo": DensePreset((384, 512), None, "reference_to_query"),
        "fast": DensePreset((540, 720), None, "reference_to_query"),
        "base": DensePreset((540, 720), (864, 1152), "both"),
        "precise": DensePreset((660, 880), (1152, 1536), "both"),
    }

    def __init__(
        self,
        *,
        device: str = "auto",
        preset: str = "base",
        weights: str | State | None = None,
        dtype: str = "float32",
        coarse_size: tuple[int, int] | None = None,
        upsample_size: tuple[int, int] | bool | None = True,
        direction: str | None = None,
        attenuate_certainty: bool = True,
        sampling: Sampling | None = None,
        local_correlation: bool = True,
        compile_network: bool = False,
        keep_shares: bool = True,
    ) -> None:
        """
        Args:
            device: "auto", "cpu", "cuda" or "cuda:N".
            preset: one of `PRESETS`; base is the released default of the outdoor or the indoor model.
            weights: None for the fetched dkm_outdoor, "dkm_indoor", "random", a file, or a state dictionary.
            dtype: "float32", "float16" or "bfloat16".
            coarse_size: (height, width) of the coarse pass; None for the preset's.
            upsample_size: (height, width) of the upsampling pass, False for none, True for the preset's.
            direction: "both", "reference_to_query" or "query_to_reference"; None for the preset's.
            attenuate_certainty: as released (True).
            sampling: None for the released balanced sampling.
            local_correlation: False builds the refiners of the earlier paper's text, for weights trained that way.
            compile_network: with `torch.compile`, at the first use.
            keep_shares: keep what a keyframe's features contribute to the refiners; False saves its memory.

        Raises:
            ValueError: unknown preset, device, direction or dtype, a bad size, or weights of another network.
            FileNotFoundError: the checkpoint was not fetched; the message names it, its licence and the command.
        """
        indoor = isinstance(weights, str) and weights == "dkm_indoor"
        presets = self.PRESETS | ({"base": _INDOOR_BASE} if indoor else {})
        settings = chosen_settings(
            self.name,
            presets,
            preset,
            self.MULTIPLE,
            coarse_size=coarse_size,
            upsample_size=upsample_size,
            direction=direction,
        )
        torch_type(dtype)
        choose_device(device)
        network = load_part(lambda: DkmNetwork(local_correlation=local_correlation), "dkm_outdoor", weights)
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
