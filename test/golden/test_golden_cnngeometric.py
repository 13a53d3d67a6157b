"""CNNGeometric and weak alignment against the golden arrays."""

from __future__ import annotations

import pytest
import torch
from golden_set import Golden, GoldenSet
from torch import Tensor

from ros2_densematch.matchers.common.parametric.network import AlignmentNetwork
from ros2_densematch.nn import soft_inliers
from ros2_densematch.nn.correlation import correlation_3d
from ros2_densematch.nn.resnet import imagenet_normalise
from ros2_densematch.nn.transformations import (
    grid_loss,
    homography_matrix,
    identity,
    regular_grid,
    resize,
    sample_image,
    transform_points,
)

QUIRK = "records what the published code does on a current PyTorch, not how the checkpoints were trained"
SINGLE_STAGE = {
    "vgg16_affine": ("vgg16", 6),
    "vgg16_hom8": ("vgg16", 8),
    "vgg16_tps": ("vgg16", 18),
    "resnet101_affine": ("resnet101", 6),
}


def picture(golden: Golden, name: str) -> Tensor:
    """A golden image at 240 x 240, (1, 3, 240, 240) in 0..255."""
    return resize(torch.from_numpy(golden.image(name)).permute(2, 0, 1)[None].float(), 240, 240)


def network_input(golden: Golden, name: str) -> Tensor:
    """A golden image as the networks take it."""
    return imagenet_normalise(picture(golden, name) / 255)


@pytest.mark.parametrize("stem", SINGLE_STAGE)
def test_a_single_stage(golden: Golden, stem: str) -> None:
    expected = golden.open("cnngeometric", stem)
    network = AlignmentNetwork(SINGLE_STAGE[stem][0], [SINGLE_STAGE[stem][1]])
    network.load_state_dict(expected.state(f"cnngeometric_{stem}"))
    network.eval()
    source, target = network_input(golden, "A"), network_input(golden, "B")
    features = network.features(source), network.features(target)
    expected.compare("features_A", features[0][:, ::32])
    expected.compare("features_B", features[1][:, ::32])
    correlation = correlation_3d(*features)
    expected.compare("correlation", correlation[:, ::5])
    expected.compare("regression_conv_out", network.FeatureRegression.conv(correlation))
    alignment = network(source, target)
    expected.compare("theta", alignment.thetas[0])


@pytest.mark.parametrize("model", ["cnngeometric", "weakalign"])
def test_transformations(golden: Golden, model: str) -> None:
    expected = golden.open(model, "geometry")
    image = picture(golden, "A")
    expected.compare("input_A_legacy_resized_0_255", image[..., ::6, ::6])
    thetas = {name: torch.from_numpy(expected.arrays[f"theta_{name}"]) for name in ("affine", "tps")}
    kinds = [("affine", thetas["affine"], 0.0), ("tps", thetas["tps"], 0.0), ("tps_reg0.2", thetas["tps"], 0.2)]
    if "warp_grid_hom_ac_true" in expected.arrays:
        thetas["hom"] = torch.from_numpy(expected.arrays["theta_hom4pt"])
        kinds.append(("hom", thetas["hom"], 0.0))
        expected.compare("hom_matrix", homography_matrix(thetas["hom"]).flatten(1))
    for name, theta, regularisation in kinds:
        grid = transform_points(theta, regular_grid(60, 48, like=theta), regularisation=regularisation, guarded=False)
        expected.compare(f"warp_grid_{name}_ac_true", grid[:, ::3, ::3])
        expected.compare(f"warp_img_{name}_ac_true", sample_image(image / 255, grid)[..., ::3, ::3])
    points = torch.from_numpy(expected.arrays["points_in"]).transpose(1, 2)
    for name, theta in thetas.items():
        expected.compare(f"points_{name}", transform_points(theta, points).transpose(1, 2))
        expected.compare(f"grid_loss_{name}", grid_loss(theta, identity(theta.shape[1])[None])[None])
    for name in expected.arrays:
        if name.startswith("theta_") or name == "points_in":
            expected.mark(name, "an input of the other arrays")
        elif "ac_default" in name or "asis" in name:
            expected.mark(name, QUIRK)


def two_stage_network(expected: GoldenSet) -> AlignmentNetwork:
    """The network with the two changed heads of the sheet."""
    network = AlignmentNetwork("resnet101", [6, 18])
    state = expected.state("weakalign_resnet101_affine_tps")
    for head, parameters in (("FeatureRegression", 6), ("FeatureRegression2", 18)):
        state[f"{head}.linear.weight"] *= 0.1
        state[f"{head}.linear.bias"] += identity(parameters)
    network.load_state_dict(state)
    network.eval()
    return network


def test_two_stages_and_their_soft_inliers(golden: Golden) -> None:
    expected = golden.open("weakalign", "two_stage")
    alignment = two_stage_network(expected)(network_input(golden, "A"), network_input(golden, "B"))
    expected.compare("theta_affine_stage1", alignment.thetas[0])
    expected.compare("theta_tps_stage2", alignment.thetas[1])
    expected.compare("corr1", alignment.correlation[:, ::5])
    expected.compare("corr2", alignment.refined_correlation[:, ::5])
    geometry = golden.open("weakalign", "geometry").arrays
    given = [torch.from_numpy(geometry[f"theta_{name}"]) for name in ("affine", "tps")]
    for source, (affine, tps) in (("net", alignment.thetas), ("given", given)):
        grids = {
            "affine": soft_inliers.feature_grid(affine),
            "tps": soft_inliers.feature_grid(tps, regularisation=0.2),
            "composed": soft_inliers.composed_feature_grid(affine, tps, regularisation=0.2),
        }
        for name, grid in grids.items():
            for suffix, normalised in (("norm", True), ("raw", False)):
                count = soft_inliers.soft_inlier_count(alignment.correlation, grid, normalised=normalised)
                expected.compare(f"inliers_{name}_{source}_{suffix}", count)
