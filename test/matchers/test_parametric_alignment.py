"""CNNGeometric and weak alignment: an exact transformation in place of the network's output, cascades, weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from ros2_densematch.arrays import Image
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.cnngeometric.matcher import TRANSFORMATIONS, CnnGeometricMatcher
from ros2_densematch.matchers.common.parametric.matcher import ParametricMatcher
from ros2_densematch.matchers.common.parametric.network import Alignment, AlignmentNetwork
from ros2_densematch.matchers.weakalign.matcher import WeakAlignMatcher
from ros2_densematch.nn.soft_inliers import feature_grid, inlier_mask
from ros2_densematch.nn.transformations import identity

Photo = Callable[..., Image]
REFERENCE, QUERY = (203, 151), (160, 120)


@pytest.fixture(scope="module")
def matcher() -> CnnGeometricMatcher:
    return quick(CnnGeometricMatcher(device="cpu", weights="random"))


def quick(matcher: CnnGeometricMatcher) -> CnnGeometricMatcher:
    """Mean colours in place of deep features: the golden vectors and the contract's tests use the real ones."""
    matcher.network.features = colours  # type: ignore[method-assign]
    return matcher


def colours(image: Tensor) -> Tensor:
    return functional.normalize(functional.avg_pool2d(image, 16), dim=1)


def affine_of(matrix: NDArray[np.float64]) -> Tensor:
    """Normalised parameters (1, 6) of a (2, 3) map from reference pixels to query pixels."""
    to_pixels = np.diag([*(np.array(REFERENCE) - 1) / 2, 1.0])
    to_pixels[:2, 2] = (np.array(REFERENCE) - 1) / 2
    to_normalised = np.diag([*(2 / (np.array(QUERY) - 1)), 1.0])
    to_normalised[:2, 2] = -1
    full = to_normalised @ np.vstack([matrix, [0, 0, 1]]) @ to_pixels
    return torch.from_numpy(full[:2].reshape(1, 6).astype(np.float32))


def homography_of(theta: Tensor) -> Tensor:
    return torch.cat([theta, torch.tensor([[0.0, 0, 1]])], 1)


def match_with(matcher: ParametricMatcher, photo: Photo, thetas: list[Tensor]) -> Correspondences:
    """The match of two photos when the network answers with given transformations, which the correlation confirms."""
    correlation = inlier_mask(feature_grid(thetas[0]))
    reference, query = matcher.encode(photo(0, *REFERENCE)), matcher.encode(photo(1, *QUERY))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matcher.network, "align", lambda *_, **__: Alignment(thetas, correlation, correlation))
        return matcher.match(reference, query, max_matches=None)


@pytest.mark.parametrize("kind", ["affine", "homography"])
def test_an_exact_map_of_pixels_comes_out_exactly(matcher: CnnGeometricMatcher, photo: Photo, kind: str) -> None:
    matrix = np.array([[0.6, -0.1, 20.0], [0.05, 0.7, -3.0]])
    theta = affine_of(matrix)
    matches = match_with(matcher, photo, [theta if kind == "affine" else homography_of(theta)])
    assert len(matches) > 100
    expected = matches.reference_xy.astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(matches.query_xy, expected, atol=1e-3)
    warp = matches.warp
    assert warp is not None
    rows, columns = warp.certainty.shape
    assert (rows, columns) == (38, 51)
    # the layout that DenseWarp states: cells tile the image, whatever its size
    x = (np.arange(columns) + 0.5) * REFERENCE[0] / columns - 0.5
    y = (np.arange(rows) + 0.5) * REFERENCE[1] / rows - 0.5
    at = np.stack(np.meshgrid(x, y), -1) @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(warp.xy, at, atol=1e-3)
    outside = (at < -0.6).any(2) | (at > np.array(QUERY) - 0.4).any(2)
    assert outside.any()
    assert (warp.certainty[outside] == 0).all()
    assert matches.overlap == pytest.approx(1.0 - float(outside.mean()), abs=0.03)


def test_a_cascade_goes_through_its_last_stage_first(matcher: CnnGeometricMatcher, photo: Photo) -> None:
    shift = affine_of(np.array([[160 / 203, 0, 8.0], [0, 120 / 151, 0.0]]))
    half = torch.tensor([[0.5, 0, 0, 0, 0.5, 0]])
    both = match_with(matcher, photo, [shift, half])
    alone = match_with(matcher, photo, [shift])
    middle = np.array(QUERY) / 2 - 0.5 + [8.0 - 0.5 * 160 / 203, 0]
    assert both.warp is not None
    assert alone.warp is not None
    # halved about the reference's centre, then shifted
    np.testing.assert_allclose(both.warp.xy - middle, (alone.warp.xy - middle) / 2, atol=1.0)


def test_a_denominator_of_zero_stays_finite(matcher: CnnGeometricMatcher, photo: Photo) -> None:
    horizon = torch.tensor([[1.0, 0, 0, 0, 1, 0, 1, 0, 0]])
    matches = match_with(matcher, photo, [horizon])
    assert matches.warp is not None
    assert np.isfinite(matches.warp.xy).all()


