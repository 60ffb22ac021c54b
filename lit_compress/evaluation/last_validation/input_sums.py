"""Sums of the inputs of a network in each batch, which tell whether two passes had the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

#: Numbers are summed with weights from 1 to this by their place: a flipped image has another sum.
PLACES = 97


class InputSums:
    """What a network took, as one number for each batch.

    The numbers are whole ones and are added on the device, so that equal inputs have equal sums,
    and nothing waits for them until they are compared.

    Example:
        >>> first, second = InputSums(), InputSums()
        >>> first.add([torch.tensor([1.0, 2.0])])
        >>> second.add([torch.tensor([2.0, 1.0])])
        >>> first.equal(first), first.equal(second)
        (True, False)
    """

    def __init__(self) -> None:
        self._batches: list[list[Tensor]] = []
        self._known = True

    def add(self, inputs: Any) -> None:
        """Add the inputs of a batch.

        Args:
            inputs: Tensors, in any structure.
        """
        leaves = [leaf.detach() for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
        self._known = self._known and all(map(_is_plain, leaves))
        if self._known:
            self._batches.append([_sum(leaf) for leaf in leaves])

    def equal(self, other: InputSums) -> bool:
        """Tell whether all batches of both had the same inputs.

        Args:
            other: The sums of another pass.
        """
        if not (self._known and other._known):
            return False
        return self._numbers() == other._numbers()

    def _numbers(self) -> list[list[int]]:
        return [[int(one) for one in batch] for batch in self._batches]


def _is_plain(tensor: Tensor) -> bool:
    return type(tensor) is Tensor and tensor.layout is torch.strided and not tensor.is_meta


def _sum(tensor: Tensor) -> Tensor:
    flat = tensor.reshape(-1)
    wide = flat.element_size() % 4 == 0
    numbers = flat.view(torch.int32 if wide else torch.uint8)
    whole = len(numbers) // PLACES * PLACES
    places = torch.arange(1, PLACES + 1, device=tensor.device)
    by_place = numbers[:whole].view(-1, PLACES).sum(0, dtype=torch.int64)
    rest = numbers[whole:].to(torch.int64)
    total = (by_place * places).sum() + (rest * places[: len(rest)]).sum()
    sizes = sum(size * (3 + axis) for axis, size in enumerate(tensor.shape))
    return total + sizes
