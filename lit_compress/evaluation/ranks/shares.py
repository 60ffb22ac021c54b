"""Every n-th batch of a loader, so that all processes together read each batch once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler


@dataclass(frozen=True)
class Share:
    """Which batches a process takes: ``rank``, ``rank + world``, and so on.

    Attributes:
        rank: Number of the process.
        world: Number of all processes.
    """

    rank: int
    world: int

    def numbers(self, count: int) -> range:
        """Return the numbers of the own batches.

        Args:
            count: Number of all batches.

        Example:
            >>> list(Share(1, 2).numbers(5))
            [1, 3]
        """
        return range(self.rank, count, self.world)


class EveryNth:
    """The indices of the own batches, as a sampler of batches gives them.

    Args:
        batches: A sampler of batches, or of examples for a loader that makes no batches.
        share: Which of them are taken.
        count: Number of those that are read by all processes together.
    """

    def __init__(self, batches: Any, share: Share, count: int) -> None:
        self.batches, self.numbers = batches, share.numbers(count)

    def __iter__(self) -> Iterator[Any]:
        own = self.numbers
        return islice(iter(self.batches), own.start, own.stop, own.step)

    def __len__(self) -> int:
        return len(self.numbers)


def why_whole(loader: Any) -> str | None:
    """Return why the batches of a loader cannot be shared; None if they can.

    Args:
        loader: Any loader.
    """
    if type(loader) is not DataLoader:
        return "its loader is not a plain DataLoader"
    if isinstance(loader.dataset, IterableDataset):
        return "its data are a stream"
    if type(loader.batch_sampler) not in (BatchSampler, type(None)):
        return "its loader has a batch_sampler of its own"
    if type(loader.sampler) is not SequentialSampler:
        return "its loader does not read the data in order"
    return None


def share_of(loader: Any, share: Share, count: int) -> Any:
    """Return a loader of the own batches of another one, each as the other gives it.

    Args:
        loader: A loader that can be shared.
        share: Which batches are taken.
        count: Number of batches that all processes read together.
    """
    whole = loader.batch_sampler
    own = EveryNth(loader.sampler if whole is None else whole, share, count)
    sampling = {"batch_size": None, "sampler": own} if whole is None else {"batch_sampler": own}
    return DataLoader(
        loader.dataset,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        **sampling,
    )
