"""Switching the augmentation of the training data off, and on again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch import Trainer

from lit_compress.evaluation.data_protocols import HasAugment
from lit_compress.evaluation.trainer_access import datamodule, fit_loaders


class Augmentation:
    """The augmentation of a datamodule that has an attribute ``augment``."""

    def __init__(self) -> None:
        self._data: HasAugment | None = None
        self._given: Any = None

    def switch_off(self, trainer: Trainer) -> None:
        """Switch off the augmentation of all training loaders that are made from now on."""
        data: object = datamodule(trainer)
        if self._data is None and isinstance(data, HasAugment):
            self._data, self._given = data, data.augment
            data.augment = None

    def switch_on(self) -> None:
        """Restore the augmentation of the datamodule."""
        if self._data is not None:
            self._data.augment = self._given
            self._data = self._given = None

    @contextmanager
    def off(self, trainer: Trainer) -> Iterator[None]:
        """Switch it off until the end of the block, if it is on."""
        on = self._data is None
        self.switch_off(trainer)
        try:
            yield
        finally:
            if on:
                self.switch_on()

    def describe(self) -> str:
        """Return what is switched off, or why nothing can be."""
        if self._data is not None:
            return "no augmentation"
        return (
            "augmentation, if there is any, stays on (to have it switched off, let "
            "train_dataloader of the datamodule read an attribute augment, where None means none)"
        )


def reload_training_data(trainer: Trainer) -> None:
    """Load the training data again, for an epoch that is about to start."""
    if datamodule(trainer) is None:
        return
    loop = trainer.fit_loop
    if loop._data_fetcher is not None:
        loop._data_fetcher.teardown()
    loop._combined_loader = None
    loop.setup_data()
    for loader in fit_loaders(trainer):
        _set_sampler_epoch(loader, trainer.current_epoch)
