"""Augmentation switched off and on, on datamodules that have an attribute for it and on others."""

from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ForeignModule, loader
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch.utils.data import DataLoader

from lit_compress.callbacks._overfitting.augmentation import Augmentation, reload_training_data


class Data(LightningDataModule):
    def __init__(self, augment: object) -> None:
        super().__init__()
        self.augment = augment
        self.made: list[object] = []

    def train_dataloader(self) -> DataLoader:
        self.made.append(self.augment)
        return loader(32)


def around(data: object) -> Any:
    return SimpleNamespace(datamodule=data)


@pytest.mark.parametrize("given", ["flip", True, None])
def test_is_given_back_as_it_was(given: object) -> None:
    data, augmentation = Data(given), Augmentation()
    augmentation.switch_off(around(data))
    augmentation.switch_off(around(data))
    assert data.augment is None
    assert augmentation.describe() == "no augmentation"
    augmentation.switch_on()
    augmentation.switch_on()
    assert data.augment is given


def test_off_for_a_while() -> None:
    data, augmentation = Data("flip"), Augmentation()
    with augmentation.off(around(data)):
        assert data.augment is None
    assert data.augment == "flip"
    augmentation.switch_off(around(data))
    with augmentation.off(around(data)):
        assert data.augment is None
    assert data.augment is None


@pytest.mark.parametrize("data", [None, LightningDataModule()])
def test_others_keep_what_they_have(data: object) -> None:
    augmentation = Augmentation()
    augmentation.switch_off(around(data))
    assert not hasattr(data, "augment")
    assert "stays on" in augmentation.describe()
    augmentation.switch_on()
    assert not hasattr(data, "augment")


def test_loaders_are_made_anew_for_the_epoch_that_starts(make_trainer: Any) -> None:
    class Switch(Callback):
        def on_train_epoch_start(self, trainer: Trainer, module: ForeignModule) -> None:
            if trainer.current_epoch == 1:
                trainer.datamodule.augment = "flip"
                reload_training_data(trainer)

    data = Data(None)
    trainer = make_trainer(callbacks=[Switch()])
    trainer.fit(ForeignModule(), datamodule=data)
    assert data.made == [None, "flip"]
    assert trainer.global_step == 3 * 2
