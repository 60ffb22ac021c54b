"""The index of a packed file: which tensors it has, and which streams hold them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lit_compress.errors import ArtifactError
from lit_compress.packed.codec import ENCODINGS, Block
from lit_compress.packed.levels import Channels
from lit_compress.packed.streams import Stream
from lit_compress.packed.tensor import DTYPES, Tensor

#: numpy 1.26 allows no more dimensions.
DIMENSIONS = 32


def index_text(tensors: Sequence[Tensor], owners: Sequence[int], blocks: Sequence[Block]) -> str:
    """Return the index as JSON.

    Args:
        tensors: The tensors, in the order of their bytes.
        owners: For each tensor the number of its block.
        blocks: The blocks.

    Example:
        >>> index_text([Tensor("w", "int8", (2, 3), 5)], [0], [])
        '{"tensors":[["w","int8",[2,3],5,0]],"blocks":[]}'
    """
    rows = []
    place = 0
    for tensor, owner in zip(tensors, owners, strict=True):
        row: list[Any] = [tensor.name, tensor.dtype, tensor.shape, tensor.start - place, owner]
        if tensor.channels is not None:
            row.append([tensor.channels.count, tensor.channels.inner])
        rows.append(row)
        place = tensor.end
    sizes = [
        [block.encoding, *([stream.size, len(stream.stored)] for stream in block.streams)]
        for block in blocks
    ]
    return json.dumps({"tensors": rows, "blocks": sizes}, separators=(",", ":"))


def parse_index(
    index: Any, streams: memoryview, source: str
) -> tuple[tuple[Tensor, ...], tuple[int, ...], tuple[Block, ...]]:
    """Return tensors, the numbers of their blocks, and the blocks.

    Args:
        index: The parsed JSON.
        streams: All streams of the file, one after the other.
        source: Name of the file, for error messages.

    Raises:
        ArtifactError: If the index is not what :func:`index_text` writes, or does not cover the
            streams.
    """
    try:
        blocks = _blocks(index["blocks"], streams)
        tensors, owners = _tensors(index["tensors"])
        _check(tensors, owners, blocks)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ArtifactError(f"{source} has a damaged index ({error}): write it again") from error
    return tuple(tensors), tuple(owners), tuple(blocks)


def _blocks(rows: Any, streams: memoryview) -> list[Block]:
    blocks, place = [], 0
    for encoding, *sizes in rows:
        if encoding not in ENCODINGS:
            raise ValueError(f"the encoding {str(encoding)[:20]!r} is not known")
        found = []
        for size, stored in sizes:
            if _count(stored) > _count(size) or place + stored > len(streams):
                raise ValueError(f"a stream of {size} bytes is stored in {stored}")
            found.append(Stream(size, streams[place : place + stored]))
            place += stored
        blocks.append(Block(encoding, tuple(found)))
    if place != len(streams):
        raise ValueError(f"{place} of {len(streams)} bytes of streams are listed")
    return blocks


def _tensors(rows: Any) -> tuple[list[Tensor], list[int]]:
    tensors, owners, place = [], [], 0
    for name, dtype, shape, skip, owner, *channels in rows:
        if not isinstance(name, str) or dtype not in DTYPES or len(shape) > DIMENSIONS:
            raise ValueError(f"the tensor {str(name)[:40]!r} has no usable type or shape")
        sizes = tuple(_count(size) for size in shape)
        grid = Channels(*(_count(size) for size in channels[0])) if channels else None
        tensors.append(Tensor(name, dtype, sizes, place + _count(skip), grid))
        owners.append(_count(owner))
        place = tensors[-1].end
    return tensors, owners


def _check(tensors: Sequence[Tensor], owners: Sequence[int], blocks: Sequence[Block]) -> None:
    if set(owners) != set(range(len(blocks))):
        raise ValueError("a block has no tensor, or a tensor no block")
    words: dict[int, int] = {}
    for tensor, owner in zip(tensors, owners, strict=True):
        grid = tensor.channels
        if words.setdefault(owner, tensor.word) != tensor.word:
            raise ValueError("the tensors of a block have words of different sizes")
        if grid is None:
            continue
        period = grid.count * grid.inner
        if tensor.dtype != "int8" or owners.count(owner) > 1 or not blocks[owner].streams:
            raise ValueError(f"{tensor.name!r} cannot be in 4 bits")
        if not period or tensor.size % period:
            raise ValueError(f"the channels of {tensor.name!r} do not fit its shape")


def _count(value: Any) -> int:
    """Return a value that is a number of things."""
    if type(value) is not int or not 0 <= value < 2**40:
        raise ValueError(f"{str(value)[:40]!r} is not a count")
    return value
