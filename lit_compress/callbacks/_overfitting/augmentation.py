"""Switching the augmentation of a run's training data off, and on again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch import Trainer

#: Attribute of a datamodule that its train_dataloader reads; None means no augmentation.
ATTRIBUTE = "augment"


class Augmentation:
    """The augmentation of a datamodule that has an attribute ``augment``; of others, nothing."""

    def __init__(self) -> None:
        self._data: Any = None
        self._given: Any = None

    def switch_off(self, trainer: Trainer) -> None:
        """Have training loaders that are made from now on not augment."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if self._data is None and hasattr(data, ATTRIBUTE):
            self._data, self._given = data, getattr(data, ATTRIBUTE)
            setattr(data, ATTRIBUTE, None)

    def switch_on(self) -> None:
        """Give the datamodule back what it had."""
        if self._data is not None:
            setattr(self._data, ATTRIBUTE, self._given)
            self._data = self._given = None

    @contextmanager
    def off(self, trainer: Trainer) -> Iterator[None]:
        """Switch it off for a while, if it is on."""
        on = self._data is None
        self.switch_off(trainer)
        try:
            yield
        finally:
            if on:
                self.switch_on()

    def describe(self) -> str:
        """Return what is off, or why nothing can be."""
        if self._data is not None:
            return "no augmentation"
        return (
            "augmentation, if there is any, is the training data's own and stays on (a datamodule "
            f"whose train_dataloader reads an attribute {ATTRIBUTE} would have it set to None)"
        )


def reload_training_data(trainer: Trainer) -> None:
    """Make the training loader anew, for an epoch that is about to start."""
    if trainer.datamodule is None:  # type: ignore[attr-defined]
        return
    loop = trainer.fit_loop
    if loop._data_fetcher is not None:
        loop._data_fetcher.teardown()
    loop._combined_loader = None
    loop.setup_data()
    for loader in loop._combined_loader.flattened:  # type: ignore[attr-defined]
        _set_sampler_epoch(loader, trainer.current_epoch)
