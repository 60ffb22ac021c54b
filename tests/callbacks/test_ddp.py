"""What several processes agree on; two real ones run in test_killed_runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lit_compress.callbacks.ddp import on_rank_zero, rewrap
from lit_compress.errors import CheckpointError, LitCompressError


class Strategy:
    """Stands in for one process of several: what rank zero sends is what it is given."""

    def __init__(self, sent: Any = None) -> None:
        self.sent = sent

    def broadcast(self, value: Any) -> Any:
        if self.sent is None:
            self.sent = value
        return self.sent


class Process:
    def __init__(self, strategy: Any, rank: int = 0) -> None:
        self.strategy = strategy
        self.is_global_zero = rank == 0


def never() -> int:
    raise AssertionError("only the first process decides")


def test_one_process_decides_for_itself() -> None:
    assert on_rank_zero(Trainer(accelerator="cpu", logger=False), lambda: 3) == 3


def test_every_process_has_what_the_first_decided() -> None:
    first = Strategy()
    assert on_rank_zero(Process(first), lambda: [1, 2]) == [1, 2]
    assert on_rank_zero(Process(Strategy(first.sent), rank=1), never) == [1, 2]


def test_every_process_raises_what_the_first_does() -> None:
    def decide() -> int:
        raise CheckpointError("the weights are gone")

    first = Strategy()
    with pytest.raises(CheckpointError, match="the weights are gone"):
        on_rank_zero(Process(first), decide)
    with pytest.raises(LitCompressError, match="the weights are gone"):
        on_rank_zero(Process(Strategy(first.sent), rank=1), never)


def test_nothing_can_be_decided_too() -> None:
    first = Strategy()
    assert on_rank_zero(Process(first), lambda: None) is None
    assert on_rank_zero(Process(Strategy(first.sent), rank=1), never) is None


def test_one_process_has_nothing_to_wrap() -> None:
    trainer = Trainer(accelerator="cpu", logger=False)
    before = trainer.strategy.model
    rewrap(trainer)
    assert trainer.strategy.model is before


def test_the_module_is_wrapped_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    module, wrapped = nn.Linear(2, 2), []
    strategy = DDPStrategy(parallel_devices=[torch.device("cpu")])
    strategy._lightning_module = module  # type: ignore[assignment]
    strategy.model = DistributedDataParallel.__new__(DistributedDataParallel)
    monkeypatch.setattr(strategy, "configure_ddp", lambda: wrapped.append(strategy.model))
    rewrap(Process(strategy))
    assert wrapped == [module]
    rewrap(Process(strategy))  # not wrapped: before the fit, or after it
    assert wrapped == [module]
