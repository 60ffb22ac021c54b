from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lit_compress.runtimes.batches import in_batches, pieces
from lit_compress.runtimes.format_file import Port
from lit_compress.runtimes.interface import Run

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True)
X, SCALE = Port("x", (2,), "float32", True), Port("scale", (1,), "float32", False)
OUTPUTS = (Port("y", (2,), "float32", True), Port("anchors", (1,), "float32", False))


def of_size(size: int) -> Run:
    """A file that takes one batch size."""

    def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        assert len(arrays[0]) == size
        return [arrays[0] * arrays[1], arrays[1]]

    return run


@given(st.integers(0, 60), SIZES)
def test_all_rows_are_run_once(rows: int, sizes: list[int]) -> None:
    found = pieces(rows, sizes)
    assert sum(used for _, used in found) == rows
    assert all(size in sizes and 0 < used <= size for size, used in found)
    assert sum(size > used for size, used in found) <= 1  # only the last one is filled up


@given(st.integers(0, 40), SIZES)
def test_a_batch_of_any_size(rows: int, sizes: list[int]) -> None:
    values = np.arange(2.0 * rows, dtype=np.float32).reshape(rows, 2)
    scale = np.array([3], np.float32)
    run = in_batches({size: of_size(size) for size in sizes}, (X, SCALE), OUTPUTS)
    scaled, anchors = run([values, scale])
    np.testing.assert_array_equal(scaled, values * 3)
    assert scaled.dtype == np.float32
    if rows:
        np.testing.assert_array_equal(anchors, scale)
