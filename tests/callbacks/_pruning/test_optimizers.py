"""Optimizers: their state is cut along, or they are refused before the training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import ForeignModule, ManualModule, loader
from lightning.pytorch import Trainer
from torch.optim import Optimizer

from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning, MagnitudePruning
from lit_compress.callbacks._pruning.optimizers import check_optimizers
from lit_compress.errors import InvalidArgumentError

MakeTrainer = Callable[..., Trainer]


class Sam(Optimizer):
    """Sharpness-aware minimization as it is mostly written: it steps by another optimizer."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})
        self.base_optimizer = torch.optim.SGD(self.param_groups, lr=lr, momentum=0.9)
        self.param_groups = self.base_optimizer.param_groups

    def step(self, closure: Any = None) -> Any:
        return self.base_optimizer.step(closure)


class Lookahead(torch.optim.SGD):
    """Keeps slow weights beside its state."""

    def __init__(self, parameters: Any, lr: float) -> None:
        parameters = list(parameters)
        super().__init__(parameters, lr=lr)
        self.slow = [parameter.detach().clone() for parameter in parameters]

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        for slow, fast in zip(self.slow, self.param_groups[0]["params"], strict=True):
            slow.lerp_(fast.detach(), 0.5)
            fast.data.copy_(slow)
        return loss


class Optimized(ForeignModule):
    def __init__(self, kind: Callable[..., Optimizer]) -> None:
        super().__init__()
        self.kind, self.steps = kind, 0

    def on_train_batch_start(self, *_: Any) -> None:
        self.steps += 1

    def configure_optimizers(self) -> Optimizer:
        return self.kind(self.parameters(), lr=0.05)


@pytest.mark.parametrize(
    ("kind", "kept"), [(Sam, "base_optimizer"), (Lookahead, r"copies of the weights \(slow\)")]
)
def test_an_optimizer_that_keeps_more_than_its_state_is_refused(
    kind: Any, kept: str, make_trainer: MakeTrainer
) -> None:
    """It failed in the training, after the first pruning step."""
    module = Optimized(kind)
    with pytest.raises(InvalidArgumentError, match=rf"{kind.__name__}.*{kept}.*shrink to"):
        make_trainer(callbacks=[FilterPruning(0.5)]).fit(module, loader(32), loader(16, 1))
    assert module.steps == 0


@pytest.mark.parametrize("kind", [Sam, Lookahead])
def test_it_runs_where_channels_go_at_the_end(kind: Any, make_trainer: MakeTrainer) -> None:
    for pruning in (FilterPruning(0.5, shrink="end"), MagnitudePruning(0.5)):
        make_trainer(callbacks=[pruning]).fit(Optimized(kind), loader(32), loader(16, 1))
        assert pruning.reached == 0.5


def test_optimizer_with_one_state_for_all_is_named() -> None:
    parameters = [torch.nn.Parameter(torch.ones(2))]
    check_optimizers("FilterPruning", [torch.optim.SGD(parameters, lr=0.1)])
    with pytest.raises(InvalidArgumentError, match=r'LBFGS.*shrink to "end"'):
        check_optimizers("FilterPruning", [torch.optim.LBFGS(parameters)])
    check_optimizers("FilterPruning", [torch.optim.LBFGS(parameters)], stepped=False)


class Own(ManualModule):
    """Steps an optimizer that it made itself, which the trainer does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.mine = torch.optim.Adam(self.parameters(), 0.01)

    def optimizers(self, use_pl_optimizer: bool = True) -> Any:
        return [self.mine]

    def configure_optimizers(self) -> None:
        return None


@pytest.mark.filterwarnings("ignore:.*configure_optimizers.*returned `None`")
def test_an_optimizer_that_the_trainer_does_not_know_is_cut_along(
    make_trainer: MakeTrainer,
) -> None:
    """Its momentum had the old shapes, and its next step failed."""
    module = Own()
    pruning = FilterPruning(0.5, schedule=Schedule(1, 1))
    make_trainer(callbacks=[pruning]).fit(module, loader(32), loader(16, 1))
    assert module.mine.state[module.net[3].weight]["exp_avg"].shape == (6, 4, 3, 3)
