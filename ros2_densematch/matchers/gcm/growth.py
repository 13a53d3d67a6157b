"""Growth: refined matches are carried by their local affine maps into the cells that hold none yet.

This is where the flexible hierarchical refinement of GCM (arXiv 2403.05388, section III-D) becomes dense: a cell takes
the place that its matched neighbours predict, searches the deep descriptors around it, and is then aligned on grey
values. No threshold is applied on the way; the final correlation decides.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ros2_densematch.arrays import Float64
from ros2_densematch.matchers.common.local_affine import LocalAffine, estimate_local_affine
from ros2_densematch.matchers.common.patch_alignment import refine
from ros2_densematch.matchers.gcm.candidates import LEAST_SEEDS, Candidates, array, confirmed, inside, tensors_like
from ros2_densematch.matchers.gcm.config import GcmConfig
from ros2_densematch.matchers.gcm.encoding import CELL, GcmEncoding
from ros2_densematch.matchers.gcm.network import DESCRIPTOR_STRIDE


def grow(reference: GcmEncoding, query: GcmEncoding, seeds: Candidates, config: GcmConfig) -> Candidates:
    """Seeds and what grows from them into free cells of the reference image."""
    everything = seeds
    iterations = min(config.iterations, config.growth_iterations) if config.refinement else 0
    free = ~np.isnan(reference.anchors[..., 0])
    rows, columns = free.shape
    tensor = tensors_like(reference)
    for _ in range(config.growth_rounds):
        if len(everything) < LEAST_SEEDS:
            break
        local = estimate_local_affine(everything.reference_xy, everything.query_xy)
        trusted = everything.select(confirmed(local, config))
        if len(trusted) < LEAST_SEEDS:
            break
        cell = (trusted.reference_xy // CELL).astype(int)
        cell = cell[(cell[:, 0] < columns) & (cell[:, 1] < rows)]
        open_cells = free.copy()
        open_cells[cell[:, 1], cell[:, 0]] = False
        index = np.flatnonzero(open_cells)
        at = reference.anchors.reshape(-1, 2)[index].astype(np.float64)
        local, within = predict(trusted.reference_xy, trusted.query_xy, at, query.size)
        if not within.any():
            break
        index, at, linear = index[within], at[within], local.linear[within]
        start, similarity = search_descriptors(
            reference.anchor_descriptors[torch.from_numpy(index).to(reference.grey.device)],
            query.descriptors,
            tensor(local.predicted[within]),
        )
        refined = refine(
            reference.grey,
            query.grey,
            tensor(at),
            start,
            tensor(linear),
            radius=config.growth_radius,
            iterations=iterations,
        )
        correlation = array(refined.correlation)
        grown = Candidates(
            reference_xy=at,
            query_xy=array(refined.query_xy),
            linear=linear,
            similarity=array(similarity),
            margin=np.zeros(len(at)),
            correlation=correlation,
            information=array(refined.information),
            moved=np.linalg.norm(array(refined.query_xy) - local.predicted[within], axis=1),
            grown=np.ones(len(at), np.bool_),
        ).select((correlation > config.grown_correlation) & inside(array(refined.query_xy), query.size))
        if query.allowed is not None and len(grown):
            place = np.round(grown.query_xy).astype(int)
            grown = grown.select(query.allowed[place[:, 1], place[:, 0]])
        everything = everything.joined(grown)
        if len(grown) == 0:
            break
    return everything


def predict(
    reference_xy: Float64, query_xy: Float64, at: Float64, query_size: tuple[int, int]
) -> tuple[LocalAffine, NDArray[np.bool_]]:
    """Where the neighbours expect each position, and whether that lies inside the query image.

    Args:
        reference_xy: (N, 2) pixels of the matches to grow from.
        query_xy: (N, 2) pixels.
        at: (M, 2) reference pixels to be predicted.
        query_size: (width, height) in pixels.
    """
    local = estimate_local_affine(reference_xy, query_xy, at=at)
    return local, inside(local.predicted, query_size)


def search_descriptors(
    reference: Tensor, query: Tensor, predicted: Tensor, *, radius: int = 2, pull: float = 0.02
) -> tuple[Tensor, Tensor]:
    """Best descriptor cell around a prediction: one step down the pyramid, from the neighbours to stride 4.

    Args:
        reference: (M, C) unit descriptors of the positions in the reference image.
        query: (h, w, C) unit descriptors of the query image at stride `DESCRIPTOR_STRIDE`.
        predicted: (M, 2) query pixels.
        radius: the search window is (2 radius + 1)^2 cells.
        pull: similarity that a place must gain per cell of distance from the prediction.

    Returns:
        (M, 2) query pixels, the prediction itself where its own cell is best, and (M,) the similarity there.
    """
    height, width = query.shape[:2]
    axis = torch.arange(-radius, radius + 1, device=query.device)
    offsets = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(-1, 2)
    cell = ((predicted + 0.5) / DESCRIPTOR_STRIDE).floor().long()
    cells = cell[:, None] + offsets
    x = cells[..., 0].clamp(0, width - 1)
    y = cells[..., 1].clamp(0, height - 1)
    # rows of a (h w, C) table: far cheaper than bilinear sampling of C planes
    rows = query.reshape(height * width, -1)[y * width + x]
    similarity = torch.einsum("mc,mkc->mk", reference, rows)
    best = (similarity - pull * offsets.to(predicted.dtype).norm(dim=1)).argmax(1)
    row = torch.arange(len(best), device=best.device)
    return predicted + (offsets[best] * DESCRIPTOR_STRIDE).to(predicted.dtype), similarity[row, best]
