"""Inputs to time a network with: their shapes, and random numbers of their types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lit_compress.errors import InvalidArgumentError
from lit_compress.runtimes.interface import Input

#: Random seed of the numbers.
SEED = 0
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Slot:
    """One input of a network.

    Attributes:
        name: Its name.
        shape: Shape of one example.
        dtype: numpy type of its elements.
        batch: Size of the first axis, if the network takes no other; None if it takes any.
        whole: Whether the input is one for all examples: it has no axis for them.
        rows: How many values its numbers may take, if they are places in a table; else None.
    """

    name: str
    shape: Shape
    dtype: np.dtype[Any]
    batch: int | None = None
    whole: bool = False
    rows: int | None = None

    def __str__(self) -> str:
        sizes = " x ".join(map(str, self.shape)) or "one number"
        return f"{self.name}: {self.dtype} {sizes}"


def slots_of(inputs: Sequence[Input], given: Sequence[Shape], source: str) -> tuple[Slot, ...]:
    """Return the inputs of an ONNX file, with the shape of one example of each.

    Args:
        inputs: The inputs, as a runtime describes them.
        given: Shapes of one example: one for all inputs, or one for each. They settle the sizes
            that the file leaves open.
        source: Name of the file, for messages.

    Raises:
        InvalidArgumentError: If a size is open and not given, or given and another one.
    """
    if len(given) not in (0, 1, len(inputs)):
        raise InvalidArgumentError(
            f"{source} has {len(inputs)} inputs ({', '.join(i.name for i in inputs)}), and "
            f"{len(given)} shapes are given: give one for all, or one for each"
        )
    batched = any(found.batched for found in inputs)
    shapes: list[Shape | None] = [*given] * len(inputs) if len(given) < 2 else [*given]
    shapes = shapes or [None] * len(inputs)
    return tuple(
        _slot(found, shape, batched, source) for found, shape in zip(inputs, shapes, strict=True)
    )


def _slot(found: Input, given: Shape | None, batched: bool, source: str) -> Slot:
    """Return an input; where none has a free first axis, the first size is the batch."""
    sizes: Sequence[object] = found.shape
    batch = None
    if not batched and sizes:
        batch, sizes = found.shape[0], found.shape[1:]
    whole = not found.batched and batch is None
    open_ = [size for size in sizes if not isinstance(size, int)]
    fixed = [size for size in sizes if isinstance(size, int)]
    if given is None or (whole and not open_):
        if open_:
            raise InvalidArgumentError(
                f"{source} leaves sizes of its input {found.name} open "
                f"({' x '.join(map(str, sizes))}): give the shape of one example with --shape"
            )
        return Slot(found.name, tuple(fixed), found.dtype, batch, whole)
    agrees = len(given) == len(sizes) and all(
        not isinstance(size, int) or size == own for size, own in zip(sizes, given, strict=True)
    )
    if not agrees:
        raise InvalidArgumentError(
            f"{source} takes examples of shape {' x '.join(map(str, sizes))} as {found.name}, and "
            f"the given shape is {' x '.join(map(str, given))}"
        )
    return Slot(found.name, given, found.dtype, batch, whole)


def random_arrays(slots: Sequence[Slot], batch: int) -> list[np.ndarray]:
    """Return random inputs, the same in each call.

    Floats are normal, bytes are uniform. Other whole numbers are places in the table that the input
    reads, or 0 and 1.

    Args:
        slots: The inputs.
        batch: Number of examples.

    Example:
        >>> slots = [Slot("x", (3,), np.dtype(np.uint8))]
        >>> random_arrays(slots, batch=2)[0].shape
        (2, 3)
    """
    random = np.random.default_rng(SEED)
    return [
        _random(slot, slot.shape if slot.whole else (batch, *slot.shape), random) for slot in slots
    ]


def _random(slot: Slot, shape: Shape, random: np.random.Generator) -> np.ndarray:
    dtype = slot.dtype
    if dtype.kind == "f":
        return np.asarray(random.standard_normal(shape), dtype)
    low, high = 0, 2
    if slot.rows is not None:
        high = slot.rows
    elif dtype.kind in "iu" and dtype.itemsize == 1:
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max) + 1
    return np.asarray(random.integers(low, high, shape), dtype)


def stored_arrays(
    slots: Sequence[Slot], arrays: Sequence[np.ndarray], batch: int
) -> list[np.ndarray] | None:
    """Return the first examples of stored inputs; None if there are too few, or they do not suit.

    Args:
        slots: The inputs.
        arrays: The stored inputs.
        batch: Number of examples.
    """
    if len(arrays) != len(slots):
        return None
    cut = [a if slot.whole else a[:batch] for slot, a in zip(slots, arrays, strict=True)]
    wanted = [slot.shape if slot.whole else (batch, *slot.shape) for slot in slots]
    return cut if [array.shape for array in cut] == wanted else None
