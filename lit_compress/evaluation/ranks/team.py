"""The first process of a run works, and the others wait for what it asks them to do."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from lit_compress.evaluation.ranks.board import Board, board_of_run, has_others
from lit_compress.evaluation.ranks.shares import Share

T = TypeVar("T")

#: Notes of the first process to the others.
HELP, DONE = b"help", b"done"
#: Numbers of the works so far: all processes begin them in the same order.
_NUMBERS = count()


@dataclass(frozen=True)
class Failed:
    """What a process returns in place of a result.

    Attributes:
        why: The error, in words.
    """

    why: str


#: Called with the own result of the first process, once; returns the result of each process.
Collect = Callable[[Any], list[Any]]
#: What other processes do: a function of the run, the place of the process, and anything.
Work = Callable[[Trainer, Share, Any], Any]


class Team:
    """The processes of a run, while the first one works.

    What is asked and returned goes pickled from process to process of one job, as torch sends
    objects; nothing of it is read from a file.

    Args:
        trainer: The run.
        board: Where the first process leaves its notes.
    """

    def __init__(self, trainer: Trainer, board: Board) -> None:
        self.trainer, self.world = trainer, board.world
        self._board, self._said, self._asked = board, 0, 0

    @contextmanager
    def asked(self, work: Work, given: Any) -> Iterator[Collect | None]:
        """Let the other processes work while the first one does its own part in the block.

        Args:
            work: A function of a module, called in each other process with its Trainer, its place
                among the processes, and what is given.
            given: The third argument.

        Returns:
            A context manager. Its function takes the own result, and returns those of all, in the
            order of the processes; one that failed returns :class:`Failed`. It is None if the
            request cannot be sent, since it holds something that pickle does not know.
        """
        try:
            content = pickle.dumps((work, given))
        except Exception:  # any object may refuse, with any error
            yield None
            return
        self._say(HELP)
        self.trainer.strategy.broadcast(content)
        collected = False

        def collect(own: Any) -> list[Any]:
            nonlocal collected
            collected = True
            return self._gather(pickle.dumps(own))

        try:
            yield collect
        finally:
            if not collected:  # the others come to this point, and wait there
                self._gather(pickle.dumps(Failed("an error")))

    def serve(self) -> None:
        """Do what the first process asks for, until its work is done."""
        while self._heard() == HELP:
            content: Any = self.trainer.strategy.broadcast(None)
            self._gather(answer(self.trainer, Share(self._board.rank, self.world), content))

    def end(self) -> None:
        """Let the other processes go on."""
        self._say(DONE)

    def _say(self, note: bytes) -> None:
        self._board.put(f"note {self._said}", note)
        self._said += 1

    def _heard(self) -> bytes:
        self._said += 1
        return self._board.read(f"note {self._said - 1}")

    def _gather(self, own: bytes) -> list[Any]:
        """Return the results of all processes in the first one; nothing in the others."""
        self._board.meet(f"answers {self._asked}")  # parts may take longer than the time-out
        self._asked += 1
        found: list[Any] | None = [None] * self.world if self._board.rank == 0 else None
        dist.gather_object(own, found)
        return [pickle.loads(one) for one in found or ()]  # noqa: S301 - of this job


_WORKING: ContextVar[Team | None] = ContextVar("_WORKING", default=None)


def team_for(trainer: Trainer, doing: str) -> Team | None:
    """Return a team for the next work of the first process; None if a run has one process.

    Each process must call it, in the same order.

    Args:
        trainer: The run.
        doing: What the first process does, for messages.
    """
    if not has_others(trainer):
        return None
    return Team(trainer, board_of_run(f"lit_compress/{next(_NUMBERS)}", doing))


def working_team(trainer: Trainer) -> Team | None:
    """Return the team whose first process works now, in that process; None otherwise.

    Args:
        trainer: The run.
    """
    team = _WORKING.get()
    return team if team is not None and team.trainer is trainer else None


@contextmanager
def working(team: Team | None) -> Iterator[None]:
    """Make a team the one whose first process works, until the end of the block.

    Args:
        team: The team; None if there are no other processes.
    """
    token = _WORKING.set(team)
    try:
        yield
    finally:
        _WORKING.reset(token)
        if team is not None:
            team.end()


def answer(trainer: Trainer, place: Share, content: bytes) -> bytes:
    """Return what a function that was sent returns, or how it failed, as it is sent back.

    Args:
        trainer: The run.
        place: The place of this process.
        content: The function and what it is given, pickled.
    """
    with isolate_rng():  # the training goes on as if nothing had been asked
        try:
            work, given = pickle.loads(content)  # noqa: S301 - of the first process of this job
            return pickle.dumps(work(trainer, place, given))
        except Exception as error:  # the first process decides what it means
            return pickle.dumps(Failed(f"{type(error).__name__}: {error}"))
