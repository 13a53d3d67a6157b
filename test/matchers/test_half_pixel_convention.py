"""Pixels of the original images, whatever happens inside: an analytic warp takes the place of the network's output.

The reference image is exactly twice as wide and high as the query, and the network is made to say that the images are
equal. So where pixel centres are integers, reference pixel r and query pixel q obey r + 0.5 = 2 (q + 0.5); a matcher
that forgets the half pixel anywhere is off by a quarter of a query pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ros2_densematch.arrays import Image
from ros2_densematch.matchers.base import Matcher
from ros2_densematch.matchers.registry import list_matchers
from ros2_densematch.nn.condl import STRIDE

REFERENCE, QUERY = (320, 240), (160, 120)  # width, height
WORKING_PIXELS = QUERY[0] * QUERY[1]
# their conventions put the centres, not the edges, of the outer pixels in place: r / (320 - 1) = q / (160 - 1)
CORNER_ALIGNED = {"cnngeometric", "weakalign"}
# no network: they are held to the same pictures, shifted and scaled, in the other tests
WITHOUT_ANALYTIC_NETWORK = {"gcm", "sift"}

Install = Callable[[Any, pytest.MonkeyPatch], None]


def codes(channels: int, rows: int, columns: int) -> Tensor:
    """A random unit vector (1, C, rows, columns) for every cell, the same for every image of this size."""
    generator = torch.Generator().manual_seed(1000 * rows + columns)
    return functional.normalize(torch.randn(1, channels, rows, columns, generator=generator), dim=1)


def identity_flow(rows: int, columns: int) -> Tensor:
    """Every cell's own centre, (1, 2, rows, columns), outer edges -1 and 1."""
    y, x = ((2 * torch.arange(n) + 1) / n - 1 for n in (rows, columns))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))[None]


