"""The loaders of a run, for use outside its loops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from lit_compress.evaluation.trainer_access import datamodule

#: Hooks of a datamodule that change a batch.
TRANSFER_HOOKS = ("on_before_batch_transfer", "on_after_batch_transfer")


class PreparedLoader:
    """A loader whose batches pass through the transfer hooks of the datamodule."""

    def __init__(self, loader: Any, datamodule: Any) -> None:
        self.loader = loader
        self.datamodule = datamodule

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            for hook in TRANSFER_HOOKS:
                batch = getattr(self.datamodule, hook)(batch, 0)
            yield batch


def training_loaders(trainer: Trainer) -> list[Any]:
    """Return the run's training loaders, each over all data of its split."""
    data = datamodule(trainer)
    return _prepared(
        data, data.train_dataloader() if data is not None else trainer.train_dataloader
    )


def whole(loader: Any) -> Any:
    """Return a loader over all data of another loader, in order.

    A loader with a sampler of the user's own is returned as it is.
    """
    if isinstance(loader, PreparedLoader):
        return PreparedLoader(whole(loader.loader), loader.datamodule)
    plain = type(loader) is DataLoader and type(loader.batch_sampler) is BatchSampler
    if not plain or not isinstance(loader.sampler, (RandomSampler, SequentialSampler)):
        return loader
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
    )


def validation_loaders(trainer: Trainer) -> list[Any]:
    """Return the run's validation loaders, each over all data of its split.

    Under DDP the trainer's own loaders give each process a part of the data; these do not.
    """
    if trainer.limit_val_batches == 0:
        return []
    data = datamodule(trainer)
    return _prepared(data, data.val_dataloader() if data is not None else trainer.val_dataloaders)


def sampled(loader: Any, batches: int, seed: int) -> Any:
    """Return a loader of some random batches, where the data has random access.

    Without it, data that is sorted by class would calibrate to the first class. A loader of
    sequential data, or of no more than the wanted batches, is returned as it is.

    Args:
        loader: Any loader.
        batches: Number of batches.
        seed: Random seed of the choice.
    """
    if isinstance(loader, PreparedLoader):
        return PreparedLoader(sampled(loader.loader, batches, seed), loader.datamodule)
    if not isinstance(loader, DataLoader) or loader.batch_size is None:
        return loader
    if isinstance(loader.dataset, IterableDataset):
        return loader
    total, wanted = len(loader.dataset), batches * loader.batch_size  # type: ignore[arg-type]
    if wanted >= total and isinstance(loader.sampler, SequentialSampler):
        return loader
    drawn = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:wanted]
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        sampler=drawn.tolist(),
        collate_fn=loader.collate_fn,
    )


def _prepared(data: Any, source: Any) -> list[Any]:
    if source is None:
        return []
    loaders = list(source) if isinstance(source, (list, tuple)) else [source]
    loaders = [_undistributed(loader) for loader in loaders]
    if data is not None and any(is_overridden(hook, data) for hook in TRANSFER_HOOKS):
        return [PreparedLoader(loader, data) for loader in loaders]
    return loaders


def _undistributed(loader: Any) -> Any:
    if not isinstance(loader, DataLoader) or not isinstance(loader.sampler, DistributedSampler):
        return loader
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=False,
    )


@contextmanager
def unmoved(loaders: list[Any]) -> Iterator[None]:
    """Restore the generators and iterators of loaders after the block, for the run in progress."""
    inner = [loader.loader if isinstance(loader, PreparedLoader) else loader for loader in loaders]
    parts = [part for loader in inner for part in _parts(loader)]
    generators = [
        g for part in parts if isinstance(g := getattr(part, "generator", None), torch.Generator)
    ]
    states = [generator.get_state() for generator in generators]
    # Persistent workers serve one iterator, which the epoch in progress may already use.
    held = [(loader, loader._iterator) for loader in inner if isinstance(loader, DataLoader)]
    for loader, _ in held:
        loader._iterator = None
    try:
        yield
    finally:
        for loader, iterator in held:
            loader._iterator = iterator
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _parts(loader: Any) -> list[Any]:
    """Return the parts of a loader that may have a generator: itself and its samplers."""
    batches = getattr(loader, "batch_sampler", None)
    return [loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None)]
