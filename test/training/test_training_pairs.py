"""Pairs of crops: their points show the same thing, and sample i depends on (seed, i) alone."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ros2_densematch.training.data.crops import kept_inside, similarity, warp_crop
from ros2_densematch.training.data.dataset import PairDataset
from ros2_densematch.training.data.multiview import MultiviewPairs
from ros2_densematch.training.data.photometric import PhotometricConfig
from ros2_densematch.training.data.photos import HomographyPairs
from ros2_densematch.training.data.sample import Pair
from ros2_densematch.training.images import TrainingDataError


def write_photo(path: Path, seed: int, width: int = 320, height: int = 240) -> None:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    layers = [
        cv2.resize(
            rng.uniform(0, 1, (height // step, width // step, 3)), (width, height), interpolation=cv2.INTER_CUBIC
        )
        for step in (6, 20, 60)
    ]
    picture = (np.mean(layers, 0) - 0.2) / 0.6
    cv2.imwrite(str(path), (np.clip(picture, 0, 1) * 255).astype(np.uint8))


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for k in range(3):
        write_photo(folder / f"set{k}" / f"{k}.png", k)
    return folder


def agreement(pair: Pair, shift: float = 0.0) -> float:
    """Correlation of the grey values at corresponding points."""

    def grey(image: np.ndarray, points: np.ndarray) -> np.ndarray:
        x, y = points.astype(np.float32).T
        return cv2.remap(image.mean(2).astype(np.float32), x[None], y[None], cv2.INTER_LINEAR)[0]

    return float(np.corrcoef(grey(pair.image0, pair.points0), grey(pair.image1, pair.points1 + shift))[0, 1])


def test_homography_points_show_the_same_place(photos):
    source = HomographyPairs(photos)
    scores, shifted = [], []
    for seed in range(30):
        pair = source.draw(np.random.default_rng(seed), 128)
        assert pair.image0.shape == pair.image1.shape == (128, 128, 3)
        for points in (pair.points0, pair.points1):
            assert points.min() >= 0
            assert points.max() <= 127
        assert len(pair.points0) == len(pair.points1) >= 150
        scores.append(agreement(pair))
        shifted.append(agreement(pair, 3.0))
    assert np.median(scores) > 0.98
    assert np.median(shifted) < 0.9


def test_track_points_of_real_photos_show_the_same_place(shared_data):
    source = MultiviewPairs(shared_data.need("train_multiview/photos"))
    scores, counts = [], []
    for seed in range(25):
        pair = source.draw(np.random.default_rng(seed), 256)
        counts.append(len(pair.points0))
        if counts[-1] >= 20:
            scores.append(agreement(pair))
    assert np.median(counts) > 60
    assert np.median(scores) > 0.75  # real light and view change between the photos


def test_a_sample_depends_on_seed_and_number_only(photos):
    def dataset(seed: int) -> PairDataset:
        return PairDataset([(HomographyPairs(photos), 1.0)], size=64, max_points=50, seed=seed)

    first, second, other = dataset(3), dataset(3), dataset(4)
    backwards = {i: second[i] for i in reversed(range(6))}
    for i in range(6):
        sample = first[i]
        assert set(sample) == {"image0", "image1", "clean0", "clean1", "points0", "points1", "valid", "group"}
        for key, value in sample.items():
            assert torch.equal(value, backwards[i][key]), (i, key)
    assert not torch.equal(first[0]["clean0"], other[0]["clean0"])
    assert not torch.equal(first[0]["image0"], first[1]["image0"])


def test_samples_have_the_agreed_types_and_ranges(photos):
    dataset = PairDataset([(HomographyPairs(photos), 1.0)], size=96, max_points=4000)
    sample = dataset[0]
    for key in ("image0", "image1", "clean0", "clean1"):
        assert sample[key].shape == (3, 96, 96)
        assert sample[key].dtype == torch.float32
        assert 0 <= sample[key].min() <= sample[key].max() <= 1
    for key in ("points0", "points1"):
        assert sample[key].shape == (4000, 2)
    assert sample["valid"].dtype == torch.bool
    count = int(sample["valid"].sum())
    assert 0 < count < 4000  # fewer than asked for: padded at the end
    assert sample["valid"][:count].all()
    assert (sample["points0"][count:] == 0).all()


def test_both_images_are_changed_independently(photos):
    dataset = PairDataset([(HomographyPairs(photos), 1.0)], size=64, photometric=PhotometricConfig(light=1))
    gains = []
    for i in range(12):
        sample = dataset[i]
        gains.append([float(sample[f"image{k}"].mean() - sample[f"clean{k}"].mean()) for k in (0, 1)])
    assert abs(np.corrcoef(np.array(gains).T)[0, 1]) < 0.8


def test_a_damaged_photo_is_skipped_counted_and_named_or_stops_a_strict_run(photos, tmp_path):
    folder = tmp_path / "photos"
    write_photo(folder / "good.png", 1)
    (folder / "bad.jpg").write_bytes(b"this is no photo")
    dataset = PairDataset([(HomographyPairs(folder), 1.0)], size=64, skip_log=tmp_path / "skipped.txt")
    for i in range(12):
        assert dataset[i]["valid"].any()
    assert sum(dataset.skipped.values()) > 0
    (message,) = dataset.skipped
    assert "bad.jpg" in message
    assert len((tmp_path / "skipped.txt").read_text().splitlines()) == sum(dataset.skipped.values())
    strict = PairDataset([(HomographyPairs(folder), 1.0)], size=64, strict=True)
    with pytest.raises(TrainingDataError, match=r"bad\.jpg"):
        list(map(strict.__getitem__, range(12)))


def test_damage_everywhere_ends_with_the_cause(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"")
    with pytest.raises(TrainingDataError, match=r"bad\.jpg"):
        PairDataset([(HomographyPairs(tmp_path), 1.0)], size=64)[0]


@pytest.mark.parametrize("size", [0, 100, -32])
def test_a_crop_size_that_is_no_multiple_of_16_is_refused(photos, size):
    with pytest.raises(ValueError, match="multiple of 16"):
        PairDataset([(HomographyPairs(photos), 1.0)], size=size)


def test_a_track_file_that_names_missing_photos_is_refused(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "cameras.csv").write_text("image,width,height\na.jpg,64,48\n")
    xy = np.zeros((2, 2), np.float32)
    np.savez(folder / "tracks.npz", image=np.array([0, 3]), point=np.array([0, 0]), xy=xy, xyz=np.zeros((1, 3)))
    with pytest.raises(TrainingDataError, match=r"tracks\.npz names photo 3"):
        MultiviewPairs(tmp_path)


def test_crops_stay_inside_the_photo_where_they_fit():
    at = kept_inside(np.array([5.0, 500.0]), 100, 1.0, 0.3, 640, 480)
    white = np.full((480, 640, 3), 255, np.uint8)
    crop = warp_crop(white, similarity(1.0, 0.3, at, 49.5), 100, cv2.BORDER_CONSTANT)
    assert crop.min() == 255
