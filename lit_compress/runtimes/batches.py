"""Run batches of any size with files that are for one batch size each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lit_compress.runtimes.format_file import Port
from lit_compress.runtimes.interface import Run


def pieces(rows: int, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Return with which batch sizes a number of rows is run: largest first, the last one filled up.

    Args:
        rows: Number of rows.
        sizes: The batch sizes that there are files for.

    Returns:
        Pairs of a batch size and how many of its rows are used.

    Example:
        >>> pieces(70, [1, 32]), pieces(3, [2])
        ([(32, 32), (32, 32), (1, 1), (1, 1), (1, 1), (1, 1), (1, 1), (1, 1)], [(2, 2), (2, 1)])
    """
    found: list[tuple[int, int]] = []
    for size in sorted(sizes, reverse=True):
        found += [(size, size)] * (rows // size)
        rows %= size
    return found + [(min(sizes), rows)] * bool(rows)


def in_batches(runs: Mapping[int, Run], inputs: Sequence[Port], outputs: Sequence[Port]) -> Run:
    """Return a function that runs a batch of any size.

    Args:
        runs: By batch size, what runs its file.
        inputs: Inputs of the files. One without a batch axis is given to each call as it is.
        outputs: Outputs of the files. One without a batch axis is that of the first call.
    """

    def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        rows = next((len(a) for a, port in zip(arrays, inputs, strict=True) if port.batched), 0)
        if not rows:
            return _empty(outputs)
        start, parts = 0, list[list[np.ndarray]]()
        for size, used in pieces(rows, list(runs)):
            piece = [
                _rows(array, start, used, size) if port.batched else array
                for array, port in zip(arrays, inputs, strict=True)
            ]
            found = runs[size](piece)
            parts.append(
                [a[:used] if port.batched else a for a, port in zip(found, outputs, strict=True)]
            )
            start += used
        return [
            np.concatenate(found) if port.batched else found[0]
            for port, *found in zip(outputs, *parts, strict=True)
        ]

    return run


def _rows(array: np.ndarray, start: int, used: int, size: int) -> np.ndarray:
    """Return some rows; the last one is repeated where there are fewer than the file takes."""
    rows = array[start : start + used]
    if used == size:
        return rows
    return np.concatenate([rows, np.repeat(rows[-1:], size - used, axis=0)])


def _empty(outputs: Sequence[Port]) -> list[np.ndarray]:
    return [np.zeros((0, *(max(0, s) for s in port.shape)), port.dtype) for port in outputs]
