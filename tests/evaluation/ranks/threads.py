"""Processes of a run as threads, with one store and one slot for what is gathered."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import torch.distributed as dist

from lit_compress.evaluation.ranks.board import Board


class Threads:
    """A run of several processes, each of which is a thread.

    Args:
        world: Number of processes.
    """

    def __init__(self, world: int) -> None:
        self.world, self.store = world, dist.HashStore()
        self._slots: list[Any] = [None] * world
        self._barrier = threading.Barrier(world)
        self._local = threading.local()

    def board(self, name: str, doing: str = "it works") -> Board:
        """Return the board of the thread that asks."""
        return Board(self.store, self._local.rank, self.world, name, doing)

    def broadcast(self, value: Any) -> Any:
        """Return the value of the first process, in each of them."""
        if self._local.rank == 0:
            self._slots[0] = pickle.dumps(value)
        self._barrier.wait(20)
        found = pickle.loads(self._slots[0])  # noqa: S301
        self._barrier.wait(20)
        return found

    def gather(self, value: Any, found: list[Any] | None) -> None:
        """Take the place of ``gather_object``."""
        self._slots[self._local.rank] = value
        self._barrier.wait(20)
        if found is not None:
            found[:] = self._slots
        self._barrier.wait(20)

    def run(self, work: Callable[[Any], Any]) -> list[Any]:
        """Return what a function returns in each process, or the error that it raises.

        Args:
            work: Called with a Trainer.
        """

        def in_thread(rank: int) -> Any:
            self._local.rank = rank
            strategy = SimpleNamespace(broadcast=self.broadcast)
            trainer = SimpleNamespace(
                is_global_zero=rank == 0, strategy=strategy, world_size=self.world, rank=rank
            )
            try:
                return work(trainer)
            except Exception as error:
                return error

        with ThreadPoolExecutor(self.world) as pool:
            return list(pool.map(in_thread, range(self.world)))
