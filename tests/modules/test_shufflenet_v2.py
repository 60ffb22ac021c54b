from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

from lit_compress.errors import InvalidArgumentError
from lit_compress.modules import ShuffleNetV2


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """On busy cores threads wait for each other far longer than they work."""
    torch.set_num_threads(1)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("channels", "parameters"), [(3, 1_263_854), (1, 1_263_422)])
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_parameters(channels: int, parameters: int, stem: str) -> None:
    assert count(ShuffleNetV2(channels, stem=stem)) == parameters


@pytest.mark.parametrize("width", [0.5, 1.0, 1.5, 2.0])
def test_width(width: float) -> None:
    name = f"shufflenet_v2_x{width}".replace(".", "_")
    reference = models.get_model(name, num_classes=7)
    assert count(ShuffleNetV2(num_classes=7, width=width)) == count(reference)


def test_outputs_are_those_of_torchvision() -> None:
    module = ShuffleNetV2(num_classes=4, width=0.5).eval()
    reference = models.shufflenet_v2_x0_5(num_classes=4).eval()
    reference.load_state_dict(module.model.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(module(images), reference(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("stem", "shrinks"), [("imagenet", 32), ("cifar", 8)])
def test_stem(stem: str, shrinks: int) -> None:
    module = ShuffleNetV2(1, 4, stem, width=0.5).eval()
    sizes: list[tuple[int, ...]] = []
    module.model.conv5.register_forward_hook(lambda m, i, out: sizes.append(tuple(out.shape[2:])))
    with torch.no_grad():
        assert module(torch.randn(2, 1, 64, 32)).shape == (2, 4)
    assert sizes == [(64 // shrinks, 32 // shrinks)]


def test_a_width_between_those_of_the_paper() -> None:
    module = ShuffleNetV2(1, 4, width=0.25)
    outputs = [layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    # 24, 116, 232, 464 and 1024 channels, times 0.25, as multiples of 4; blocks have two halves.
    assert set(outputs) == {8, 14, 28, 56, 58, 256}
    assert module(torch.zeros(2, 1, 32, 32)).shape == (2, 4)


@pytest.mark.parametrize("width", [0, -1.0, float("nan"), float("inf")])
def test_a_width_of_nothing(width: float) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"must be above 0, got {width}"):
        ShuffleNetV2(width=width)


def test_options() -> None:
    module = ShuffleNetV2(2, 4, width=0.5, image_size=40)
    assert module.example_input_array.shape == (2, 2, 40, 40)
    assert module.model.conv1[0].weight.is_contiguous(memory_format=torch.channels_last)
    plain = ShuffleNetV2(2, 4, width=0.5, channels_last=False)
    assert plain.model.conv1[0].weight.is_contiguous()


def test_wrong_channels_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="ShuffleNetV2 takes images of 1 channels, got"):
        ShuffleNetV2(1, 4, width=0.5)(torch.zeros(1, 3, 32, 32))
