"""Work in many parts, of which each process takes the next one when it is free."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import count

from lightning.pytorch import Trainer

from lit_compress.errors import ProcessError
from lit_compress.evaluation.ranks.board import Board, board_of_run, has_others

#: Numbers of the queues so far: all processes begin them in the same order.
_NUMBERS = count()


def share_out(
    trainer: Trainer,
    parts: int,
    work: Callable[[int], bytes],
    take: Callable[[int, bytes], None],
    doing: str,
) -> None:
    """Do each part in one of the processes, and give its result to all.

    All processes of a run must call it. A process whose part fails ends all.

    Args:
        trainer: The run.
        parts: Number of parts.
        work: Does a part, and returns its result.
        take: Called in each process once for each part, with its number and result; in the first
            process soon after the part is done, in the others at the end.
        doing: What is done, for messages: "it tries layers".

    Raises:
        ProcessError: If another process failed.
    """
    if not has_others(trainer):
        for part in range(parts):
            take(part, work(part))
        return
    queue = _Queue(board_of_run(f"lit_compress/queue {next(_NUMBERS)}", doing), parts, take)
    try:
        while (number := queue.next()) is not None:
            queue.done(number, work(number))
        queue.finish()
    except BaseException as error:  # raised again, when the others know of it
        queue.fail(error)
        raise


def is_same(trainer: Trainer, value: str) -> bool:
    """Tell whether a value is the same in all processes of a run.

    All processes must call it.

    Args:
        trainer: The run.
        value: The value of this process.
    """
    if not has_others(trainer):
        return True
    board = board_of_run(f"lit_compress/value {next(_NUMBERS)}", "it compares values")
    key = hashlib.sha256(value.encode()).hexdigest()
    board.count(key)
    board.meet("all")
    return board.count(key, 0) == board.world


class _Queue:
    """The parts of a work, on a board."""

    def __init__(self, board: Board, parts: int, take: Callable[[int, bytes], None]) -> None:
        self._board, self._parts, self._take = board, parts, take
        self._left = list(range(parts))

    def next(self) -> int | None:
        """Return the number of the next part; None if all are taken."""
        number = self._board.count("next") - 1
        return number if number < self._parts else None

    def done(self, number: int, result: bytes) -> None:
        """Give the result of a part to all."""
        self._board.put(f"part {number}", result)
        if self._board.rank == 0:
            begun = self._board.count("next", 0)
            for one in [part for part in self._left if part < begun]:
                if self._board.has(f"part {one}"):
                    self._taken(one)

    def finish(self) -> None:
        """Take the results of the other processes, when they come."""
        for number in list(self._left):
            self._board.wait(lambda: self._is_over(f"part {number}"))  # noqa: B023 - called now
            self._taken(number)

    def fail(self, error: BaseException) -> None:
        """Tell the others of an error, unless one has told of another."""
        if not isinstance(error, ProcessError):
            why = f"process {self._board.rank} failed: {type(error).__name__}: {error}"
            self._board.put("failed", why.encode())

    def _taken(self, number: int) -> None:
        self._left.remove(number)
        self._take(number, self._board.read(f"part {number}"))

    def _is_over(self, key: str) -> bool:
        if self._board.has("failed"):
            raise ProcessError(self._board.read("failed").decode())
        return self._board.has(key)
