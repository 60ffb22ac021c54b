"""A tensor as a part of a file's bytes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from lit_compress.packed.levels import Channels

#: Types of elements that a packed file may have.
DTYPES = frozenset(
    (
        *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
)


@dataclass(frozen=True)
class Tensor:
    """A tensor as a part of a file's bytes.

    Attributes:
        name: Its name; names may repeat.
        dtype: numpy's name of the type, such as ``float32``; stored little-endian.
        shape: Its shape.
        start: Place of its first byte in the unpacked file.
        channels: Output channels, if the tensor is stored in 4 bits per weight; else None.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    channels: Channels | None = None

    @property
    def size(self) -> int:
        """Number of bytes."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def end(self) -> int:
        """Place behind its last byte."""
        return self.start + self.size

    @property
    def word(self) -> int:
        """Bytes of a word: of an element, or of a half of a complex128."""
        return min(8, np.dtype(self.dtype).itemsize)
