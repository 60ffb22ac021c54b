from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torchvision.models import alexnet

from lit_compress.datamodules import ImageDataModule, Preprocess
from lit_compress.datamodules.images import PixelDataset
from lit_compress.errors import InvalidArgumentError
from lit_compress.modules import AlexNet

TOO_SMALL = (
    r"AlexNet needs images of at least 63 pixels .*, got {} x {}: set data\.image_size to 63"
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """On busy cores threads wait for each other far longer than they work."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def net() -> AlexNet:
    return AlexNet(num_classes=4).eval()


def test_width() -> None:
    module = AlexNet(1, 4, width=0.25)
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    # Those of the published network are 64, 192, 384, 256, 256, 4096 and 4096.
    assert [layer.weight.shape[0] for layer in layers] == [16, 48, 96, 64, 64, 1024, 1024, 4]
    assert module(torch.zeros(2, 1, 64, 64)).shape == (2, 4)
    with pytest.raises(InvalidArgumentError, match="must be above 0, got 0"):
        AlexNet(width=0)


class Squares(ImageDataModule):
    classes = ("a", "b")

    def __init__(self, side: int) -> None:
        super().__init__()
        self.preprocess = Preprocess([0.5], [0.5], image_size=side)

    def read(self, train: bool) -> PixelDataset:
        return PixelDataset(torch.zeros(10, 3, 8, 8, dtype=torch.uint8), torch.arange(10) % 2)


@pytest.mark.parametrize(("channels", "count"), [(3, 57_044_810), (1, 57_029_322)])
def test_parameters(channels: int, count: int) -> None:
    with torch.device("meta"):
        module = AlexNet(channels)
    assert sum(p.numel() for p in module.parameters()) == count
    assert all(p.requires_grad for p in module.parameters())


def test_outputs_are_those_of_torchvision(net: AlexNet) -> None:
    reference = alexnet(num_classes=4).eval()
    reference.load_state_dict(net.model.state_dict())
    images = torch.randn(2, 3, 64, 70)
    with torch.no_grad():
        torch.testing.assert_close(net(images), reference(images))


def test_63_pixels_are_the_fewest(net: AlexNet) -> None:
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 63, 63)).shape == (1, 4)
        with pytest.raises(RuntimeError, match="too small"):
            net.model(torch.zeros(1, 3, 62, 62))


@pytest.mark.parametrize(("height", "width"), [(62, 62), (32, 64), (64, 32)])
def test_smaller_images_are_refused(net: AlexNet, height: int, width: int) -> None:
    with pytest.raises(InvalidArgumentError, match=TOO_SMALL.format(height, width)):
        net(torch.zeros(1, 3, height, width))


def test_wrong_channels_are_refused(net: AlexNet) -> None:
    with pytest.raises(InvalidArgumentError, match="AlexNet takes images of 3 channels, got 1"):
        net(torch.zeros(1, 1, 64, 64))


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_smaller_images_are_refused_before_training(
    net: AlexNet, make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    monkeypatch.setattr(net, "training_step", lambda batch, index: steps.append(index))
    monkeypatch.setattr(net, "validation_step", lambda batch, index: steps.append(index))
    before = net.model.classifier[6].weight.clone()
    with pytest.raises(InvalidArgumentError, match=TOO_SMALL.format(32, 32)):
        make_trainer().fit(net, datamodule=Squares(32))
    assert steps == []
    assert torch.equal(net.model.classifier[6].weight, before)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_images_of_63_pixels_are_evaluated(
    net: AlexNet, make_trainer: Callable[..., Trainer]
) -> None:
    (logged,) = make_trainer().test(net, datamodule=Squares(63), verbose=False)
    assert 0 <= logged["test_acc"] <= 1
    assert net.example_input_array.shape == (2, 3, 63, 63)


def test_dropout_and_example() -> None:
    with torch.device("meta"):
        module = AlexNet(1, 2, dropout=0.25, image_size=32)
    rates = [child.p for child in module.modules() if isinstance(child, nn.Dropout)]
    assert rates == [0.25, 0.25]
    assert module.example_input_array.shape == (2, 1, 63, 63)
    assert module.hparams["dropout"] == 0.25
