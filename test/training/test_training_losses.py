"""The losses of the training stages against values worked out by hand, and what they have to ignore."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from ros2_densematch.matchers.common.dense.network import ScaleOutput
from ros2_densematch.matchers.roma_v2.coarse import CoarseMatch
from ros2_densematch.matchers.roma_v2.network import Refined
from ros2_densematch.nn.gaussian_process import GaussianProcess
from ros2_densematch.nn.grid import cell_centres
from ros2_densematch.training.stages.contrastive import contrastive_loss, even_grid, retrieval, sample_map
from ros2_densematch.training.stages.dense_losses import (
    Truth,
    anchor_loss,
    dkm_losses,
    roma_losses,
    roma_v2_coarse_losses,
    roma_v2_refiner_losses,
    truth_at,
)
from ros2_densematch.training.stages.dense_matching import mirrored
from ros2_densematch.training.stages.occlusion import OcclusionConfig, occlude
from ros2_densematch.training.stages.schedules import CosineDecay, Milestones

SIZE = 32


def shifted_warp(dx: float, dy: float) -> tuple[torch.Tensor, torch.Tensor]:
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    warp = torch.stack([x + dx, y + dy], -1).float()[None]
    return warp, ((warp >= 0) & (warp <= SIZE - 1)).all(-1)


def perfect(dx: float, dy: float, scale: int, certainty: float) -> ScaleOutput:
    side = SIZE // scale
    flow = cell_centres(side, side)[None] + torch.tensor([dx, dy]).reshape(1, 2, 1, 1) * 2 / SIZE
    return ScaleOutput(flow, torch.full((1, 1, side, side), certainty), flow)


def test_the_truth_of_a_coarse_grid_is_that_of_its_cell_centres():
    warp, valid = shifted_warp(3.0, -2.0)
    for cells in (32, 16, 8, 4):
        truth = truth_at(warp, valid, cells, cells)
        expected = cell_centres(cells, cells).permute(1, 2, 0) + torch.tensor([3.0, -2.0]) * 2 / SIZE
        seen = truth.visible[0] > 0
        assert torch.allclose(truth.position[0][seen], expected[seen], atol=1e-6)
        # a cell is unknown where its centre leaves the other image: none of the four widest
        assert (0 < seen.sum() < cells * cells) if cells > 4 else bool(seen.all())


def test_cells_across_the_rim_of_an_object_or_beside_unknown_pixels_have_no_truth():
    warp, _ = shifted_warp(0.0, 0.0)
    valid = torch.ones(1, SIZE, SIZE, dtype=torch.bool)
    warp[:, :, 15:] += 20.0  # the rim runs through the cell of columns 14 and 15
    warp[:, 4, 4] = float("nan")
    valid[:, 4, 4] = False
    visible = truth_at(warp, valid, 16, 16).visible[0] > 0
    assert not visible[:, 7].any()
    assert not visible[2, 2]
    assert int((~visible).sum()) == 16 + 1


def test_dkm_adds_the_mean_error_and_a_hundredth_of_the_entropy_of_every_scale():
    warp, valid = shifted_warp(4.0, 0.0)
    right = dkm_losses({s: perfect(4.0, 0.0, s, 0.0) for s in (32, 16, 8, 4, 2, 1)}, warp, valid)
    assert float(right["regression"]) == pytest.approx(0, abs=1e-5)
    assert float(right["certainty"]) == pytest.approx(6 * 0.01 * math.log(2), rel=1e-4)
    wrong = dkm_losses({1: perfect(7.0, 4.0, 1, 0.0)}, warp, valid)
    assert float(wrong["regression"]) == pytest.approx(5 * 2 / SIZE, rel=1e-5)
    assert float(wrong["error_px"]) == pytest.approx(5.0, rel=1e-5)


def test_fine_scales_learn_only_where_the_scale_before_was_near():
    warp, valid = shifted_warp(0.0, 0.0)
    # (2 / 512) * 4 * 8 = 0.125 of the half image at scale 8: 2 pixels here
    for offset, learns in ((1.9, True), (2.1, False)):
        before, out = perfect(offset, 0.0, 16, 0.0), perfect(3.0, 0.0, 8, 0.0)
        alone = float(dkm_losses({16: before}, warp, valid)["regression"])
        both = float(dkm_losses({16: before, 8: out}, warp, valid)["regression"])
        assert both - alone == pytest.approx(3.0 * 2 / SIZE if learns else 0.0, abs=1e-6)


def test_roma_regresses_with_the_charbonnier_loss_of_the_released_code():
    warp, valid = shifted_warp(0.0, 0.0)
    for scale in (1, 16):
        error = 3.0 * 2 / SIZE
        c = 1e-4 * scale
        expected = c**0.5 * ((error / c) ** 2 + 1) ** 0.25
        losses = roma_losses({scale: perfect(3.0, 0.0, scale, 0.0)}, warp, valid)
        assert float(losses["regression"]) == pytest.approx(expected, rel=1e-5)


def test_roma_classifies_the_nearest_anchor():
    logits = torch.zeros(1, 4096, 1, 2)
    # anchors are cell centres of a 64 x 64 grid, row by row
    position = torch.tensor([[[[-1 + 1 / 64 + 2 / 64 * 5, -1 + 1 / 64 + 2 / 64 * 9], [0.0, 0.0]]]])
    truth = Truth(position, torch.tensor([[[1.0, 0.0]]]))
    assert float(anchor_loss(logits, truth)) == pytest.approx(math.log(4096), rel=1e-5)
    logits[0, 64 * 9 + 5, 0, 0] = 50.0
    logits[0, 7, 0, 1] = 1e4  # not visible: without a say
    assert float(anchor_loss(logits, truth)) < 1e-6
    distances = (cell_centres(64, 64).flatten(1).T - position[0, 0, 0]).norm(dim=1)
    assert int(distances.argmin()) == 64 * 9 + 5


def refined(residual_px: float, precision: tuple[float, float, float]) -> dict[int, Refined]:
    """Scale 1, everywhere off by so many pixels along x, with one precision."""
    out = perfect(residual_px, 0.0, 1, 0.0)
    rest = torch.tensor(precision).reshape(1, 3, 1, 1).expand(-1, -1, *out.flow.shape[-2:])
    return {1: Refined(out.flow, torch.cat([out.certainty, rest], 1).requires_grad_(True), out.flow)}


def test_roma_v2_learns_the_precision_of_its_residuals():
    warp, valid = shifted_warp(0.0, 0.0)

    def likelihood(residual_px: float, xx: float) -> float:
        found = roma_v2_refiner_losses(refined(residual_px, (xx, 0.0, 1.0)), warp, valid, precision_weight=1.0)
        return float(found["precision"])

    # for residuals of a fifth of a pixel along x the best precision there is 1 / 0.2^2
    assert likelihood(0.2, 25.0) == pytest.approx(0.5 * (1.0 - math.log(25.0)), rel=1e-3)
    assert likelihood(0.2, 25.0) < min(likelihood(0.2, 20.0), likelihood(0.2, 30.0))
    found = refined(0.2, (25.0, 0.0, 1.0))
    roma_v2_refiner_losses(found, warp, valid)["loss"].backward()
    assert float(found[1].confidence.grad[:, 1].abs().max()) < 1e-6, "at the best precision nothing pulls"


def test_roma_v2_attends_to_the_cell_that_holds_the_true_position():
    warp, valid = shifted_warp(SIZE / 4, 0.0)
    grid = (4, 4)
    logits = torch.zeros(1, 16, 16)
    coarse = perfect(SIZE / 4, 0.0, 4, 0.0)
    uniform = roma_v2_coarse_losses(CoarseMatch(coarse.flow, coarse.certainty, logits), grid, warp, valid)
    assert float(uniform["attention"]) == pytest.approx(math.log(16), rel=1e-5)
    cells = torch.arange(16).reshape(4, 4)
    logits[0, cells[:, :3].flatten(), cells[:, 1:].flatten()] = 50.0  # one cell to the right
    right = roma_v2_coarse_losses(CoarseMatch(coarse.flow, coarse.certainty, logits), grid, warp, valid)
    assert float(right["attention"]) < 1e-6
    assert float(right["error_px"]) == pytest.approx(0, abs=1e-3)


def test_losses_stay_finite_where_nothing_is_visible():
    warp = torch.full((1, SIZE, SIZE, 2), float("nan"))
    nothing = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    for losses in (dkm_losses, roma_losses):
        found = losses({s: perfect(0.0, 0.0, s, -3.0) for s in (16, 8, 1)}, warp, nothing)
        assert all(bool(torch.isfinite(value)) for value in found.values())
        assert float(found["regression"]) == 0


def test_a_mirrored_pair_has_the_mirrored_warp():
    warp, valid = shifted_warp(5.0, 1.0)
    images = torch.rand(2, 1, 3, SIZE, SIZE)
    flipped, moved, seen = mirrored(images, warp, valid, 1.0)
    assert torch.equal(flipped, images.flip(-1))
    expected, expected_seen = shifted_warp(-5.0, 1.0)
    assert torch.equal(moved, expected)
    assert torch.equal(seen, expected_seen)
    same, unmoved, _ = mirrored(images, warp, valid, 0.0)
    assert torch.equal(same, images)
    assert torch.equal(unmoved, warp)


def test_the_contrastive_loss_is_the_mean_cross_entropy_of_rows_and_columns():
    generator = torch.Generator().manual_seed(0)
    a = functional.normalize(torch.randn(20, 8, generator=generator), dim=1)
    b = functional.normalize(a + 0.3 * torch.randn(20, 8, generator=generator), dim=1)
    similarity = (a @ b.T / 0.1).double()
    rows = -similarity.log_softmax(1).diagonal().mean()
    columns = -similarity.log_softmax(0).diagonal().mean()
    assert float(contrastive_loss(a, b, 0.1)) == pytest.approx(float((rows + columns) / 2), rel=1e-5)
    assert float(contrastive_loss(a, a, 0.01)) < float(contrastive_loss(a, a.flip(0), 0.01)) - 10
    assert float(contrastive_loss(a[:1], b[:1], 0.1)) == 0
    assert float(retrieval(a, a)) == 1


def test_an_even_grid_has_its_partners_and_samples_the_map_there():
    warp, valid = shifted_warp(2.0, -4.0)
    places, partners, seen = even_grid(warp, valid, 4, (1, 2))
    assert places.shape == (1, 64, 2)
    assert places[0, 0].tolist() == [2, 1]
    assert torch.equal((partners - places)[seen], torch.tensor([[2.0, -4.0]]).expand(int(seen.sum()), -1))
    # a map at half the resolution that tells where it is: the cell (i, j) is centred at (2 i + 0.5, 2 j + 0.5)
    cells = torch.arange(SIZE // 2).float() * 2 + 0.5
    ramp = torch.stack([cells[None].expand(SIZE // 2, -1), torch.full((SIZE // 2, SIZE // 2), 10.0)])[None]
    inner = torch.tensor([[[9.3, 12.0], [20.0, 3.5]]])
    sampled = sample_map(ramp, inner, SIZE, SIZE)
    assert torch.allclose(sampled, functional.normalize(torch.tensor([[[9.3, 10.0], [20.0, 10.0]]]), dim=-1), atol=1e-5)


def test_what_is_hidden_in_either_image_is_no_longer_true():
    torch.manual_seed(3)
    grid = torch.stack(torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="xy"), -1).reshape(1, -1, 2)
    warp, valid = shifted_warp(0.0, 0.0)
    batch = {
        "image0": torch.full((2, 3, SIZE, SIZE), 2.0),
        "image1": torch.full((2, 3, SIZE, SIZE), 2.0),
        "points0": grid.float().expand(2, -1, -1),
        "points1": grid.float().expand(2, -1, -1),
        "valid": torch.ones(2, SIZE * SIZE, dtype=torch.bool),
        "warp": warp.expand(2, -1, -1, -1),
        "warp_valid": valid.expand(2, -1, -1),
    }
    # things of one colour differ from the images, whose value cannot be drawn
    changed = occlude(batch, OcclusionConfig(chance=1.0, size=(0.2, 0.4)))
    touched = ((changed["image0"] != 2) | (changed["image1"] != 2)).any(1)
    assert 0 < int(touched.sum()) < touched.numel()
    assert not changed["valid"][touched.flatten(1)].any()
    assert not changed["warp_valid"][touched].any()
    assert torch.equal(changed["valid"].view(2, SIZE, SIZE), changed["warp_valid"])
    assert torch.equal(batch["image0"], torch.full((2, 3, SIZE, SIZE), 2.0))
    same = occlude(batch, OcclusionConfig(chance=0.0))
    assert torch.equal(same["image1"], batch["image1"])
    assert bool(same["valid"].all())


def test_learning_rates_follow_the_published_schedules():
    milestones = Milestones(300, (2 / 3, 0.9), 0.2)
    assert [milestones(step) for step in (0, 199, 200, 269, 270)] == pytest.approx([1, 1, 0.2, 0.2, 0.04])
    decay = CosineDecay(110, 10)
    assert [decay(step) for step in (0, 9, 10, 60, 110, 500)] == pytest.approx([0.1, 1, 1, 0.5, 0.01, 0.01])


def test_the_gaussian_process_stays_exact_under_mixed_precision_and_passes_gradients():
    generator = torch.Generator().manual_seed(0)
    query, support = (torch.randn(2, 16, 5, 5, generator=generator, requires_grad=True) for _ in range(2))
    process = GaussianProcess(8)
    expected = process(query, process.condition(support))
    with torch.autocast("cpu", torch.bfloat16):
        mean = process(query, process.condition(support))
    assert mean.dtype == torch.float32
    assert torch.equal(mean, expected)
    gradients = torch.autograd.grad(mean.square().sum(), [query, support, process.pos_conv.weight])
    assert all(bool(torch.isfinite(g).all()) and float(g.abs().max()) > 0 for g in gradients)
