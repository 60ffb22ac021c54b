"""Which tensors share a block: large ones have their own, small ones of one type are joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lit_compress.packed.codec import Block, encode
from lit_compress.packed.streams import store
from lit_compress.packed.tensor import Tensor

#: Sizes in bytes below which tensors are joined; the one that gives the smallest file is taken.
#: A code of its own costs a stream about 100 bytes, and joined tensors share one.
SMALL = (0, 512, 4096, 32768)

Codes = Mapping[int, tuple[np.ndarray, np.ndarray]]


def group(
    data: bytes, tensors: Sequence[Tensor], codes: Codes
) -> tuple[tuple[int, ...], tuple[Block, ...]]:
    """Return for each tensor the number of its block, and the blocks.

    Args:
        data: The file that the tensors are parts of.
        tensors: The tensors.
        codes: By place of a tensor its codes of 4 bits and its steps.

    Example:
        >>> tensors = [Tensor("a", "int8", (4,), 0), Tensor("b", "int8", (4,), 4)]
        >>> owners, blocks = group(bytes(8), tensors, {})
        >>> owners, len(blocks)
        ((0, 0), 1)
    """
    done: dict[tuple[int, ...], Block] = {}
    plans = []
    for small in SMALL:
        members = _members(tensors, small, codes)
        for places in members:
            if places not in done:
                done[places] = _encoded(data, [tensors[place] for place in places], places, codes)
        # A row of the index takes about 12 bytes in the deflated head.
        plans.append((sum(done[places].stored + 12 for places in members), members))
    _, members = min(plans, key=lambda plan: plan[0])
    owners = {place: number for number, places in enumerate(members) for place in places}
    return (
        tuple(owners[place] for place in range(len(tensors))),
        tuple(done[places] for places in members),
    )


def _members(tensors: Sequence[Tensor], small: int, codes: Codes) -> list[tuple[int, ...]]:
    """Return the places of the tensors of each block, in the order of their first bytes."""
    groups: dict[object, list[int]] = {}
    for place, tensor in enumerate(tensors):
        alone = tensor.size >= small or place in codes
        groups.setdefault(place if alone else tensor.dtype, []).append(place)
    return [tuple(places) for places in groups.values()]


def _encoded(data: bytes, tensors: Sequence[Tensor], places: Sequence[int], codes: Codes) -> Block:
    if places[0] in codes:
        values, steps = codes[places[0]]
        block = encode(values.view(np.uint8))
        return Block(block.encoding, (*block.streams, store(steps.astype("<u2").tobytes())))
    content = b"".join(data[tensor.start : tensor.end] for tensor in tensors)
    return encode(np.frombuffer(content, f"<u{tensors[0].word}"))
