"""Rows are the first ones that were recorded, as many as are asked for."""

from __future__ import annotations

import pytest
import torch

from lit_compress.callbacks._quantization.file.rows import repeated_rows

BATCHES = [
    (torch.arange(3.0), torch.ones(2)),  # the second is no batch: it is of another length
    (torch.arange(3.0, 6.0), torch.ones(2)),
]


@pytest.mark.parametrize("count", [1, 4, 6, 7, 15])
def test_they_are_repeated_if_there_are_few(count: int) -> None:
    rows, fixed = repeated_rows(BATCHES, count)
    assert rows.tolist() == [float(number % 6) for number in range(count)]
    assert torch.equal(fixed, torch.ones(2))
