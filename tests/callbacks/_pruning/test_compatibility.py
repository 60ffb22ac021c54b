"""What cannot run beside the removal of channels is refused by name, at the start."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelPruning

from lit_compress.callbacks import FilterPruning
from lit_compress.callbacks._pruning.compatibility import check_optimizers
from lit_compress.errors import InvalidArgumentError


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (ModelPruning("l1_unstructured", amount=0.3), "beside ModelPruning"),
        (EarlyStopping("pruned/my_acc"), "let it watch my_acc"),
    ],
)
def test_callback_that_stands_in_the_way_is_named(
    other: Callback, message: str, foreign: ForeignModule, make_trainer: Callable[..., Trainer]
) -> None:
    """ModelPruning ended in a KeyError; EarlyStopping ended the run after its first epoch."""
    trainer = make_trainer(callbacks=[FilterPruning(0.5, monitor="my_acc"), other])
    with pytest.raises(InvalidArgumentError, match=message):
        trainer.fit(foreign, loader(), loader(32, 1))


def test_early_stopping_on_the_metric_itself_runs(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer]
) -> None:
    pruner = FilterPruning(0.5, monitor="my_acc")
    trainer = make_trainer(callbacks=[pruner, EarlyStopping("my_acc", mode="max", patience=5)])
    trainer.fit(foreign, loader(), loader(32, 1))
    assert pruner.reached == 0.5


def test_optimizer_with_one_state_for_all_is_named() -> None:
    parameters = [torch.nn.Parameter(torch.ones(2))]
    check_optimizers("FilterPruning", [torch.optim.SGD(parameters, lr=0.1)])
    with pytest.raises(InvalidArgumentError, match=r'LBFGS.*shrink to "end"'):
        check_optimizers("FilterPruning", [torch.optim.LBFGS(parameters)])
