"""What a validation logged counts as a measurement only where a measurement would give the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from lit_compress.attributes import replaced_attributes
from lit_compress.callbacks._run.watching import WatchesValidation
from lit_compress.evaluation.last_validation.watch import Logged
from lit_compress.evaluation.metric import measure_metric
from lit_compress.evaluation.run_view.copies import clone

Fit = Callable[..., tuple[Trainer, ForeignModule, dict[str, Logged]]]


class Watcher(WatchesValidation):
    def watches(self, trainer: Trainer) -> bool:
        return True


@pytest.fixture
def fit(make_trainer: Callable[..., Trainer]) -> Fit:
    def run(
        module: ForeignModule | None = None,
        *others: Callback,
        monitor: str = "my_acc",
        val: Any = None,
        **options: Any,
    ) -> tuple[Trainer, ForeignModule, dict[str, Logged]]:
        module, watcher = module or ForeignModule(), Watcher()
        settings = {"max_epochs": 2, "callbacks": [watcher, *others]} | options
        trainer = make_trainer(**settings)
        trainer.fit(module, loader(64), val or loader(40, 1))
        assert not any(part._forward_hooks for part in module.modules())
        return trainer, module, watcher.last_validation.metrics(trainer, module, monitor)

    return run


@pytest.mark.parametrize("monitor", ["my_acc", "my_loss"])
def test_it_is_what_a_measurement_gives(fit: Fit, monitor: str) -> None:
    trainer, module, found = fit(monitor=monitor)
    copy = clone(trainer, module)
    measured = measure_metric(trainer, copy, [loader(40, 1)], monitor, target=copy)
    assert found[""].metric == measured
    assert found["net"].metric == measured  # the forward calls it
    assert measured is not None
    assert (measured.n, measured.confusion is not None) == (40, True)


def test_it_is_that_of_the_last_validation(fit: Fit) -> None:
    trainer, _, found = fit(val_check_interval=0.5, max_epochs=3)
    assert found[""].metric.value == float(trainer.callback_metrics["my_acc"])


class Change(Callback):
    """Changes the module in one of the hooks of a run."""

    def __init__(self, hook: str, change: Callable[[LightningModule], None]) -> None:
        setattr(self, hook, lambda trainer, module, *_: change(module))


def shift(module: Any) -> None:
    module.net[7].bias.data += 0.1


def shift_back(module: Any) -> None:
    module.net[7].bias.data -= 0.1


@pytest.mark.parametrize(
    "hook", ["on_train_end", "on_train_epoch_end", "on_validation_end", "on_validation_batch_end"]
)
def test_weights_that_changed_after_it(fit: Fit, hook: str) -> None:
    assert not fit(None, Change(hook, shift))[2]


@pytest.mark.parametrize("start", ["on_validation_start", "on_validation_batch_start"])
@pytest.mark.parametrize("end", ["on_validation_end", "on_train_end"])
def test_other_weights_in_the_validation(fit: Fit, start: str, end: str) -> None:
    """Averaged weights are put in for the validation, and taken out after it."""
    assert not fit(None, Change(start, shift), Change(end, shift_back), max_epochs=1)[2]


def test_averaged_weights_are_measured_where_they_are_the_last(fit: Fit) -> None:
    """Lightning's callback puts them in for the validation, and for good at the end."""
    trainer, module, found = fit(None, WeightAveraging(use_buffers=True))
    copy = clone(trainer, module)
    measured = measure_metric(trainer, copy, [loader(40, 1)], "my_acc", target=copy)
    assert found[""].metric == measured


class Tempered(ForeignModule):
    temperature = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) / self.temperature


def test_a_number_that_changed_after_it(fit: Fit) -> None:
    def warm(module: Any) -> None:
        module.temperature = 2.0

    assert fit(Tempered())[2]
    assert not fit(Tempered(), Change("on_train_end", warm))[2]


class Replaced(Callback):
    """Has the network compute otherwise in a step, as fake quantisation does."""

    def on_validation_batch_start(self, trainer: Trainer, module: Any, *_: Any) -> None:
        forward = module.net.forward
        self.block = replaced_attributes(module.net, forward=lambda x: -forward(x))
        self.block.__enter__()

    def on_validation_batch_end(self, *_: Any) -> None:
        self.block.__exit__(None, None, None)


def test_a_network_that_did_not_compute_by_itself(fit: Fit) -> None:
    assert not fit(None, Replaced())[2]


@pytest.mark.parametrize(
    "options", [{"limit_val_batches": 2}, {"limit_val_batches": 0.5}, {"overfit_batches": 1}]
)
def test_a_part_of_the_data(fit: Fit, options: dict[str, Any]) -> None:
    assert not fit(**options)[2]


def test_the_check_before_the_training_is_no_validation(fit: Fit) -> None:
    assert not fit(check_val_every_n_epoch=5, num_sanity_val_steps=-1)[2]


class LogsOnce(ForeignModule):
    """Logs one key for the first batch alone, and one for the whole epoch."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        scores = self(batch[0])
        if batch_idx == 0:
            self.log("first", scores.mean())

    def on_validation_epoch_end(self) -> None:
        self.log("epoch", torch.tensor(0.5))


def test_a_key_that_not_each_batch_logged(fit: Fit) -> None:
    assert not fit(LogsOnce(), monitor="first")[2]
    assert fit(LogsOnce(), monitor="epoch")[2][""].metric.value == 0.5
    assert not fit(LogsOnce(), monitor="nothing")[2]


class FailsInValidation(ForeignModule):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])
        if self.global_step:
            raise RuntimeError("broken")


def test_a_step_that_fails_leaves_no_hook(make_trainer: Callable[..., Trainer]) -> None:
    module = FailsInValidation()
    with pytest.raises(RuntimeError, match="broken"):
        make_trainer(callbacks=[Watcher()]).fit(module, loader(32), loader(32, 1))
    assert not any(part._forward_hooks for part in module.modules())


def test_the_inputs_are_those_of_the_validation(fit: Fit, make_trainer: Any) -> None:
    """The data may change though the loader is the same: a random transform, a new label."""
    trainer, module, found = fit()
    copy = clone(trainer, module)
    again = type(found[""].inputs)()
    measure_metric(trainer, copy, [loader(40, 1)], "my_acc", target=copy, inputs=again)
    assert found[""].inputs.equal(again)
    others = type(again)()
    measure_metric(trainer, copy, [loader(40, 2)], "my_acc", target=copy, inputs=others)
    assert not found[""].inputs.equal(others)
