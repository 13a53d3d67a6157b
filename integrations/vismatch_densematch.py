"""Matchers of densematch as matchers of vismatch (formerly image-matching-models; checked with its release 1.4.0).

    pip install vismatch
    from vismatch_densematch import DensematchMatcher      # this file on the path, or copied to vismatch/im_models/
    result = DensematchMatcher(device="cpu", matcher="gcm", preset="fast")("a.jpg", "b.jpg")

vismatch gives images as (3, H, W) tensors in [0, 1] and wants matches in pixels of them; it does RANSAC itself. Pixel
(0, 0) is the centre of the top-left one. Key points beside the matches and descriptors are not given: dense matchers
have none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from vismatch.base_matcher import BaseMatcher

from ros2_densematch import load_matcher


class DensematchMatcher(BaseMatcher):
    """A matcher of densematch behind vismatch's base class.

    Args:
        device: as vismatch hands it over: cpu, cuda or cuda:N.
        matcher, preset, weights: as for `ros2_densematch.load_matcher`.
        max_num_keypoints: at most so many matches.
        **options: of vismatch's base class (ransac_iters, ransac_conf, ransac_reproj_thresh).
    """

    def __init__(
        self,
        device: str = "cpu",
        matcher: str = "gcm",
        preset: str = "base",
        weights: str | None = None,
        max_num_keypoints: int = 2048,
        **options: Any,
    ) -> None:
        super().__init__(device, **options)
        # OpenCV's SIFT runs on the CPU only
        self._matcher = load_matcher(
            matcher, device="cpu" if matcher == "sift" else device, preset=preset, weights=weights
        )
        self._most = max_num_keypoints

    def _forward(self, img0: torch.Tensor, img1: torch.Tensor) -> tuple[np.ndarray | None, ...]:
        """Matched key points twice (N, 2), nothing for key points and descriptors, confidences (N,)."""
        reference = self._matcher.encode(_picture(img0), reference=True)
        found = self._matcher.match(reference, self._matcher.encode(_picture(img1)), max_matches=self._most, seed=0)
        return found.reference_xy, found.query_xy, None, None, None, None, found.score


def _picture(image: torch.Tensor) -> np.ndarray:
    """uint8 RGB (H, W, 3) of a (3, H, W) or (1, H, W) tensor in [0, 1]."""
    array = (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return np.ascontiguousarray(np.broadcast_to(array, (3, *array.shape[1:])).transpose(1, 2, 0))
