"""Labels that a teacher writes: points of the student's samples, made once and kept, believed only with confidence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from smoke import generate

from ros2_densematch.training.data import pseudo_labels
from ros2_densematch.training.data.homography import HomographyConfig
from ros2_densematch.training.data.photometric import PhotometricConfig
from ros2_densematch.training.data.photos import HomographyPairs
from ros2_densematch.training.data.pseudo_labels import PseudoLabels, TeacherConfig
from ros2_densematch.training.images import TrainingDataError

GCM = {"matcher": "gcm", "preset": "turbo", "min_matches": 20}
# an untrained dense teacher: its warp is nonsense, but of the right form
DENSE = {
    "matcher": "dkm",
    "weights": "random",
    "min_score": 0.0,
    "options": {"coarse_size": (64, 64), "upsample_size": False, "direction": "reference_to_query"},
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("generated") / "data"
    generate(folder)
    return folder / "photos"


def labels(photos: Path, folder: Path, teacher: dict, size: int = 192) -> PseudoLabels:
    mild = HomographyConfig(rotation_deg=10, any_rotation=0, scale=1.2, perspective=0.05, shift=0.1)
    return PseudoLabels(
        [(HomographyPairs(photos, config=mild), 1.0)],
        TeacherConfig.model_validate(teacher),
        folder,
        count=2,
        size=size,
        seed=0,
        max_points=400,
        photometric=PhotometricConfig(),
    )


def test_a_good_teachers_labels_agree_with_the_truth_that_it_did_not_see(photos, tmp_path):
    dataset = labels(photos, tmp_path, GCM)
    source = dataset._sources[0]
    sample = dataset[0]
    valid = sample["valid"]
    assert int(valid.sum()) >= 20
    rng = np.random.default_rng((0, 7, 0))
    rng.choice(1, p=[1.0])
    pair = source.draw(rng, 192)
    assert torch.equal((sample["clean0"] * 255).round().byte(), torch.from_numpy(pair.image0).permute(2, 0, 1))
    truth = pair.dense().warp
    xy = sample["points0"][valid].round().long().numpy()
    found = (sample["points1"] - sample["points0"])[valid].numpy() + xy
    error = np.linalg.norm(found - truth[xy[:, 1], xy[:, 0]], axis=1)
    assert np.nanmedian(error) < 1.5


def test_labels_are_made_once_and_images_change_each_time(photos, tmp_path):
    dataset = labels(photos, tmp_path, GCM)
    first = dataset[1]
    files = sorted(tmp_path.iterdir())
    assert len(files) == 1
    written = files[0].stat().st_mtime_ns
    again = labels(photos, tmp_path, {**GCM, "matcher": "no such matcher"})[3]  # not asked for
    assert torch.equal(first["clean0"], again["clean0"])
    assert not torch.equal(first["image0"], again["image0"])
    assert files[0].stat().st_mtime_ns == written
    files[0].write_bytes(b"damaged")
    repaired = labels(photos, tmp_path, GCM)[1]
    assert all(torch.equal(first[k], repaired[k]) for k in first)


def test_any_dense_matcher_can_teach(photos, tmp_path):
    sample = labels(photos, tmp_path, DENSE, 112)[0]
    assert int(sample["valid"].sum()) == 400
    for side in ("0", "1"):
        assert float(sample[f"points{side}"].min()) >= -0.5
        assert float(sample[f"points{side}"].max()) <= 111.5


def test_a_teacher_that_is_sure_of_nothing_is_told(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(pseudo_labels, "_MAX_ATTEMPTS", 2)
    with pytest.raises(TrainingDataError, match=r"dkm found \d+ matches of score 1.0 or more: lower min_score"):
        labels(photos, tmp_path, {**DENSE, "min_score": 1.0}, 112)[0]
