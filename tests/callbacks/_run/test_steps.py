"""Functions of several callbacks around one step, and copies that are not touched by them."""

from __future__ import annotations

from typing import Any

import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_compress.callbacks._run.steps import run_around, run_plainly
from lit_compress.evaluation.loaders import training_loaders
from lit_compress.evaluation.run_view.copies import clone_with
from lit_compress.evaluation.run_view.training import train


class Around(Callback):
    def __init__(self, name: str, seen: list[str], outermost: bool = False) -> None:
        self.name, self.seen, self.outermost = name, seen, outermost

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def around(step: Any, *args: Any) -> Any:
            self.seen.append(f"{self.name} in")
            result = step(*args)
            self.seen.append(f"{self.name} out")
            return result

        run_around(trainer, self, around, outermost=self.outermost)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        run_plainly(trainer, self)


def test_functions_are_nested_and_taken_away(foreign: ForeignModule, make_trainer: Any) -> None:
    seen: list[str] = []
    trainer = make_trainer(
        callbacks=[Around("inner", seen), Around("outer", seen, outermost=True)], max_epochs=1
    )
    trainer.fit(foreign, loader(32))
    assert seen == ["outer in", "inner in", "inner out", "outer out"]
    assert "training_step" not in vars(trainer.strategy)


class Aside(Callback):
    """Trains a copy of the module while the run's steps have something around them."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seen: list[str] = []
        Around("own", seen).on_train_start(trainer, pl_module)
        copy, optimizers = clone_with(trainer, pl_module, trainer.optimizers)
        before = [weight.clone() for weight in pl_module.parameters()]
        train(trainer, copy, optimizers, training_loaders(trainer), 2)
        assert not seen
        assert all(map(torch.equal, before, pl_module.parameters()))
        assert not all(map(torch.equal, before, copy.parameters()))
        vars(trainer.strategy).pop("training_step")


def test_a_copy_is_trained_without_them(foreign: ForeignModule, make_trainer: Any) -> None:
    """The function around the run's step called the user's module in the place of the copy."""
    make_trainer(callbacks=[Aside()], max_epochs=1).fit(foreign, loader(32))
