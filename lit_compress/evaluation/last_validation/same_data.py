"""Whether the validation of a run takes the batches that a measurement would take."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

from lit_compress.evaluation.loaders import length, validation_loaders
from lit_compress.evaluation.trainer_access import overfit_batches, validation_loader


def batches_in_common(trainer: Trainer) -> int | None:
    """Return how many batches a validation of the run and a measurement have, if they are the same.

    They are for one process that validates on all batches of one loader, in the order of the data.

    Args:
        trainer: The run.

    Returns:
        Their number; None if they may not be the same.
    """
    limit, ran = trainer.limit_val_batches, validation_loader(trainer)
    if trainer.world_size > 1 or overfit_batches(trainer) or ran is None:
        return None  # a distributed sampler gives examples twice, so that processes have as many
    if not isinstance(limit, float) or limit != 1.0 or len(ran.flattened) != 1:
        return None
    own, measured = ran.flattened[0], validation_loaders(trainer)
    if len(measured) != 1 or not _is_in_order(own) or not _is_in_order(measured[0]):
        return None
    # A datamodule makes a new loader each time.
    settings = [
        (id(x.dataset), x.batch_size, x.drop_last, x.collate_fn) for x in (own, measured[0])
    ]
    found = length(own)
    return int(found) if settings[0] == settings[1] and 0 < found < float("inf") else None


def _is_in_order(loader: Any) -> bool:
    """Tell whether a loader gives all examples of its data in order."""
    return (
        type(loader) is DataLoader
        and not isinstance(loader.dataset, IterableDataset)
        and type(loader.sampler) is SequentialSampler
        and type(loader.batch_sampler) is BatchSampler
    )
