"""Equal parts of what the first process does, shared with those that wait for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from lit_compress.evaluation.ranks.shares import Share
from lit_compress.evaluation.ranks.team import Failed, working_team

T = TypeVar("T")
#: A function of a module: takes the run, the numbers of the parts to do, and what it is given, and
#: returns the result of each part.
Work = Callable[[Trainer, Sequence[int], Any], list[Any]]


def in_parts(
    trainer: Trainer,
    count: int,
    work: Callable[[Trainer, Sequence[int], Any], list[T]],
    given: Any,
) -> list[T]:
    """Do all parts of a work: each in one of the processes, if others wait for this one.

    Args:
        trainer: The run.
        count: Number of parts, which should take about as long as each other.
        work: A function of a module, which the other processes can call. A result must not depend
            on the process, nor on the parts that were done before.
        given: What it needs, which is sent to them.

    Returns:
        The result of each part, in order.
    """
    team = working_team(trainer)
    if team is None or count < team.world:
        return work(trainer, range(count), given)
    shares = [Share(rank, team.world).numbers(count) for rank in range(team.world)]
    with team.asked(_part, (work, count, given)) as collect:
        if collect is None:
            return work(trainer, range(count), given)
        answers = collect(work(trainer, shares[0], given))
    found: dict[int, T] = {}
    for rank, (numbers, answer) in enumerate(zip(shares, answers, strict=True)):
        results = answer
        if isinstance(answer, Failed):  # this process raises the error, or does better
            rank_zero_info(f"process {rank} failed in its part ({answer.why}): it is done again")
            results = work(trainer, numbers, given)
        found |= dict(zip(numbers, results, strict=True))
    return [found[number] for number in range(count)]


def _part(trainer: Trainer, share: Share, sent: tuple[Work, int, Any]) -> list[Any]:
    """Do the parts of this process, one of those that wait for the first."""
    work, count, given = sent
    return work(trainer, share.numbers(count), given)
