"""Waiting for another process outside of any collective operation.

A process that waits in a collective, such as a barrier, ends the job when the time-out of the
process group is over: after 10 minutes with NCCL. Here a process asks the store of the group from
time to time, which has no time-out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist
from lightning.pytorch import Trainer
from torch.distributed.distributed_c10d import _get_default_store

from lit_compress.errors import ProcessError

#: Seconds after which a process gives up waiting: a day.
PATIENCE = 24 * 3600.0
#: Seconds of waiting after which it is said what for, and again after each doubling.
QUIET = 30.0
#: Longest pause between two questions to the store, in seconds.
PAUSE = 0.5

T = TypeVar("T")

_log = logging.getLogger("lightning.pytorch")


class Board:
    """Notes that the processes of a run leave for each other, in the store of their group.

    Args:
        store: The store.
        rank: Number of this process.
        world: Number of all processes.
        name: Beginning of the keys; notes of another name are others.
        doing: What the first process does meanwhile, for messages: "it converts the network".
    """

    def __init__(self, store: Any, rank: int, world: int, name: str, doing: str) -> None:
        self.store, self.rank, self.world = store, rank, world
        self._name, self._doing = name, doing

    def put(self, key: str, note: bytes) -> None:
        """Leave a note.

        Args:
            key: Its name.
            note: What it says.
        """
        self._asked(lambda: self.store.set(f"{self._name}/{key}", note))

    def has(self, key: str) -> bool:
        """Tell whether a note is there.

        Args:
            key: Its name.
        """
        return bool(self._asked(lambda: self.store.check([f"{self._name}/{key}"])))

    def read(self, key: str) -> bytes:
        """Wait for a note, and return it.

        Args:
            key: Its name.

        Raises:
            ProcessError: If the store does not answer any more, or no note comes for a day.
        """
        self.wait(lambda: self.has(key))
        return bytes(self._asked(lambda: self.store.get(f"{self._name}/{key}")))

    def count(self, key: str, more: int = 1) -> int:
        """Add to a number that all processes share, and return it.

        Args:
            key: Its name; it begins at 0.
            more: What is added; 0 only returns it.
        """
        return int(self._asked(lambda: self.store.add(f"{self._name}/{key}", more)))

    def meet(self, key: str) -> None:
        """Wait until each process has come here.

        Args:
            key: Name of the place.

        Raises:
            ProcessError: If the store does not answer any more, or one does not come for a day.
        """
        self.count(key)
        self.wait(lambda: self.count(key, 0) >= self.world)

    def wait(self, is_over: Callable[[], bool]) -> None:
        """Wait until something is so.

        Args:
            is_over: Tells whether it is so.

        Raises:
            ProcessError: If the store does not answer any more, or it is not so after a day.
        """
        begun, pause, said = time.monotonic(), 0.001, QUIET
        while not is_over():
            waited = time.monotonic() - begun
            if waited > PATIENCE:
                raise ProcessError(
                    f"process {self.rank} has waited {waited / 3600:.0f} hours for the others, and "
                    f"the first one seems to hang ({self._doing}): end the job, and see what it "
                    "did last"
                )
            if waited > said and self.rank == 1:  # one of them is enough
                said *= 2
                _log.info(
                    f"{self.world - 1} processes have waited {waited:.0f} s for the first one: "
                    f"{self._doing}"
                )
            time.sleep(pause)
            pause = min(1.5 * pause, PAUSE)

    def _asked(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except RuntimeError as error:  # torch's DistNetworkError and DistStoreError are such
            raise ProcessError(
                f"process {self.rank} waited for the first process ({self._doing}), and cannot "
                f"reach it any more: it has ended, and its own output says why ({error})"
            ) from error


def has_others(trainer: Trainer) -> bool:
    """Tell whether a run has other processes, and they can be reached.

    Args:
        trainer: The run.
    """
    return dist.is_available() and dist.is_initialized() and trainer.world_size > 1


def board_of_run(name: str, doing: str) -> Board:
    """Return a board for the processes of the run.

    Args:
        name: Beginning of the keys, the same in all processes.
        doing: What the first process does meanwhile, for messages: "it converts the network".
    """
    return Board(_get_default_store(), dist.get_rank(), dist.get_world_size(), name, doing)
