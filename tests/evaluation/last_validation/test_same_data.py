"""A measurement has the batches of the validation only if both take all examples in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import ForeignModule, loader, stripes
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader, SubsetRandomSampler

from lit_compress.evaluation.last_validation.same_data import batches_in_common

DATA = stripes(40, 1)


class Data(LightningDataModule):
    """Its loader is made anew each time, of the same data or of others."""

    def __init__(self, new: bool = False) -> None:
        super().__init__()
        self.new = new

    def train_dataloader(self) -> Any:
        return loader(32)

    def val_dataloader(self) -> Any:
        return DataLoader(stripes(40, 1) if self.new else DATA, batch_size=16)


class InOrder(DataLoader):
    """A loader of the user's own, which may do anything."""


@pytest.mark.parametrize(
    ("val", "options", "expected"),
    [
        (lambda: DataLoader(DATA, batch_size=16), {}, 3),
        (lambda: DataLoader(DATA, batch_size=16, drop_last=True), {}, 2),
        (lambda: DataLoader(DATA, batch_size=16, shuffle=True), {}, None),
        (lambda: DataLoader(DATA, 16, sampler=SubsetRandomSampler(range(20))), {}, None),
        (lambda: [DataLoader(DATA, batch_size=16)] * 2, {}, None),
        (lambda: InOrder(DATA, batch_size=16), {}, None),
        (lambda: DataLoader(DATA, batch_size=16), {"limit_val_batches": 2}, None),
        (lambda: DataLoader(DATA, batch_size=16), {"limit_val_batches": 0.5}, None),
        (lambda: DataLoader(DATA, batch_size=16), {"limit_val_batches": 1}, None),
        (lambda: DataLoader(DATA, batch_size=16), {"overfit_batches": 1}, None),
        (lambda: Data(), {}, 3),
        (lambda: Data(new=True), {}, None),
    ],
)
def test_the_same_batches(
    make_trainer: Callable[..., Trainer],
    val: Callable[[], Any],
    options: dict[str, Any],
    expected: int | None,
) -> None:
    class Module(ForeignModule):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self(batch[0])

    trainer = make_trainer(max_epochs=1, limit_train_batches=1, **options)
    data = val()
    if isinstance(data, LightningDataModule):
        trainer.fit(Module(), datamodule=data)
    else:
        trainer.fit(Module(), loader(32), data)
    assert batches_in_common(trainer) == expected
