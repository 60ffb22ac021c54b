"""The inputs that an artefact stores: as many as cost no more bytes than the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from torch import Tensor, nn

from lit_compress.artifact.replay import stored_count, write_replay
from lit_compress.callbacks._quantization.file.float_outputs import FloatOutputs
from lit_compress.export.signature import Batch, as_tuple, first_rows, is_batched


@dataclass(frozen=True)
class Stored:
    """Inputs to check other machines with.

    Attributes:
        inputs: The inputs, as a file takes them.
        outputs: What the float network gives for them.
        block: The side of the blocks of equal numbers that they are made of; 1 if they are as they
            were recorded.
    """

    inputs: tuple[Tensor, ...]
    outputs: list[np.ndarray]
    block: int = 1

    @property
    def count(self) -> int:
        """How many inputs they are."""
        return len(self.inputs[0])

    @property
    def note(self) -> str | None:
        """What was done to them, in words; None if nothing was."""
        if self.block == 1:
            return None
        return f"its stored input has blocks of {self.block} equal numbers along each axis"


def stored_inputs(
    batches: Sequence[Batch], expected: FloatOutputs, preprocess: nn.Module | None, size: int
) -> Stored:
    """Return the first inputs, as many as an artefact stores.

    Where a single one has more bytes than the network, its numbers are repeated in blocks, so large
    that it has fewer when it is compressed.

    Args:
        batches: The recorded inputs, as a file takes them.
        expected: What the network returns for them.
        preprocess: Turns what the file takes into the network's input, if they differ.
        size: Bytes of the file of the network.
    """
    rows = [as_tuple(batch) for batch in batches]
    length = len(rows[0][0])
    one = (*first_rows(rows, 1), *map(torch.from_numpy, expected.first(1)))
    count = stored_count(sum(tensor.numel() * tensor.element_size() for tensor in one), size)
    found = Stored(first_rows(rows, count), expected.first(count))
    while found.count == 1 and _bytes(found) > size and found.block < _longest(found.inputs):
        found = _coarser(rows, length, expected, preprocess, 2 * found.block)
    return found


def _coarser(
    rows: Sequence[tuple[Tensor, ...]],
    length: int,
    expected: FloatOutputs,
    preprocess: nn.Module | None,
    block: int,
) -> Stored:
    """Return the first input in blocks; values stay those that occurred, such as whole numbers."""
    inputs = tuple(
        _in_blocks(tensor, block) if is_batched(whole, length) else tensor
        for tensor, whole in zip(first_rows(rows, 1), rows[0], strict=True)
    )
    given = inputs if preprocess is None else (preprocess(inputs[0]), *inputs[1:])
    return Stored(inputs, list(map(np.atleast_1d, expected.of(given))), block)


def _in_blocks(tensor: Tensor, block: int) -> Tensor:
    # The second axis of images has their colours.
    for axis in range(min(2, tensor.dim() - 1), tensor.dim()):
        if axis:
            places = torch.arange(tensor.shape[axis]) // block * block
            tensor = tensor.index_select(axis, places)
    return tensor


def _longest(inputs: Sequence[Tensor]) -> int:
    return max(int(size) for tensor in inputs for size in (1, *tensor.shape[1:]))


def _bytes(found: Stored) -> int:
    """Return the bytes that inputs take in an artefact."""
    file = BytesIO()
    write_replay(file, [tensor.numpy() for tensor in found.inputs], found.outputs)
    return len(file.getvalue())
