"""The encoder of `gcm` as a pure function: the same as the matcher's own, without a look at a value on the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ros2_densematch.files.shipped import sample_file
from ros2_densematch.matchers.common.working_image import to_tensor
from ros2_densematch.matchers.gcm.graph import GcmEncoder, fixed_keypoints
from ros2_densematch.matchers.gcm.matcher import GcmMatcher

KEYPOINTS, THRESHOLD = 2048, -5.0
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def matcher() -> GcmMatcher:
    return GcmMatcher(device="cpu", keypoints=KEYPOINTS, saliency_threshold=THRESHOLD)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A photo whose sides are multiples of nothing."""
    picture = cv2.imread(str(sample_file(Path("sample/a.jpg"))))
    assert picture is not None
    return np.ascontiguousarray(cv2.resize(picture, (331, 245), interpolation=cv2.INTER_AREA)[..., ::-1])


@torch.inference_mode()
def test_it_says_what_the_matcher_keeps(matcher: GcmMatcher, photo: np.ndarray) -> None:
    wanted = matcher.encode(photo).data
    found = GcmEncoder(matcher.network, KEYPOINTS, THRESHOLD).eval()(to_tensor(photo, CPU))
    assert found.saliency.shape == (1, 1, 245, 331)
    assert torch.allclose(found.descriptors[0].permute(1, 2, 0), wanted.descriptors, atol=1e-5)
    real = found.keypoint_saliency[0] > THRESHOLD
    count = int(real.sum())
    assert 100 < count == len(wanted.keypoints) < KEYPOINTS
    assert torch.equal(found.keypoints[0][real], wanted.keypoints)
    assert torch.allclose(found.keypoint_descriptors[0][real], wanted.keypoint_descriptors, atol=1e-5)
    assert bool((found.keypoints[0][~real] == -1).all())
    assert bool((found.keypoint_saliency[0][:-1] >= found.keypoint_saliency[0][1:]).all())


def test_only_the_best_are_kept_where_there_are_more() -> None:
    saliency = torch.full((1, 40, 60), -9.0)
    places = [(10, 8), (30, 20), (50, 30), (5, 35)]  # x, y
    for strength, (x, y) in enumerate(places):
        saliency[0, y, x] = float(strength)
    saliency[0, 2, 30] = 99.0  # in the border
    xy, value = fixed_keypoints(saliency, 3, -5.0)
    assert xy[0].tolist() == [list(p) for p in reversed(places[1:])]
    assert value[0].tolist() == [3.0, 2.0, 1.0]


class _NoHost(TorchDispatchMode):
    """Refuses whatever makes the host wait for a value or copies between devices."""

    REFUSED = ("_local_scalar_dense", "nonzero", "masked_select", "item", "is_nonzero", "equal")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        tensors = [a for a in (args[1] if name.startswith("index") and len(args) > 1 else ()) if a is not None]
        boolean = any(isinstance(t, torch.Tensor) and t.dtype == torch.bool for t in tensors)
        if name in self.REFUSED or boolean or (name in ("_to_copy", "copy_") and kwargs.get("device") is not None):
            raise AssertionError(f"{name} looks at values on the host")
        return func(*args, **kwargs)


def test_nothing_is_read_on_the_host(matcher: GcmMatcher) -> None:
    image = torch.rand(1, 3, 100, 150)
    with torch.no_grad(), _NoHost():
        GcmEncoder(matcher.network, KEYPOINTS, THRESHOLD).eval()(image)


def test_the_mode_sees_what_it_refuses() -> None:
    x = torch.arange(4.0)
    for look in (lambda: float(x[0]), lambda: x[x > 1], lambda: torch.nonzero(x), lambda: x.to("meta")):
        with pytest.raises(AssertionError, match="on the host"), _NoHost():
            look()


def test_shapes_are_known_without_values() -> None:
    with torch.device("meta"):
        from ros2_densematch.matchers.gcm.network import GcmNetwork

        encoder = GcmEncoder(GcmNetwork(), 512, THRESHOLD).eval()
        found = encoder(torch.empty(2, 3, 96, 130))
    assert [tuple(t.shape) for t in found] == [(2, 64, 24, 36), (2, 1, 96, 130), (2, 512, 2), (2, 512), (2, 512, 64)]
    assert all(t.device.type == "meta" for t in found)
