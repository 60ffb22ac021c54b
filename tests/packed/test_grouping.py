"""Small tensors share a block where that saves bytes."""

from __future__ import annotations

import numpy as np

from lit_compress.packed.grouping import group
from lit_compress.packed.tensor import Tensor


def test_small_tensors_are_joined_and_large_ones_are_not() -> None:
    random = np.random.default_rng(0)
    sizes = [100_000, 60, 60, 60, 90_000]
    data = random.normal(0, 20, sum(sizes)).clip(-127, 127).astype(np.int8).tobytes()
    places = np.cumsum([0, *sizes])
    tensors = [Tensor("w", "int8", (n,), int(p)) for n, p in zip(sizes, places, strict=False)]
    owners, blocks = group(data, tensors, {})
    assert owners == (0, 1, 1, 1, 2)
    assert len(blocks) == 3


def test_types_are_not_joined() -> None:
    tensors = [Tensor("a", "int32", (9,), 0), Tensor("b", "float32", (9,), 36)]
    assert group(bytes(72), tensors, {})[0] == (0, 1)


def test_tensors_that_are_unlike_are_not_joined() -> None:
    """One code for both would take a bit more for each of the numbers."""
    first, second = np.tile([1, 2], 1500), np.tile([7, 9, 8, 6], 750)
    data = np.random.default_rng(0).permutation(first).astype(np.int8).tobytes()
    data += np.random.default_rng(1).permutation(second).astype(np.int8).tobytes()
    tensors = [Tensor("a", "int8", (3000,), 0), Tensor("b", "int8", (3000,), 3000)]
    assert group(data, tensors, {})[0] == (0, 1)
