"""Decisions that all processes of a run share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from lit_compress.errors import LitCompressError

T = TypeVar("T")


def on_rank_zero(trainer: Trainer, decide: Callable[[], T]) -> T:
    """Decide on the first process, and return the decision, or raise the error, on all.

    Args:
        trainer: The run.
        decide: Called on the first process only; its result is broadcast.
    """
    outcome: tuple[T | None, LitCompressError | None] = (None, None)
    if trainer.is_global_zero:
        try:
            outcome = (decide(), None)
        except LitCompressError as error:
            outcome = (None, error)
        except Exception as error:
            trainer.strategy.broadcast(
                (None, LitCompressError(f"the first process failed: {error}"))
            )
            raise
    value, failure = trainer.strategy.broadcast(outcome)
    if failure is not None:
        raise failure
    return value  # type: ignore[return-value]


def rewrap(trainer: Trainer) -> None:
    """Wrap the module for DDP again: the wrapper's buckets have the shapes from its creation."""
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy) and isinstance(strategy.model, DistributedDataParallel):
        strategy.model = strategy.lightning_module
        strategy.configure_ddp()
