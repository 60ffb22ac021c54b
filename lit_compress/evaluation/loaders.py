"""The run's data, to be looked at aside from the run."""

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

TRANSFER_HOOKS = ("on_before_batch_transfer", "on_after_batch_transfer")


class PreparedLoader:
    """A loader whose batches went through the datamodule's own transfer hooks."""

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
    """Return the run's training loaders, each over all the data of its split."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    return _prepared(
        data, data.train_dataloader() if data is not None else trainer.train_dataloader
    )


def whole(loader: Any) -> Any:
    """Return a loader over all the data of another, in order and with no image left out.

    One whose sampler chooses the data itself stays as it is.
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
    """Return the run's validation loaders, each over all the data of its split.

    Under DDP the trainer's loaders see one process's share; these do not.
    """
    if trainer.limit_val_batches == 0:
        return []
    data = trainer.datamodule  # type: ignore[attr-defined]
    return _prepared(data, data.val_dataloader() if data is not None else trainer.val_dataloaders)


def sampled(loader: Any, batches: int, seed: int) -> Any:
    """Return a loader of some batches drawn at random, where the data can be drawn from.

    Data in the order of its classes would calibrate to one of them. Data that only comes in its
    own order, or is no more than that, comes as it is.

    Args:
        loader: Any loader.
        batches: How many to draw.
        seed: Of the draw.
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
    """Leave loaders and their generators where they are: the run's data must stay as they were."""
    inner = [loader.loader if isinstance(loader, PreparedLoader) else loader for loader in loaders]
    parts = [part for loader in inner for part in _parts(loader)]
    generators = [
        g for part in parts if isinstance(g := getattr(part, "generator", None), torch.Generator)
    ]
    states = [generator.get_state() for generator in generators]
    # Persistent workers serve one iterator, which the epoch in progress may hold already.
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
    """Return what may hold a generator: a loader and its samplers."""
    batches = getattr(loader, "batch_sampler", None)
    return [loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None)]
