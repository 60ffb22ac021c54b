"""Callbacks that keep what the last validation has measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lit_compress.evaluation.last_validation.watch import LastValidation


class WatchesValidation(Callback, ABC):
    """A callback that keeps what the last validation measured, so that it is not measured again."""

    @property
    def last_validation(self) -> LastValidation:
        """The last validation of the run."""
        found: LastValidation = vars(self).setdefault("watched", LastValidation())
        return found

    @abstractmethod
    def watches(self, trainer: Trainer) -> bool:
        """Tell whether it needs a metric of the validation."""

    def watched_part(self, trainer: Trainer) -> str | None:
        """Return the name of the part that is the network; None if any may be."""
        return None

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.last_validation.forget()
        if self.watches(trainer):
            self.last_validation.begin(trainer, pl_module, self.watched_part(trainer))

    @override
    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any
    ) -> None:
        self.last_validation.batch_starts(pl_module, batch)

    @override
    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.last_validation.batch_ends()

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.last_validation.end(trainer)

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self.last_validation.batch_ends()