def dense(matcher: Any, patch: pytest.MonkeyPatch) -> None:
    from ros2_densematch.matchers.common.dense.network import ScaleOutput

    rows, columns = matcher.config.coarse_size
    flow, sure = identity_flow(rows, columns), torch.full((1, 1, rows, columns), 5.0)
    coarse = torch.full((1, 1, rows // 16, columns // 16), 5.0)
    outputs = {1: ScaleOutput(flow, sure, flow), 16: ScaleOutput(flow, coarse, flow)}
    patch.setattr(matcher.network, "condition", lambda *_: {})
    patch.setattr(matcher.network, "match_coarse", lambda *_: outputs)


def joint(matcher: Any, patch: pytest.MonkeyPatch) -> None:
    from ros2_densematch.matchers.roma_v2.network import Refined

    flow = identity_flow(*matcher.config.coarse_size)
    outputs = {1: Refined(flow, torch.ones(1, 4, *flow.shape[2:]), flow)}
    patch.setattr(matcher.network, "refine", lambda *_: outputs)


def tiny(matcher: Any, patch: pytest.MonkeyPatch) -> None:
    from ros2_densematch.matchers.common.dense.network import ScaleOutput

    # as large as the reference image: the enlargement of a coarser flow flattens its rim, as released
    flow = identity_flow(REFERENCE[1], REFERENCE[0])
    outputs = {4: ScaleOutput(flow, torch.full((1, 1, *flow.shape[2:]), 5.0), flow)}
    patch.setattr(matcher.network, "match", lambda *_: outputs)


def configure(matcher: Any, patch: pytest.MonkeyPatch, **options: Any) -> None:
    patch.setattr(matcher, "config", matcher.config.model_copy(update=options))


def parametric(matcher: Any, patch: pytest.MonkeyPatch) -> None:
    from ros2_densematch.nn.transformations import identity

    network = matcher.network
    for name in ("FeatureRegression", "FeatureRegression2"):
        head = getattr(network, name, None)
        if head is not None:
            theta = identity(head.linear.out_features)[None]
            patch.setattr(head, "forward", lambda *_, theta=theta: theta)


def consensus(matcher: Any, patch: pytest.MonkeyPatch) -> None:
    network = matcher.network
    plain = network.features

    def features(image: Tensor) -> Any:
        given = plain(image)
        if isinstance(given, Tensor):
            return codes(64, *given.shape[-2:])
        # at two resolutions: a cell, and the four below it, which are alike but not equal
        coarse, fine = given
        rows, columns = coarse.shape[-2:]
        below = codes(64, rows, columns).repeat_interleave(2, 2).repeat_interleave(2, 3)
        own = functional.normalize(below + 0.3 * codes(64, 2 * rows, 2 * columns), dim=1)
        return codes(64, rows, columns), None if fine is None else own

    patch.setattr(network, "features", features)
    patch.setattr(network.NeighConsensus, "forward", lambda correlation: correlation)


def cells(matcher: Any, patch: pytest.MonkeyPatch) -> None:
    def maps(image: Tensor) -> dict[int, Tensor]:
        height, width = image.shape[-2:]
        return {s: codes(32, height // (s or 16), width // (s or 16)) for s in (0, 16, 8, 4, 2, 1)}

    configure(matcher, patch, max_pixels=WORKING_PIXELS)
    patch.setattr(matcher, "draw_maps", maps)
    patch.setattr(matcher, "draw_first", lambda image: maps(image)[0])


def sampled(matcher: Any, patch: pytest.MonkeyPatch) -> None:
    # subpixel aligns grey values, and these are of two pictures
    configure(matcher, patch, max_pixels=WORKING_PIXELS, subpixel=False)
    patch.setattr(matcher, "draw", lambda image: codes(32, image.shape[-2] // 2, image.shape[-1] // 2))
    assert STRIDE == 2


def keypoints(matcher: Any, patch: pytest.MonkeyPatch) -> None:
    from ros2_densematch.nn.r2d2 import R2d2Output

    def network(image: Tensor) -> R2d2Output:
        rows, columns = image.shape[-2:]
        peaks = torch.zeros(1, 1, rows, columns)
        peaks[..., 3::7, 2::5] = 0.9
        return R2d2Output(codes(32, rows, columns), torch.ones_like(peaks), peaks)

    configure(matcher, patch, max_size=QUERY[0] // 2, min_reliability=0.5, min_repeatability=0.5)
    patch.setattr(matcher, "network", network)


ANALYTIC: dict[str, Install] = {
    "cnngeometric": parametric,
    "condl": sampled,
    "dfm": cells,
    "dkm": dense,
    "gcm_paper": cells,
    "ncnet": consensus,
    "r2d2": keypoints,
    "roma": dense,
    "roma_v2": joint,
    "sparse_ncnet": consensus,
    "tiny_roma": tiny,
    "weakalign": parametric,
}


def expected_query(reference_xy: np.ndarray, name: str) -> np.ndarray:
    ratio = np.array(QUERY) / REFERENCE
    if name in CORNER_ALIGNED:
        return reference_xy * (np.array(QUERY) - 1) / (np.array(REFERENCE) - 1)
    return (reference_xy + 0.5) * ratio - 0.5


def test_every_matcher_has_an_analytic_network_or_a_reason() -> None:
    assert set(ANALYTIC) | WITHOUT_ANALYTIC_NETWORK == set(list_matchers())


def test_coordinates_are_those_of_the_original_pixels(
    any_matcher: Matcher, photo: Callable[..., Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = any_matcher.name
    if name in WITHOUT_ANALYTIC_NETWORK:
        pytest.skip(f"{name} aligns grey values: see the tests with shifted and scaled copies")
    ANALYTIC[name](any_matcher, monkeypatch)
    reference, query = photo(0, *REFERENCE), photo(0, *QUERY)
    matches = any_matcher.match(any_matcher.encode(reference), any_matcher.encode(query), max_matches=2000)
    if name not in CORNER_ALIGNED:  # untrained features say nothing about the certainty of a warp
        assert len(matches) > 20
    error = matches.query_xy - expected_query(matches.reference_xy, name)
    assert len(error) == 0 or np.abs(error).max() < 0.02
    if matches.warp is not None:
        rows, columns = matches.warp.certainty.shape
        x = (np.arange(columns) + 0.5) * REFERENCE[0] / columns - 0.5
        y = (np.arange(rows) + 0.5) * REFERENCE[1] / rows - 0.5
        at = np.stack(np.meshgrid(x, y), -1)
        assert np.abs(matches.warp.xy - expected_query(at, name)).max() < 0.02