def test_certainty_is_one_where_one_place_alone_is_similar_and_zero_at_chance(
    matcher: CnnGeometricMatcher, photo: Photo
) -> None:
    still = identity(6)[None]
    assert match_with(matcher, photo, [still]).overlap > 0.95
    chance = torch.full((1, 225, 15, 15), 1 / 15)
    reference = matcher.encode(photo(0, *REFERENCE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matcher.network, "align", lambda *_, **__: Alignment([still], chance, chance))
        matches = matcher.match(reference, reference)
    assert matches.overlap < 1e-4


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
def test_every_transformation_runs_and_iterates(transformation: str, photo: Photo) -> None:
    stages = len(TRANSFORMATIONS[transformation])
    for preset, passes in (("base", stages), ("refined", 4 + stages)):
        if preset == "refined" and transformation not in ("homography", "affine+tps"):
            continue
        matcher = quick(
            CnnGeometricMatcher(device="cpu", weights="random", preset=preset, transformation=transformation)
        )
        encoding = matcher.encode(photo(0, 96, 64))
        estimate = matcher.estimate(encoding, encoding)
        assert len(estimate.thetas) == passes
        assert set(estimate.kinds) == set(transformation.split("+"))
        assert 0 <= estimate.soft_inliers <= 225
        for theta in estimate.thetas:
            assert np.abs(theta - identity(len(theta)).numpy()).max() < 0.5, "untrained heads begin near the identity"


def test_iterations_estimate_what_the_passes_before_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a head that always answers a quarter cell, n passes look n quarter cells further."""
    torch.manual_seed(0)
    network = AlignmentNetwork("resnet101", [6]).eval()
    step = torch.tensor([[1.0, 0, 0.1, 0, 1, 0]])
    monkeypatch.setattr(network, "regress", lambda correlation, stage: step)
    seen: list[float] = []

    def features(image: Tensor) -> Tensor:
        seen.append(float(image[0, 0, 120, 120]))
        return functional.normalize(torch.rand(1, 4, 15, 15), dim=1)

    monkeypatch.setattr(network, "features", features)
    ramp = torch.linspace(-1, 1, 240).expand(1, 3, 240, 240)
    alignment = network(ramp, ramp, iterations=3)
    assert len(alignment.thetas) == 3
    centre = float(ramp[0, 0, 0, 120])
    assert seen == pytest.approx([centre, centre, centre + 0.1, centre + 0.2], abs=1e-4)


def test_training_reaches_both_heads_and_normalisation_of_the_backbone_stays_frozen() -> None:
    torch.manual_seed(0)
    network = AlignmentNetwork("vgg16", (6, 18)).train()
    assert not network.FeatureExtraction.training
    assert network.FeatureRegression.training
    network.features = colours  # type: ignore[method-assign]
    image = torch.rand(2, 3, 240, 240)
    alignment = network(image, image.flip(0))
    sum(theta.square().sum() for theta in alignment.thetas).backward()
    for head in (network.FeatureRegression, network.FeatureRegression2):
        assert all(p.grad is not None for p in head.parameters())


@pytest.mark.parametrize("value", [0, 90])
def test_an_image_of_one_colour_matches_nothing(matcher: CnnGeometricMatcher, photo: Photo, value: int) -> None:
    blank, image = matcher.encode(np.full((120, 160), value, np.uint8)), matcher.encode(photo(0, 160, 120))
    for pair in ((blank, image), (image, blank)):
        matches = matcher.match(*pair)
        assert (len(matches), matches.overlap) == (0, 0.0)


def write(path: Path, network: AlignmentNetwork) -> str:
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    return str(path)


def test_files_decide_the_transformation_and_two_make_a_cascade(tmp_path: Path, photo: Photo) -> None:
    torch.manual_seed(0)
    first, second = AlignmentNetwork("vgg16", [9]), AlignmentNetwork("vgg16", [18])
    other = write(tmp_path / "other.safetensors", second)
    second.FeatureExtraction.load_state_dict(first.FeatureExtraction.state_dict())
    files = write(tmp_path / "first.safetensors", first), write(tmp_path / "second.safetensors", second)
    single = quick(CnnGeometricMatcher(device="cpu", weights=files[0]))
    encoding = single.encode(photo(0, 96, 64))
    assert single.estimate(encoding, encoding).kinds == ("homography",)
    cascade = quick(CnnGeometricMatcher(device="cpu", weights=files[0], second_weights=files[1]))
    encoding = cascade.encode(photo(0, 96, 64))
    assert cascade.estimate(encoding, encoding).kinds == ("homography", "tps")
    with pytest.raises(ValueError, match="trained on different features"):
        CnnGeometricMatcher(device="cpu", weights=files[0], second_weights=other)
    with pytest.raises(ValueError, match="hold homography, asked for was affine"):
        CnnGeometricMatcher(device="cpu", weights=files[0], transformation="affine")
    with pytest.raises(ValueError, match="hold vgg16, asked for was resnet101"):
        CnnGeometricMatcher(device="cpu", weights=files[0], backbone="resnet101")


def test_missing_checkpoints_and_unknown_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENSEMATCH_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="densematch weights fetch cnngeometric_homography"):
        CnnGeometricMatcher(device="cpu")
    with pytest.raises(FileNotFoundError, match="densematch weights fetch cnngeo_resnet101_affine"):
        CnnGeometricMatcher(device="cpu", transformation="affine+tps", backbone="resnet101")
    with pytest.raises(FileNotFoundError, match="densematch weights fetch weakalign"):
        WeakAlignMatcher(device="cpu")
    with pytest.raises(ValueError, match=r"cnngeometric\.transformation = 'rigid': input should be 'auto', 'affine'"):
        CnnGeometricMatcher(device="cpu", weights="random", transformation="rigid")
    with pytest.raises(ValueError, match=r"cnngeometric\.backbone = 'vgg19': input should be 'auto', 'vgg16'"):
        CnnGeometricMatcher(device="cpu", weights="random", backbone="vgg19")
