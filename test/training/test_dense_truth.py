"""The dense truth of a pair: where each pixel goes, where it is visible, and where that is not known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from ros2_densematch.training.data.dataset import PairDataset
from ros2_densematch.training.data.photometric import PhotometricConfig
from ros2_densematch.training.data.photos import HomographyPairs
from ros2_densematch.training.data.posed_views import CropConfig, ViewPair, crop_pair, dense_from_views
from ros2_densematch.training.data.sample import Pair, normalised_warp
from ros2_densematch.training.data.source import PairSource

NEVER = dict.fromkeys(set(PhotometricConfig.model_fields) - {"strength"}, 0.0)
UNCHANGED = PhotometricConfig(strength=0.0, **NEVER)
K = np.array([[100.0, 0, 63.5], [0, 100.0, 47.5], [0, 0, 1]])


def texture(width: int, height: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0, 255, (height // 4, width // 4, 3))
    return np.clip(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)


def two_views(baseline: float = 0.2, wall: float = 2.0, box: float | None = None) -> ViewPair:
    """A textured wall; view 1 stands `baseline` metres to the right. With `box` a nearer square hides part of it."""
    wide = texture(400, 96)
    shift = 100.0 * baseline / wall
    image0, image1 = (
        cv2.warpAffine(wide, np.array([[1, 0, -100 - s], [0, 1, 0]], np.float64), (128, 96)) for s in (0.0, shift)
    )
    depth0, depth1 = np.full((96, 128), wall, np.float32), np.full((96, 128), wall, np.float32)
    if box is not None:
        nearer = round(100.0 * baseline / box)
        square = texture(24, 24, 1)
        for image, depth, x in ((image0, depth0, 60), (image1, depth1, 60 - nearer)):
            image[30:54, x : x + 24], depth[30:54, x : x + 24] = square, box
    motion = np.eye(4)
    motion[0, 3] = -baseline
    return ViewPair(image0, image1, depth0, depth1, K, K, motion)


def remapped(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Image 1 seen through the warp, and where that is meant to look like image 0."""
    truth = pair.dense()
    warp = np.nan_to_num(truth.warp, nan=-1.0)
    return cv2.remap(pair.image1, warp[..., 0], warp[..., 1], cv2.INTER_LINEAR), truth.valid


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for k in range(3):
        cv2.imwrite(str(folder / f"{k}.png"), texture(240, 180, k))
    return folder


def test_the_warp_of_a_homography_pair_shows_the_same_picture_and_holds_the_points(photos):
    source = HomographyPairs(photos)
    for seed in range(8):
        pair = source.draw(np.random.default_rng(seed), 128)
        seen, valid = remapped(pair)
        assert valid.mean() > 0.1
        assert np.corrcoef(seen[valid].ravel(), pair.image0[valid].ravel())[0, 1] > 0.9
        truth = pair.dense()
        assert truth.known.all()
        x, y = pair.points0.T
        at = cv2.remap(np.nan_to_num(truth.warp, nan=-1e6), x[None], y[None], cv2.INTER_LINEAR)[0]
        assert np.median(np.linalg.norm(at - pair.points1, axis=1)) < 0.05


def test_the_warp_of_posed_views_shows_the_same_picture():
    views = two_views()
    for seed in range(5):
        pair = crop_pair(views, np.random.default_rng(seed), 64, CropConfig())
        seen, valid = remapped(pair)
        assert valid.mean() > 0.3
        assert np.corrcoef(seen[valid].ravel(), pair.image0[valid].ravel())[0, 1] > 0.9


def test_without_crops_the_warp_is_the_disparity():
    views = two_views(baseline=0.2, wall=2.0)
    crop = np.eye(3)
    truth = dense_from_views(views, crop, crop, 96, 0.01)
    grid = np.stack(np.meshgrid(np.arange(96), np.arange(96)), -1)
    assert np.abs(truth.warp - (grid - [10, 0])).max() < 1e-4
    assert not truth.valid[:, :10].any()  # left of image 1
    assert truth.valid[:, 10:].all()
    assert truth.known.all()


def test_what_is_hidden_is_known_and_not_visible():
    views = two_views(baseline=0.2, wall=2.0, box=1.0)
    truth = dense_from_views(views, np.eye(3), np.eye(3), 96, 0.01)
    # The box (columns 60 to 83) moves 20 px left and the wall 10: it hides the wall's columns 50 to 73, of which view 0
    # sees 50 to 59.
    assert not truth.valid[32:52, 51:58].any()
    assert truth.known[32:52, 51:58].all()
    assert truth.valid[32:52, 62:82].all()
    assert truth.valid[32:52, 86:].all()
    assert truth.valid[5:25, 20:].all()


def test_missing_depth_makes_a_pixel_unknown_on_both_sides():
    views = two_views(baseline=0.2, wall=2.0)
    views.depth0[40:50, 30:40] = np.nan
    views.depth1[10:20, 60:70] = np.nan  # the places of columns 70 to 79
    truth = dense_from_views(views, np.eye(3), np.eye(3), 96, 0.01)
    assert not truth.known[40:50, 30:40].any()
    assert np.isnan(truth.warp[42:48, 32:38]).all()
    assert not truth.known[10:20, 70:79].any()
    assert np.isfinite(truth.warp[10:20, 70:79]).all()
    assert not truth.valid[~truth.known].any()
    assert truth.known.mean() > 0.95


def test_dense_samples_hold_the_warp_and_the_same_crops_as_others(photos):
    plain, dense = (
        PairDataset([(HomographyPairs(photos), 1.0)], size=128, max_points=20, photometric=UNCHANGED, dense=d)[3]
        for d in (False, True)
    )
    assert dense.keys() - plain.keys() == {"warp", "warp_valid", "warp_known"}
    assert all(torch.equal(plain[key], dense[key]) for key in plain)
    assert dense["warp"].shape == (128, 128, 2)
    assert dense["warp"].dtype == torch.float32
    valid = dense["warp_valid"]
    assert valid.shape == dense["warp_known"].shape == (128, 128)
    warp = normalised_warp(dense["warp"], 128, 128).nan_to_num(nan=-2.0)[None]
    seen = torch.nn.functional.grid_sample(dense["image1"][None], warp, align_corners=False)[0]
    both = torch.stack([seen[:, valid].flatten(), dense["image0"][:, valid].flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.9


def test_a_source_without_dense_truth_is_refused_by_name(photos):
    source = HomographyPairs(photos, name="tracks")
    source.has_dense = False
    with pytest.raises(ValueError, match="tracks among its sources"):
        PairDataset([(source, 1.0)], dense=True)


def test_pairs_of_one_photo_form_a_group_and_nameless_pairs_one_each(photos):
    dataset = PairDataset([(HomographyPairs(photos), 1.0)], size=32, max_points=16)
    groups = [int(dataset[i]["group"]) for i in range(12)]
    assert set(groups) == {0, 1, 2}

    class Nameless(PairSource):
        name, has_dense = "nameless", False

        def draw(self, rng, size):
            image = np.zeros((size, size, 3), np.uint8)
            return Pair(image, image, np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32))

        def files(self):
            return []

        def __len__(self):
            return 1

    nameless = PairDataset([(Nameless(), 1.0)], size=32, max_points=16)
    groups = [int(nameless[i]["group"]) for i in range(4)]
    assert len(set(groups)) == 4
    assert max(groups) < 0
