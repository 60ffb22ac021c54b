"""Rows of the recorded inputs, as a file takes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

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
