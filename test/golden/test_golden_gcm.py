"""GCM as published: its descriptor and every step of its pipeline against the golden arrays."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from golden_set import Golden, GoldenSet
from test_golden_r2d2 import image_tensor, official_state, sets_of

from ros2_densematch.matchers.common.pyramid.cells import PyramidMatches
from ros2_densematch.matchers.common.pyramid.homography import fit_homography, inside
from ros2_densematch.matchers.common.pyramid.matcher import FIRST, WorkingMatches
from ros2_densematch.matchers.gcm_paper.backbones import VGG_TAPS
from ros2_densematch.matchers.gcm_paper.matcher import GcmPaperMatcher
from ros2_densematch.nn.r2d2 import R2d2Network
from ros2_densematch.nn.vgg_maps import VggMaps
from ros2_densematch.weights.store import MissingCheckpoint


def student(expected: GoldenSet, *, published: bool) -> R2d2Network:
    network = R2d2Network("student").eval()
    if published:
        digest = next(c["file_sha256"] for c in expected.checkpoint["checkpoints"] if "file_sha256" in c)
        network.load_state_dict(official_state("gcm_student", digest))
    else:
        network.load_state_dict(expected.state("dstl_r2d2"))
    return network


def skipped(sets: list[GoldenSet], error: Exception) -> None:
    for expected in sets:
        for array in expected.arrays:
            expected.mark(array, str(error))
    pytest.skip(str(error))


@pytest.mark.parametrize("published", [False, True])
def test_the_distilled_descriptor(golden: Golden, published: bool) -> None:
    stem = "real_" if published else "rule_"
    sets = [s for s in sets_of(golden, "gcm") if s.stem.startswith(stem)]
    assert sets
    for expected in sets:
        try:
            network = student(expected, published=published)
        except MissingCheckpoint as error:
            skipped(sets, error)
        expected.compare("feature", network.features(image_tensor(golden, "A"))[:, ::8, ::6, ::6])


@pytest.mark.parametrize("published", [False, True])
def test_every_step_of_the_pipeline(golden: Golden, published: bool) -> None:
    pipelines = [s for s in sets_of(golden, "gcm") if s.stem.startswith("pipeline_")]
    sets = [s for s in pipelines if (s.settings["fine_weights"] != "weight rule") == published]
    assert sets
    for expected in sets:
        try:
            descriptor = student(expected, published=published).features
        except MissingCheckpoint as error:
            skipped(sets, error)
        compare_pipeline(golden, expected, descriptor)


def compare_pipeline(golden: Golden, expected: GoldenSet, descriptor) -> None:
    settings = expected.settings
    backbone = VggMaps(VGG_TAPS).eval()
    backbone.load_state_dict(expected.state("vgg19_features"))
    matcher = GcmPaperMatcher(
        device="cpu", backbone=backbone, descriptor=descriptor, two_stage=settings["two_stage"], preset="precise"
    )
    matcher.ratios = dict(zip((2, 4, 8, 16, FIRST), settings["ratio_th"], strict=True)) | {1: settings["fine_ratio"]}
    image0, image1 = golden.image("A"), golden.image("B")
    reference, query = matcher.encode_working(image0), matcher.encode_working(image1)
    found = matcher.match_working(reference, query)
    if "coarse_16" in expected.arrays:
        expected.compare("coarse_16", reference.maps[16][None, ::32])
    if found.first is not None:
        compare_points(expected, "dense0", found.first)
    if settings["two_stage"] and settings["opencv"] != cv2.__version__:
        for array in expected.arrays:
            if not array.startswith("dense0"):
                expected.mark(array, f"needs OpenCV {settings['opencv']}, this is {cv2.__version__}")
        return
    largest = float(np.abs(expected.arrays["H_init"]).max())
    expected.compare("H_init", found.homography, tolerance=1e-4 * max(1.0, largest))
    names = ["dense1" if settings["two_stage"] else "dense_points", "refine0", "refine1", "refine2", "refine3"]
    for name, level in zip(names, found.levels, strict=True):
        compare_points(expected, name, level)
    compare_final(expected, found, image0, image1)


def compare_points(expected: GoldenSet, name: str, got: PyramidMatches) -> None:
    expected.compare_integers(f"{name}_A", got.reference.T)
    expected.compare_integers(f"{name}_B", got.query.T)


def compare_final(expected: GoldenSet, found: WorkingMatches, image0: np.ndarray, image1: np.ndarray) -> None:
    sizes = [(image.shape[1], image.shape[0]) for image in (image0, image1)]
    keep = inside(found.reference, found.query, *sizes, as_released=True)
    expected.compare("points_A_final", found.reference[keep].T)
    expected.compare("points_B_final", found.query[keep].T, tolerance=1e-3)
    if expected.settings["opencv"] != cv2.__version__:
        expected.mark("H", f"needs OpenCV {expected.settings['opencv']}, this is {cv2.__version__}")
        return
    homography = fit_homography(found.query[keep], found.reference[keep], 3.0)
    assert homography is not None
    want = torch.from_numpy(expected.arrays["H"]).double().numpy()
    np.testing.assert_allclose(homography, want, rtol=1e-3, atol=1e-3)
    expected.mark("H")
