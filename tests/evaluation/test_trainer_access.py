from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_compress.evaluation.trainer_access import (
    callbacks,
    callbacks_of_type,
    datamodule,
    fit_loaders,
    is_fast_dev_run,
    overfit_batches,
    set_datamodule,
    set_root_dir,
)


class First(Callback):
    pass


class Second(First):
    pass


class Line(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        return self.layer(batch[0]).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Points(LightningDataModule):
    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(torch.zeros(4, 2)), batch_size=2)


def trainer(folder: Path, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )


def test_the_list_of_callbacks_is_the_trainers_own(tmp_path: Path) -> None:
    run, late = trainer(tmp_path, callbacks=[First(), Second()]), Callback()

    callbacks(run).append(late)

    assert [type(callback) for callback in callbacks(run)][-3:] == [First, Second, Callback]


def test_callbacks_are_found_by_their_class_and_its_subclasses_in_order(tmp_path: Path) -> None:
    first, second = First(), Second()
    run = trainer(tmp_path, callbacks=[second, first])

    assert callbacks_of_type(run, First) == [second, first]
    assert callbacks_of_type(run, Second) == [second]


@pytest.mark.parametrize(("given", "expected"), [(False, False), (True, True), (3, True)])
def test_a_fast_dev_run_of_several_batches_counts(
    tmp_path: Path, given: bool | int, expected: bool
) -> None:
    assert is_fast_dev_run(trainer(tmp_path, fast_dev_run=given)) is expected


@pytest.mark.parametrize("given", [0.0, 0.5, 2])
def test_overfit_batches_is_a_share_or_a_number(tmp_path: Path, given: int | float) -> None:
    found = overfit_batches(trainer(tmp_path, overfit_batches=given))

    assert found == given
    assert type(found) is type(given)


def test_the_datamodule_is_none_until_a_run_has_one(tmp_path: Path) -> None:
    run, data = trainer(tmp_path, max_steps=1), Points()

    before = datamodule(run)
    run.fit(Line(), datamodule=data)

    assert before is None
    assert datamodule(run) is data


def test_a_datamodule_can_be_set_and_taken_away(tmp_path: Path) -> None:
    run, data = trainer(tmp_path), Points()

    set_datamodule(run, data)
    given = datamodule(run)
    set_datamodule(run, None)

    assert given is data
    assert datamodule(run) is None


def test_the_loaders_of_the_fit_exist_once_it_has_started(tmp_path: Path) -> None:
    run, loader = trainer(tmp_path, max_steps=1), Points().train_dataloader()

    before = fit_loaders(run)
    run.fit(Line(), loader)

    assert before == []
    assert [found.dataset for found in fit_loaders(run)] == [loader.dataset]


def test_the_root_folder_can_be_set(tmp_path: Path) -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    set_root_dir(trainer, str(tmp_path))
    assert trainer.default_root_dir == str(tmp_path)
