"""Decisions that all processes of a run share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from lit_compress.errors import LitCompressError, ProcessError
from lit_compress.evaluation.ranks.team import team_for, working, working_team

T = TypeVar("T")


def on_rank_zero(
    trainer: Trainer, decide: Callable[[], T], doing: str = "it takes a decision"
) -> T:
    """Decide on the first process, and return the decision, or raise the error, on all.

    The other processes wait outside of any collective operation, so it may take longer than the
    time-out of the process group. Meanwhile they do what the first process asks them for, see
    :mod:`~lit_compress.evaluation.ranks`.

    Args:
        trainer: The run.
        decide: Called on the first process only; its result is broadcast.
        doing: What the first process does, for messages: "it converts the network".

    Raises:
        LitCompressError: What ``decide`` raised, in each process.
        ProcessError: In the other processes, if ``decide`` raised any other error.
    """
    if working_team(trainer) is not None:
        return decide()  # a part of what the first process does already
    team = team_for(trainer, doing)
    outcome: tuple[T | None, LitCompressError | None] = (None, None)
    raised: BaseException | None = None
    if trainer.is_global_zero:
        try:
            with working(team):
                outcome = (decide(), None)
        except LitCompressError as error:
            outcome = (None, error)
        except BaseException as error:  # raised again, when the others know of it
            raised, why = error, f"{type(error).__name__}: {error}"
            outcome = (None, ProcessError(f"the first process failed ({doing}): {why}"))
    elif team is not None:
        team.serve()
    value, failure = trainer.strategy.broadcast(outcome)
    if raised is not None:
        raise raised
    if failure is not None:
        raise failure
    return value  # type: ignore[return-value]


def rewrap(trainer: Trainer) -> None:
    """Wrap the module for DDP again: the wrapper's buckets have the shapes from its creation."""
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy) and isinstance(strategy.model, DistributedDataParallel):
        strategy.model = strategy.lightning_module
        strategy.configure_ddp()
