"""The loaders of a run, for use outside its loops."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.utilities.data import sized_len
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)

from lit_compress.evaluation.trainer_access import datamodule, fit_loader, validation_loader


class Joined:
    """One loader of the batches of several, as a CombinedLoader joins them.

    Args:
        loaders: A collection of loaders; a batch is the same collection of batches.
        mode: How loaders of different lengths are joined, see Lightning's CombinedLoader.
    """

    def __init__(self, loaders: Any, mode: Any) -> None:
        self.combined = CombinedLoader(loaders, mode)

    def __len__(self) -> int:
        iter(self.combined)
        return len(self.combined)

    def __iter__(self) -> Iterator[Any]:
        for batch, _, _ in self.combined:
            yield batch

    def mapped(self, change: Callable[[Any], Any]) -> Joined:
        """Return the same with each of the loaders changed."""
        found = CombinedLoader(self.combined.iterables, self.combined._mode)
        found.flattened = [change(loader) for loader in self.combined.flattened]
        return Joined(found.iterables, found._mode)


def training_loaders(trainer: Trainer) -> list[Any]:
    """Return the run's training loader over all data of its split; nothing if it has none.

    Several loaders are one, whose batch is a collection, as the training loop joins them.
    """
    data = datamodule(trainer)
    source: Any = fit_loader(trainer)
    if offers(data, "train_dataloader"):
        source = data.train_dataloader()  # type: ignore[union-attr]
    if source is None:
        return []
    return [_aside(_joined(source, "max_size_cycle"))]


def validation_loaders(trainer: Trainer) -> list[Any]:
    """Return the run's validation loaders, each over all data of its split.

    Under DDP the trainer's own loaders give each process a part of the data; these do not. The
    list is empty if the run does not validate.
    """
    module = trainer.lightning_module
    if trainer.limit_val_batches == 0:
        return []
    if module is not None and not is_overridden("validation_step", module):
        return []
    data = datamodule(trainer)
    source: Any = validation_loader(trainer)
    if offers(data, "val_dataloader"):
        source = data.val_dataloader()  # type: ignore[union-attr]
    if source is None:
        return []
    if isinstance(source, CombinedLoader) and source._mode != "sequential":
        return [_aside(_joined(source, source._mode))]
    flat = source if isinstance(source, CombinedLoader) else CombinedLoader(source, "sequential")
    return [_aside(loader) for loader in flat.flattened]


def data_set(loader: Any) -> Any:
    """Return the data set of a loader, and of a part of a data set the whole; None if unknown."""
    found = getattr(getattr(loader, "loader", loader), "dataset", None)
    while isinstance(found, Subset):
        found = found.dataset
    return found


def offers(data: LightningDataModule | None, hook: str) -> bool:
    """Tell whether a datamodule has a hook of its own that gives loaders."""
    return data is not None and is_overridden(hook, data)


def length(loader: Any) -> int | float:
    """Return the number of batches of a loader; infinity if it does not say."""
    found = sized_len(loader)
    return float("inf") if found is None else found


def whole(loader: Any) -> Any:
    """Return a loader over all data of another loader, in order.

    A loader with a sampler of the user's own is returned as it is.
    """
    if isinstance(loader, Joined):
        return loader.mapped(whole)
    plain = type(loader) is DataLoader and type(loader.batch_sampler) is BatchSampler
    if not plain or not isinstance(loader.sampler, (RandomSampler, SequentialSampler)):
        return loader
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
    )


def sampled(loader: Any, batches: int, seed: int) -> Any:
    """Return a loader of some random batches, where the data has random access.

    Without it, data that is sorted by class would calibrate to the first class. A loader of
    sequential data, or of no more than the wanted batches, is returned as it is.

    Args:
        loader: Any loader.
        batches: Number of batches.
        seed: Random seed of the choice.
    """
    if isinstance(loader, Joined):
        return loader.mapped(lambda one: sampled(one, batches, seed))
    if not isinstance(loader, DataLoader) or loader.batch_size is None:
        return loader
    if isinstance(loader.dataset, IterableDataset) or not isinstance(loader.dataset, Sized):
        return loader
    total, wanted = len(loader.dataset), batches * loader.batch_size
    if wanted >= total and isinstance(loader.sampler, SequentialSampler):
        return loader
    drawn = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:wanted]
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        sampler=drawn.tolist(),
        collate_fn=loader.collate_fn,
    )


def copied(loader: Any) -> Any:
    """Return a loader that a batch can be taken from without a loss to the run.

    Loaders with random access, and those that begin anew with each ``iter``, are returned as they
    are. A stream, and a loader of the user's own that can resume, is copied with its place in the
    data.

    Args:
        loader: Any loader.

    Returns:
        The loader, or None if it can be read once only and cannot be copied.
    """
    if isinstance(loader, Joined):
        parts = [copied(one) for one in loader.combined.flattened]
        found = iter(parts)
        return None if any(one is None for one in parts) else loader.mapped(lambda _: next(found))
    stream = loader.dataset if isinstance(loader, DataLoader) else loader
    if isinstance(loader, DataLoader) and not isinstance(stream, IterableDataset):
        return loader
    if not isinstance(loader, (DataLoader, Iterator)) and not _can_resume(loader):
        return loader
    try:
        twin = copy.deepcopy(stream)
    except (TypeError, RuntimeError, OSError):  # it holds a generator, a file or a connection
        return None
    if not isinstance(loader, DataLoader):
        return twin
    return DataLoader(twin, batch_size=loader.batch_size, collate_fn=loader.collate_fn)


@contextmanager
def unmoved(loaders: list[Any]) -> Iterator[None]:
    """Restore the generators and iterators of loaders after the block, for the run in progress."""
    inner = [one for loader in loaders for one in _each(loader)]
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


def _joined(source: Any, mode: str) -> Any:
    """Return a collection of loaders as one loader; a single loader as it is."""
    if isinstance(source, CombinedLoader):
        mode, source = source._mode, source.iterables
    flat = CombinedLoader(source, "sequential").flattened
    return flat[0] if len(flat) == 1 and source is flat[0] else Joined(source, mode)


def _each(loader: Any) -> list[Any]:
    return loader.combined.flattened if isinstance(loader, Joined) else [loader]


def _aside(loader: Any) -> Any:
    """Return a loader of all data of another, which does not move it.

    A loader that can resume counts the batches that it gave: those that are read aside, such as in
    a dry run, would be left out of the run, or the place from a checkpoint would be lost.
    """
    if isinstance(loader, Joined):
        return loader.mapped(_aside)
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return loader
    if isinstance(loader.sampler, DistributedSampler):
        return _plain(loader, batch_size=loader.batch_size)
    if not any(map(_can_resume, _parts(loader))):
        return loader
    if type(loader.batch_sampler) is BatchSampler:
        drop_last, sampler = loader.batch_sampler.drop_last, _unshared(loader.sampler)
        return _plain(loader, batch_size=loader.batch_size, sampler=sampler, drop_last=drop_last)
    if loader.batch_sampler is not None:
        return _plain(loader, batch_sampler=_unshared(loader.batch_sampler))
    return _plain(loader, batch_size=None, sampler=_unshared(loader.sampler))


def _plain(loader: DataLoader[Any], **sampling: Any) -> DataLoader[Any]:
    return DataLoader(
        loader.dataset, num_workers=loader.num_workers, collate_fn=loader.collate_fn, **sampling
    )


def _can_resume(part: Any) -> bool:
    """Tell whether Lightning saves the place of a loader or sampler in checkpoints."""
    return hasattr(part, "state_dict") and hasattr(part, "load_state_dict")


def _unshared(sampler: Any) -> Any:
    """Return a sampler with a place of its own, if it has one."""
    return copy.deepcopy(sampler) if _can_resume(sampler) else sampler


def _parts(loader: Any) -> list[Any]:
    """Return the parts of a loader that may have a generator: itself and its samplers."""
    batches = getattr(loader, "batch_sampler", None)
    return [loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None)]
