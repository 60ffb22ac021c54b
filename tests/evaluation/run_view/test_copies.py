"""Copies of a user's module, and the surroundings that they get."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_compress.evaluation.run_view.copies import clone, clone_with, in_run, quiet


def during(make_trainer: Callable[..., Trainer], module: LightningModule, act: Any) -> None:
    """Call ``act(trainer, module)`` in a fit."""

    class Acts(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            act(trainer, pl_module)

    trainer = make_trainer(callbacks=[Acts()], max_epochs=1, limit_train_batches=1)
    trainer.fit(module, loader(16), loader(16, 1))


def test_a_copy_shares_the_run_and_not_the_weights(make_trainer: Callable[..., Trainer]) -> None:
    module = ForeignModule()

    def act(trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.of_the_run = trainer.callbacks[0]
        copy = clone(trainer, pl_module)
        assert copy.of_the_run is trainer.callbacks[0]
        assert not copy.training
        assert pl_module.training
        with torch.no_grad():
            copy.net[0].weight.zero_()
        assert pl_module.net[0].weight.any()

    during(make_trainer, module, act)


def test_what_cannot_be_copied_is_shared(make_trainer: Callable[..., Trainer]) -> None:
    """A lock, a file or a connection in a module ended the fit."""
    module = ForeignModule()
    module.lock, module.notes = threading.Lock(), ["copied"]

    def act(trainer: Trainer, pl_module: LightningModule) -> None:
        copy = clone(trainer, pl_module)
        assert copy.lock is pl_module.lock
        assert copy.notes == ["copied"]
        assert copy.notes is not pl_module.notes

    during(make_trainer, module, act)


def test_optimizers_are_those_of_the_copied_weights(make_trainer: Callable[..., Trainer]) -> None:
    def act(trainer: Trainer, pl_module: LightningModule) -> None:
        copy, (optimizer,) = clone_with(trainer, pl_module, trainer.optimizers)
        own = {id(parameter) for parameter in copy.parameters()}
        assert {id(p) for group in optimizer.param_groups for p in group["params"]} == own
        assert not own & {id(parameter) for parameter in pl_module.parameters()}

    during(make_trainer, ForeignModule(), act)


def test_a_copy_has_the_precision_of_the_run_in_the_block_alone(
    make_trainer: Callable[..., Trainer],
) -> None:
    module = ForeignModule().double()

    def act(trainer: Trainer, pl_module: LightningModule) -> None:
        copy = clone(trainer, pl_module)
        with in_run(trainer, copy):
            assert {p.dtype for p in copy.parameters()} == {torch.float64}
        assert {p.dtype for p in copy.parameters()} == {torch.float32}

    class Doubles(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            act(trainer, pl_module)

    make_trainer(callbacks=[Doubles()], max_epochs=1, precision="64-true").fit(
        module, loader(16), loader(16, 1)
    )


def test_messages_and_warnings_are_silenced_and_errors_are_not() -> None:
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level

    def fail() -> None:
        with quiet():
            assert logger.getEffectiveLevel() == logging.ERROR
            warnings.warn("silent", stacklevel=1)  # the suite turns warnings into errors
            raise ValueError("kept")

    with pytest.raises(ValueError, match="kept"):
        fail()
    assert logger.level == level
