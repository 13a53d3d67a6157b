"""`integrations/vismatch_densematch.py` against the contract of vismatch's base class.

Where vismatch is installed its own base class checks the result; otherwise a stand-in demands what its documentation
says: a constructor that is called with device and options, and seven values from `_forward`.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from ros2_densematch.simulation.flight import demo_camera, demo_flight
from ros2_densematch.simulation.renderer import render
from ros2_densematch.simulation.worlds import workshop

HAS_VISMATCH = importlib.util.find_spec("vismatch") is not None


class StandIn(torch.nn.Module):
    """What a wrapper may rely on and must give."""

    def __init__(self, device: str = "cpu", **options: Any) -> None:
        super().__init__()
        self.device = device
        self.options = options

    def forward(self, image0: torch.Tensor, image1: torch.Tensor) -> dict[str, Any]:
        with torch.inference_mode():
            values = self._forward(image0, image1)
        assert len(values) == 7
        assert all(v is None or isinstance(v, (np.ndarray, torch.Tensor)) for v in values)
        first, second, points0, points1, descriptors0, descriptors1, confidence = values
        assert first.ndim == 2
        assert first.shape[1] == 2
        assert first.shape == second.shape
        assert (points0, points1, descriptors0, descriptors1) == (None,) * 4
        assert confidence.shape == (len(first),)
        return {"matched_kpts0": first, "matched_kpts1": second, "matched_confidences": confidence}


@pytest.fixture
def wrapper(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    if not HAS_VISMATCH:
        package, base = ModuleType("vismatch"), ModuleType("vismatch.base_matcher")
        base.BaseMatcher = StandIn  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "vismatch", package)
        monkeypatch.setitem(sys.modules, "vismatch.base_matcher", base)
    file = repository / "integrations" / "vismatch_densematch.py"
    spec = importlib.util.spec_from_file_location("vismatch_densematch", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tensor(frame: int) -> torch.Tensor:
    image = render(workshop(), demo_camera(240, 180), demo_flight().T_world_from_camera[frame]).image
    return torch.from_numpy(image.transpose(2, 0, 1).copy()).float() / 255


def test_matches_lie_inside_both_images_and_carry_confidences(wrapper: Any) -> None:
    result = wrapper.DensematchMatcher(device="cpu", matcher="sift", max_num_keypoints=60)(tensor(20), tensor(23))
    first, second = result["matched_kpts0"], result["matched_kpts1"]
    assert 20 < len(first) <= 60
    for points in (first, second):
        assert (points >= 0).all()
        assert (points < [240, 180]).all()
    assert result["matched_confidences"].min() >= 0
    assert result["matched_confidences"].max() <= 1
    assert np.median(np.linalg.norm(first - second, axis=1)) > 0.1  # the camera moved


def test_images_without_anything_in_them_give_no_match_and_no_error(wrapper: Any) -> None:
    black = torch.zeros(3, 120, 160)
    result = wrapper.DensematchMatcher(matcher="sift")(black, black)
    assert len(result["matched_kpts0"]) == 0


def test_grey_tensors_are_taken(wrapper: Any) -> None:
    picture = wrapper._picture(torch.full((1, 4, 5), 0.5))
    assert picture.shape == (4, 5, 3)
    assert picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [128, 128, 128]


@pytest.mark.skipif(not HAS_VISMATCH, reason="vismatch is not installed: pip install vismatch")
def test_the_base_class_of_vismatch_itself_accepts_it(wrapper: Any) -> None:
    result = wrapper.DensematchMatcher(device="cpu", matcher="sift")(tensor(20), tensor(23))
    assert result["num_inliers"] == len(result["inlier_kpts0"])
