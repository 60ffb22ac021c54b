"""What a network loses, against differences worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_compress.callbacks._blocks.worth import MetricWorth, OutputWorth
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.run_view.copies import clone

MakeTrainer = Callable[..., Trainer]


class Asking(Callback):
    def __init__(self, ask: Callable[[Trainer, LightningModule], None]) -> None:
        self.ask, self.asked = ask, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ask(trainer, clone(trainer, pl_module))
        self.asked += 1


def ask(make_trainer: MakeTrainer, what: Callable[[Trainer, LightningModule], None]) -> None:
    """Call a function at the start of a fit, with a copy of the module."""
    callback = Asking(what)
    make_trainer(callbacks=[callback], max_epochs=1).fit(ForeignModule(), loader(), loader(32, 1))
    assert callback.asked == 1


def head(copy: LightningModule) -> torch.nn.Linear:
    layer = copy.get_submodule("net.7")
    assert isinstance(layer, torch.nn.Linear)
    return layer


def test_the_error_of_outputs_is_relative(make_trainer: MakeTrainer) -> None:
    def check(trainer: Trainer, copy: LightningModule) -> None:
        worth = OutputWorth(trainer, copy, "", batches=2)
        assert worth.loss() == 0
        with torch.no_grad():
            for parameter in head(copy).parameters():
                parameter.mul_(1.5)  # each output is half as much more
        assert worth.loss() == pytest.approx(0.25)
        head(copy).bias.data[:] = float("nan")
        assert worth.loss() == float("inf")

    ask(make_trainer, check)


def test_a_metric_counts_from_what_it_was(make_trainer: MakeTrainer) -> None:
    def check(trainer: Trainer, copy: LightningModule) -> None:
        loss = MetricWorth(trainer, copy, "my_loss", rises=False, batches=2)
        wrong = MetricWorth(trainer, copy, "my_loss", rises=True, batches=2)
        assert loss.loss() == wrong.loss() == 0
        head(copy).bias.data[0] += 100  # one class only
        assert loss.loss() > 10
        assert wrong.loss() == -loss.loss()  # it became better
        with pytest.raises(InvalidArgumentError, match="is not logged"):
            MetricWorth(trainer, copy, "other", rises=True, batches=1)

    ask(make_trainer, check)


def test_a_network_that_no_step_calls_is_refused(make_trainer: MakeTrainer) -> None:
    def check(trainer: Trainer, copy: LightningModule) -> None:
        copy.add_module("unused", torch.nn.Linear(2, 2))
        trainer.lightning_module.add_module("unused", torch.nn.Linear(2, 2))
        with pytest.raises(InvalidArgumentError, match="no step calls unused"):
            OutputWorth(trainer, copy, "unused", batches=1)

    ask(make_trainer, check)
