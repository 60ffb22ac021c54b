"""Rows of the recorded inputs, as a file takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from lit_compress.artifact.replay import stored_count
from lit_compress.export.signature import Batch, as_tuple, first_rows, is_batched


def repeated_rows(batches: Sequence[Batch], count: int) -> tuple[Tensor, ...]:
    """Return inputs of a batch size; they are repeated if there are few.

    Args:
        batches: The recorded inputs.
        count: The batch size.
    """
    rows = first_rows([as_tuple(batch) for batch in batches], count)
    length = len(as_tuple(batches[0])[0])
    return tuple(
        torch.cat([tensor] * (count // max(1, len(tensor)) + 1))[:count]
        if is_batched(whole, length)
        else tensor
        for tensor, whole in zip(rows, as_tuple(batches[0]), strict=True)
    )


def stored_rows(
    batches: Sequence[Batch], outputs: Callable[[int], list[np.ndarray]], bytes: int
) -> tuple[Tensor, ...]:
    """Return the first inputs, as many as an artefact stores.

    Args:
        batches: The recorded inputs.
        outputs: Returns the outputs for so many inputs, which are stored too.
        bytes: Size of the file of the network.
    """
    rows = [as_tuple(batch) for batch in batches]
    one = (*first_rows(rows, 1), *map(torch.from_numpy, outputs(1)))
    size = sum(tensor.numel() * tensor.element_size() for tensor in one)
    return first_rows(rows, stored_count(size, bytes))
