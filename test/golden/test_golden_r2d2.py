"""R2D2's networks and their key points against the golden arrays."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_set import Golden, GoldenSet

from ros2_densematch.matchers.r2d2.matcher import Keypoints, detect_multi_scale
from ros2_densematch.nn.r2d2 import R2d2Network, Variant, local_maxima
from ros2_densematch.nn.resnet import imagenet_normalise
from ros2_densematch.weights.checkpoint import read_official
from ros2_densematch.weights.official import OFFICIAL, official
from ros2_densematch.weights.store import MissingCheckpoint, read_checkpoint

_VARIANTS: dict[str, Variant] = {
    "Quad_L2Net_ConfCFS()": "quad",
    "Quad_L2Net_ConfCFS(mchan=6)": "big",
    "Fast_Quad_L2Net_ConfCFS()": "fast",
}


def sets_of(golden: Golden, model: str) -> list[GoldenSet]:
    return [golden.open(model, path.stem) for path in sorted((golden.folder / model).glob("*.npz"))]


def image_tensor(golden: Golden, name: str) -> torch.Tensor:
    return imagenet_normalise(torch.from_numpy(golden.image(name)).permute(2, 0, 1)[None].float() / 255)


def official_state(name: str, sha256: str) -> dict[str, torch.Tensor]:
    """The authors' weights, where somebody put the file: in DENSEMATCH_OFFICIAL or in the store."""
    folder = os.environ.get("DENSEMATCH_OFFICIAL")
    if folder and (path := Path(folder) / official(name).file).is_file():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
        return read_official(official(name), path)
    return read_checkpoint(name)


def compare(golden: Golden, expected: GoldenSet, network: R2d2Network) -> None:
    image, settings = image_tensor(golden, "A"), expected.settings
    output = network.eval()(image)
    expected.compare("descriptors", output.descriptors[:, ::8, ::8, ::8])
    expected.compare("reliability", output.reliability[:, :, ::2, ::2])
    expected.compare("repeatability", output.repeatability[:, :, ::2, ::2])
    thresholds = {"min_reliability": settings["rel_thr"], "min_repeatability": settings["rep_thr"]}
    same_set(expected, "nms_yx", local_maxima(output, **thresholds).numpy(), expected.arrays["nms_yx"])

    sizes = dict(re.findall(r"(min_size|max_size|min_scale|max_scale) ([\d.]+)", settings["multi_scale"]))
    found = detect_multi_scale(
        network,
        image,
        **thresholds,
        min_size=int(sizes["min_size"]),
        max_size=int(sizes["max_size"]),
        min_scale=float(sizes["min_scale"]),
        max_scale=float(sizes["max_scale"]),
    )
    xys = torch.cat([found.xy, found.size[:, None]], 1).numpy()
    same_set(expected, "ms_xys", np.round(xys, 2), np.round(expected.arrays["ms_xys"], 2))
    ours, theirs = paired(expected, found, xys)
    expected_scores = expected.arrays["ms_scores"][theirs]
    assert np.abs(found.score.numpy()[ours] - expected_scores).max() <= expected.tolerance("ms_scores")
    expected.mark("ms_scores")

    count = len(expected.arrays["ms_xys"])
    rows = np.arange(0, count, max(1, count // 64))
    ours_of = dict(zip(theirs.tolist(), ours.tolist(), strict=True))
    known = [i for i, row in enumerate(rows) if int(row) in ours_of]
    assert len(known) >= 0.95 * len(rows)
    got = found.descriptors.numpy()[[ours_of[int(rows[i])] for i in known]][:, ::4]
    assert np.abs(got - expected.arrays["ms_desc_slice"][known]).max() <= expected.tolerance("ms_desc_slice")
    expected.mark("ms_desc_slice")


def same_set(expected: GoldenSet, name: str, got: np.ndarray, want: np.ndarray) -> None:
    """Thresholded key points: as sets, half a percent may differ."""
    ours, theirs = ({tuple(row) for row in rows.tolist()} for rows in (got, want))
    assert len(ours ^ theirs) <= 0.005 * max(len(theirs), 1), f"{expected}/{name}: {len(ours ^ theirs)} differ"
    expected.mark(name)


def paired(expected: GoldenSet, found: Keypoints, xys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the key points that both have."""
    index = {tuple(row): i for i, row in enumerate(np.round(xys, 2).tolist())}
    pairs = [
        (index[tuple(row)], i)
        for i, row in enumerate(np.round(expected.arrays["ms_xys"], 2).tolist())
        if tuple(row) in index
    ]
    ours, theirs = np.array(pairs).T
    return ours, theirs


def test_networks_with_weights_by_the_rule(golden: Golden) -> None:
    sets = [s for s in sets_of(golden, "r2d2") if not s.stem.startswith("real_")]
    assert sets
    for expected in sets:
        variant: Variant = expected.stem.split("_")[1]  # rule_quad, rule_fast
        name = next(c["name"] for c in expected.checkpoint["checkpoints"] if _VARIANTS[c["net_string"]] == variant)
        network = R2d2Network(variant)
        network.load_state_dict(expected.state(name))
        compare(golden, expected, network)


def test_networks_with_the_authors_weights(golden: Golden) -> None:
    missing = []
    for expected in (s for s in sets_of(golden, "r2d2") if s.stem.startswith("real_")):
        name = expected.stem.removeprefix("real_")
        assert name in OFFICIAL
        entry = next(c for c in expected.checkpoint["checkpoints"] if c["name"] == name)
        try:
            state = official_state(name, expected.settings["file_sha256"])
        except MissingCheckpoint as error:
            missing.append(name)
            for array in expected.arrays:
                expected.mark(array, str(error))
            continue
        network = R2d2Network(_VARIANTS[entry["net_string"]])
        network.load_state_dict(state)
        compare(golden, expected, network)
    if missing:
        pytest.skip(f"not fetched: {', '.join(missing)} (CC BY-NC-SA 3.0)")
