"""Modules as people write them: what the second Trainer's validation must cope with."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader, stripes
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_compress import Schedule
from lit_compress.artifact import read_card
from lit_compress.callbacks import CompressionReport, MagnitudePruning, PostTrainingQuantization
from lit_compress.errors import InvalidArgumentError


class UsesSurroundings(ForeignModule):
    """Looks at its trainer's logger, data, optimizers and epoch while it validates."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.logger.experiment.add_scalar("seen", 1.0)  # type: ignore[union-attr]
        self.trainer.datamodule.val_dataloader()  # type: ignore[attr-defined]
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        self.log("epoch", float(self.current_epoch))


class KeepsThings(ForeignModule):
    """Keeps a tensor of the last graph and a lock, neither of which can be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.last = super().training_step(batch, batch_idx)
        return self.last


class DictBatches(ForeignModule):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step((batch["x"], batch["y"]), batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        hits = self(x=batch["x"]).argmax(-1) == batch["y"]
        self.log("my_acc", hits.float().mean(), batch_size=len(hits))


class TwoLoaders(ForeignModule):
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:  # type: ignore[override]
        hits = self(batch[0]).argmax(-1) == batch[1]
        if dataloader_idx == 0:
            self.log("my_acc", hits.float().mean(), add_dataloader_idx=False)


class Data(LightningDataModule):
    def train_dataloader(self) -> DataLoader:
        return loader()

    def val_dataloader(self) -> DataLoader:
        return loader(32, 1)


def dicts() -> DataLoader:
    data = [{"x": x, "y": y} for x, y in zip(*stripes(32, 1).tensors, strict=True)]
    return DataLoader(data, batch_size=16)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("module", "data", "precision"),
    [
        (UsesSurroundings, {"datamodule": Data()}, "32-true"),
        (KeepsThings, {"train_dataloaders": loader(), "val_dataloaders": loader(32, 1)}, "64-true"),
        (DictBatches, {"train_dataloaders": dicts(), "val_dataloaders": dicts()}, "32-true"),
        (
            TwoLoaders,
            {"train_dataloaders": loader(), "val_dataloaders": [loader(32, 1), loader(16, 2)]},
            "32-true",
        ),
    ],
)
def test_modules_as_people_write_them(
    module: type[ForeignModule],
    data: dict,
    precision: Any,
    make_trainer: Callable[..., Trainer],
    tmp_path: Path,
) -> None:
    callback = PostTrainingQuantization("my_acc", dirpath=str(tmp_path / "a"))
    options = {"max_epochs": 2, "callbacks": [callback], "logger": True, "precision": precision}
    make_trainer(**options).fit(module(), **data)
    metric = read_card(tmp_path / "a").variant("int8").metric
    assert metric
    assert metric.n == 32  # those of the first loader, where only that one logs it


def test_the_report_refuses_what_it_cannot_measure_before_training(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    class Refused(ForeignModule):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise AssertionError("trained before the error")

    report = CompressionReport("acuracy", dirpath=str(tmp_path / "a"))
    with pytest.raises(InvalidArgumentError, match="'acuracy' is not logged"):
        make_trainer(callbacks=[report]).fit(Refused(), loader(), loader(32, 1))


def test_events_are_the_schedules_alone(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer]
) -> None:
    """A share rounded to a float used to fire an event again at the next epoch."""
    pruning = MagnitudePruning(0.7, Schedule(0, 4, 2))
    make_trainer(max_epochs=6, callbacks=[pruning]).fit(foreign, loader(), loader(32, 1))
    assert [event["epoch"] for event in pruning.history] == [0, 2, 4]


@pytest.mark.filterwarnings("ignore:.*configure_optimizers. returned:UserWarning")  # as meant
def test_manual_steps_of_an_optimizer_the_trainer_does_not_know(
    make_trainer: Callable[..., Trainer],
) -> None:
    class Own(ForeignModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.own = [torch.optim.SGD(self.net.parameters(), 0.1, momentum=0.9)]

        def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
            self.own[0].zero_grad()
            self.manual_backward(loss)
            self.own[0].step()

        def configure_optimizers(self) -> None:  # type: ignore[override]
            return None

    module, pruning = Own(), MagnitudePruning(0.5, Schedule(shape="one_shot"))
    make_trainer(callbacks=[pruning]).fit(module, loader(), loader(32, 1))
    for name, mask in pruning.masks.items():
        assert not module.get_parameter(name)[~mask].any()
