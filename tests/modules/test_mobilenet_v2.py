from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2

from lit_compress.errors import InvalidArgumentError
from lit_compress.modules import MobileNetV2


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """On busy cores threads wait for each other far longer than they work."""
    torch.set_num_threads(1)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("channels", "parameters"), [(3, 2_236_682), (1, 2_236_106)])
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_parameters(channels: int, parameters: int, stem: str) -> None:
    assert count(MobileNetV2(channels, stem=stem)) == parameters


@pytest.mark.parametrize("width", [0.35, 1.4])
def test_width(width: float) -> None:
    reference = mobilenet_v2(width_mult=width, num_classes=7)
    assert count(MobileNetV2(num_classes=7, width=width)) == count(reference)


def test_outputs_are_those_of_torchvision() -> None:
    module = MobileNetV2(num_classes=4, width=0.5).eval()
    reference = mobilenet_v2(num_classes=4, width_mult=0.5).eval()
    reference.load_state_dict(module.model.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(module(images), reference(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("stem", "shrinks"), [("imagenet", 32), ("cifar", 8)])
def test_stem(stem: str, shrinks: int) -> None:
    module = MobileNetV2(1, 4, stem, width=0.35).eval()
    with torch.no_grad():
        features = module.model.features(torch.randn(1, 1, 64, 32))
        assert module(torch.randn(2, 1, 32, 32)).shape == (2, 4)
    assert features.shape[2:] == (64 // shrinks, 32 // shrinks)


def test_options() -> None:
    module = MobileNetV2(2, 4, width=0.35, dropout=0.4, image_size=40)
    rates = [child.p for child in module.modules() if isinstance(child, nn.Dropout)]
    assert rates == [0.4]
    assert module.example_input_array.shape == (2, 2, 40, 40)
    assert module.model.features[0][0].weight.is_contiguous(memory_format=torch.channels_last)
    plain = MobileNetV2(2, 4, width=0.35, channels_last=False)
    assert plain.model.features[0][0].weight.is_contiguous()


def test_wrong_channels_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="MobileNetV2 takes images of 1 channels, got 3"):
        MobileNetV2(1, 4, width=0.35)(torch.zeros(1, 3, 32, 32))
