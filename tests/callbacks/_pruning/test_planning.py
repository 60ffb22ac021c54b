"""What is planned, checked and tried before the training."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Trainer

from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning
from lit_compress.callbacks._pruning import planning
from lit_compress.errors import InvalidArgumentError, PlanError

MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of steps trained when a removal was tried."""
    counts: list[int] = []
    tried = planning.verify

    def verify(module: Any, *arguments: Any) -> None:
        counts.append(module.trainer.global_step)
        tried(module, *arguments)

    monkeypatch.setattr(planning, "verify", verify)
    return counts


def test_the_removal_is_tried_before_the_training_and_at_each_step(
    foreign: ForeignModule,
    make_trainer: MakeTrainer,
    trials: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    pruning = FilterPruning(0.5, schedule=Schedule(1, 2))
    with caplog.at_level(logging.INFO):
        make_trainer(max_epochs=4, callbacks=[pruning]).fit(foreign, loader(32), loader(16, 1))
    assert trials == [0, 2, 4]
    assert any("a pruning step takes about 0." in m for m in caplog.messages)
    assert any(m.endswith("s; steps: 2") for m in caplog.messages)


def test_a_target_out_of_reach_is_said_before_a_removal_is_tried(
    foreign: ForeignModule, make_trainer: MakeTrainer, trials: list[int]
) -> None:
    pruning = FilterPruning(0.99, of="parameters")
    with pytest.raises(InvalidArgumentError, match=r"target 0\.99 of parameters cannot be reached"):
        make_trainer(max_epochs=4, callbacks=[pruning]).fit(foreign, loader(32), loader(16, 1))
    assert trials == []


def test_a_removal_that_changes_the_outputs_ends_the_fit_before_its_first_step(
    foreign: ForeignModule, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise PlanError("outputs differ")

    monkeypatch.setattr(planning, "verify", fail)
    before = {name: value.clone() for name, value in foreign.state_dict().items()}
    trainer = make_trainer(max_epochs=4, callbacks=[FilterPruning(0.5, schedule=Schedule(2, 2))])
    with pytest.raises(PlanError, match="outputs differ"):
        trainer.fit(foreign, loader(32), loader(16, 1))
    assert trainer.global_step == 0
    assert all(torch.equal(value, before[name]) for name, value in foreign.state_dict().items())
