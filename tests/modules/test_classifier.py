"""Losses and accuracies against ones computed in one go, and data that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_compress.datamodules import ImageDataModule, Preprocess
from lit_compress.datamodules.images import PixelDataset
from lit_compress.errors import InvalidArgumentError
from lit_compress.modules import AlexNet, ImageClassifier, MobileNetV2, ShuffleNetV2

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """On busy cores threads wait for each other far longer than they work."""
    torch.set_num_threads(1)


class Pixels(ImageDataModule):
    def __init__(self, channels: int = 1, side: int = 4, classes: int = 3) -> None:
        super().__init__(batch_size=8)
        self.channels, self.side = channels, side
        self.classes = tuple(map(str, range(classes)))
        self.preprocess = Preprocess([0.5], [0.5])

    def read(self, train: bool) -> PixelDataset:
        generator = torch.Generator().manual_seed(int(train))
        shape = (50 if train else 21, self.channels, self.side, self.side)
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        return PixelDataset(images, torch.arange(len(images)) % self.num_classes)


def classifier(**options: Any) -> ImageClassifier:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    return ImageClassifier(network, **{"in_channels": 1, "num_classes": 3, **options})


def test_validation_and_test_figures(make_trainer: Callable[..., Trainer]) -> None:
    module, data, trainer = classifier(), Pixels(), make_trainer()
    for split, run in (("val", trainer.validate), ("test", trainer.test)):
        (logged,) = run(module, datamodule=data, verbose=False)
        dataset = data.datasets[split]
        assert len(dataset) % 8
        with torch.no_grad():
            scores = module.model((dataset.images / 255 - 0.5) / 0.5)
        loss = nn.functional.cross_entropy(scores, dataset.labels)
        right = (scores.argmax(1) == dataset.labels).sum() / len(dataset)
        assert logged == pytest.approx({f"{split}_loss": loss.item(), f"{split}_acc": right.item()})


def test_fit_logs_and_learns(make_trainer: Callable[..., Trainer]) -> None:
    module, data = classifier(), Pixels()
    before = {name: weight.clone() for name, weight in module.named_parameters()}
    trainer = make_trainer(max_epochs=2)
    trainer.fit(module, datamodule=data)
    assert set(trainer.callback_metrics) == {"train_loss", "train_acc", "val_loss", "val_acc"}
    assert all(not torch.equal(weight, before[n]) for n, weight in module.named_parameters())
    assert module.example_input_array.shape == (2, 1, 4, 4)


def test_training_loss(make_trainer: Callable[..., Trainer]) -> None:
    module = classifier(optimizer=partial(torch.optim.SGD, lr=0))
    images, labels = torch.randn(12, 1, 4, 4), torch.arange(12) % 3
    trainer = make_trainer(max_epochs=1)
    trainer.fit(module, DataLoader(TensorDataset(images, labels), batch_size=12))
    scores = module.model(images)
    assert trainer.callback_metrics["train_loss"].item() == pytest.approx(
        nn.functional.cross_entropy(scores, labels).item()
    )
    assert trainer.callback_metrics["train_acc"].item() == pytest.approx(
        (scores.argmax(1) == labels).float().mean().item()
    )


def test_predictions_are_probabilities(make_trainer: Callable[..., Trainer]) -> None:
    module, images = classifier(), torch.randn(5, 1, 4, 4)
    expected = module(images).exp() / module(images).exp().sum(1, keepdim=True)
    for batch in (images, (images, torch.zeros(5)), [images]):
        torch.testing.assert_close(module.predict_step(batch, 0), expected)
    predicted = make_trainer().predict(module, datamodule=Pixels())
    assert predicted is not None
    assert sum(map(len, predicted)) == 21


def test_optimizers() -> None:
    module = classifier()
    sgd = module.configure_optimizers()
    assert isinstance(sgd, torch.optim.SGD)
    assert {key: sgd.defaults[key] for key in ("lr", "momentum", "weight_decay")} == {
        "lr": 0.01,
        "momentum": 0.9,
        "weight_decay": 1e-5,
    }
    given = sum(len(group["params"]) for group in sgd.param_groups)
    assert given == len(list(module.parameters())) == 4
    module = classifier(
        optimizer=torch.optim.Adam,
        lr_scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5),
    )
    configured = module.configure_optimizers()
    assert isinstance(configured["optimizer"], torch.optim.Adam)
    assert configured["lr_scheduler"].optimizer is configured["optimizer"]


def test_scheduler_is_stepped_each_epoch(make_trainer: Callable[..., Trainer]) -> None:
    halve = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    trainer = make_trainer(max_epochs=3)
    trainer.fit(classifier(lr_scheduler=halve), datamodule=Pixels())
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 / 8)


@pytest.mark.parametrize("channels_last", [True, False])
def test_channels_last(channels_last: bool) -> None:
    network = nn.Sequential(nn.Conv2d(2, 4, 3))
    module = ImageClassifier(network, 2, 4, channels_last=channels_last)
    weight = module.model[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) is channels_last
    assert weight.is_contiguous() is not channels_last


def test_wrong_channels_in_forward() -> None:
    with pytest.raises(
        InvalidArgumentError,
        match=r"ImageClassifier takes images of 1 channels, got 3: set model\.in_channels to 3",
    ):
        classifier()(torch.zeros(2, 3, 4, 4))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Pixels(channels=3), r"images of 1 channels, got 3: set model\.in_channels to 3"),
        (Pixels(classes=7), r"has 3 classes, but the data has 7: set model\.num_classes to 7"),
    ],
    ids=["channels", "classes"],
)
@pytest.mark.parametrize("run", ["fit", "validate", "test"])
def test_data_that_do_not_fit_are_refused_beforehand(
    make_trainer: Callable[..., Trainer], data: Pixels, message: str, run: str
) -> None:
    class Counting(ImageClassifier):
        forwards = 0

        def forward(self, images: Tensor) -> Tensor:
            self.forwards += 1
            return super().forward(images)

    module, trainer = Counting(nn.Flatten(), 1, 3), make_trainer()
    with pytest.raises(InvalidArgumentError, match=message):
        getattr(trainer, run)(module, datamodule=data)
    assert module.forwards == 0
    assert trainer.global_step == 0


def test_fewer_classes_than_scores_are_fine(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(max_epochs=1)
    trainer.fit(classifier(), datamodule=Pixels(classes=2))
    assert trainer.global_step == 5


@pytest.mark.parametrize("options", [{"num_classes": 1}, {"in_channels": 0}])
def test_arguments_that_cannot_be(options: dict[str, int]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"num_classes must be at least 2 and model\.in"):
        classifier(**options)


@pytest.mark.parametrize("kind", [AlexNet, MobileNetV2, ShuffleNetV2])
@pytest.mark.parametrize("options", [{"num_classes": 0}, {"in_channels": -1}])
def test_arguments_that_cannot_be_of_the_networks(
    kind: Callable[..., ImageClassifier], options: dict[str, int]
) -> None:
    """The network was built first, and torch warned of or failed on its empty layers."""
    with pytest.raises(InvalidArgumentError, match=r"num_classes must be at least 2 and model\.in"):
        kind(**options)


@pytest.mark.parametrize("kind", [MobileNetV2, ShuffleNetV2])
def test_a_checkpoint_rebuilds_the_module(
    kind: type[ImageClassifier], tmp_path: Path, make_trainer: Callable[..., Trainer]
) -> None:
    width = 0.5
    torch.save(kind(1, 3, width=width).state_dict(), tmp_path / "start.pt")
    module = kind(1, 3, stem="cifar", width=width, init_from=str(tmp_path / "start.pt")).eval()
    (tmp_path / "start.pt").unlink()
    trainer = make_trainer()
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "module.ckpt")
    again = kind.load_from_checkpoint(tmp_path / "module.ckpt", map_location="cpu").eval()
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(again(images), module(images))
    assert again.hparams["stem"] == "cifar"
    assert not {"init_from", "network", "optimizer"} & set(again.hparams)
