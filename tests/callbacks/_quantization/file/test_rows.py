"""Rows are the first ones that were recorded, as many as are asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_compress.artifact.replay import stored_count
from lit_compress.callbacks._quantization.file.rows import repeated_rows, stored_rows

BATCHES = [
    (torch.arange(3.0), torch.ones(2)),  # the second is no batch: it is of another length
    (torch.arange(3.0, 6.0), torch.ones(2)),
]


@pytest.mark.parametrize("count", [1, 4, 6, 7, 15])
def test_they_are_repeated_if_there_are_few(count: int) -> None:
    rows, fixed = repeated_rows(BATCHES, count)
    assert rows.tolist() == [float(number % 6) for number in range(count)]
    assert torch.equal(fixed, torch.ones(2))


@pytest.mark.parametrize("size", [1_000, 5_000, 1_000_000])
def test_as_many_are_stored_as_the_size_of_the_file_allows(size: int) -> None:
    batch = torch.arange(64.0 * 100).view(64, 100)
    asked: list[int] = []

    def outputs(count: int) -> list[np.ndarray]:
        asked.append(count)
        return [np.zeros((count, 10), np.float32)]

    (rows,) = stored_rows([batch], outputs, size)
    assert asked == [1]
    assert len(rows) == stored_count(4 * 110, size)
    assert torch.equal(rows, batch[: len(rows)])
