"""A team whose processes are one: what is asked runs here, once for each other process."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Trainer

from lit_compress.evaluation.ranks.shares import Share
from lit_compress.evaluation.ranks.team import Team, answer, working


class OneProcess(Team):
    """Sends pickled requests and answers to itself.

    Attributes:
        requests: How many bytes were sent to each of the others.
    """

    def __init__(self, trainer: Trainer, world: int) -> None:
        self.trainer, self.world = trainer, world
        self.requests: list[int] = []

    @contextmanager
    def asked(self, work: Any, given: Any) -> Iterator[Any]:
        try:
            content = pickle.dumps((work, given))
        except Exception:
            yield None
            return
        self.requests.append(len(content))

        def collect(own: Any) -> list[Any]:
            places = (Share(rank, self.world) for rank in range(1, self.world))
            found = [pickle.dumps(own), *(answer(self.trainer, at, content) for at in places)]
            return [pickle.loads(one) for one in found]  # noqa: S301

        yield collect

    def end(self) -> None:
        pass


@contextmanager
def as_one(trainer: Trainer, world: int) -> Iterator[OneProcess]:
    """Let a run have other processes until the end of the block."""
    team = OneProcess(trainer, world)
    with working(team):
        yield team
