"""Counting which class a network answers for which label, while the user's validation runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: With more classes than these the table is not kept: nobody reads it, and cards stay small.
MOST_CLASSES = 100


class Confusion:
    """Counts pairs of label and answer, as long as batches and outputs look like a classification.

    A batch is a pair of inputs and integer labels, one for each row of the outputs, which are
    scores of 2 to 100 classes.

    Example:
        >>> found = Confusion()
        >>> found.add((torch.zeros(2, 3), torch.tensor([0, 1])), torch.tensor([[2.0, 1], [3, 1]]))
        >>> found.table
        ((1, 0), (1, 0))
    """

    def __init__(self) -> None:
        self._counts: Tensor | None = None
        self._fits = True

    def add(self, batch: Any, outputs: Any) -> None:
        """Count the answers of a batch.

        Args:
            batch: What the loader gave.
            outputs: What the network returned for it.
        """
        labels = batch[1] if isinstance(batch, (tuple, list)) and len(batch) == 2 else None
        self._fits = self._fits and _is_classification(labels, outputs)
        if self._fits and self._counts is not None:
            self._fits = outputs.shape[1] == len(self._counts)
        if not self._fits or labels is None:
            return
        classes = outputs.shape[1]
        pairs = labels.cpu() * classes + outputs.detach().cpu().argmax(1)
        counts = torch.bincount(pairs, minlength=classes**2).view(classes, classes)
        self._counts = counts if self._counts is None else self._counts + counts

    def join(self, other: Confusion) -> None:
        """Count what another one has counted, too.

        Args:
            other: Counts of other batches.
        """
        ours, theirs = self._counts, other._counts
        self._fits = self._fits and other._fits
        if ours is not None and theirs is not None:
            self._fits = self._fits and ours.shape == theirs.shape
            self._counts = ours + theirs if self._fits else None
        elif ours is None:
            self._counts = theirs

    @property
    def table(self) -> tuple[tuple[int, ...], ...] | None:
        """Counts by label (rows) and answer (columns); None if this is no classification."""
        if not self._fits or self._counts is None:
            return None
        return tuple(tuple(row) for row in self._counts.tolist())


def _is_classification(labels: Any, outputs: Any) -> bool:
    if not isinstance(labels, Tensor) or not isinstance(outputs, Tensor):
        return False
    if labels.dtype != torch.int64 or outputs.ndim != 2 or labels.shape != outputs.shape[:1]:
        return False
    if not 2 <= outputs.shape[1] <= MOST_CLASSES or not len(labels):
        return False
    return int(labels.min()) >= 0 and int(labels.max()) < outputs.shape[1]
