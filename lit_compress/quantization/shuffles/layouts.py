"""Which channels of which values stand where, after operations that only move channels."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Graph, Node

from lit_compress.quantization.operations import aten

quantized = torch.ops.quantized_decomposed

QUANTIZE = quantized.quantize_per_tensor.default
DEQUANTIZE = quantized.dequantize_per_tensor.default
COPIES = {aten.contiguous.default, aten.clone.default, aten.alias.default}
VIEWS = {aten.view.default, aten.reshape.default, aten.unflatten.int, aten.flatten.using_ints}
SPLITS = {aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default}
SHUFFLES = {aten.transpose.int, aten.permute.default, aten.channel_shuffle.default}
#: Operations that may move channels.
MOVES = {aten.cat.default, aten.slice.Tensor, operator.getitem, *VIEWS, *SPLITS, *SHUFFLES, *COPIES}


@dataclass(frozen=True)
class Channel:
    """A channel of a value that a layer or another operation computes.

    Attributes:
        value: The value, with its channels on axis 1.
        index: Number of the channel.
    """

    value: Node
    index: int


class Layouts:
    """The layouts of the values in a graph that are channels of other values, moved.

    Args:
        graph: A captured graph with the shapes of its values.

    Attributes:
        moved: By value, its channels: an array of numbers with one axis or, between the two views
            of a channel shuffle, two.
        channels: What the numbers stand for.
        limits: By value, how it is quantised: the arguments of its dequantise operation behind the
            first one; nothing for a float value.
    """

    def __init__(self, graph: Graph) -> None:
        self.moved: dict[Node, np.ndarray] = {}
        self.channels: list[Channel] = []
        self.limits: dict[Node, tuple[Any, ...]] = {}
        self._first: dict[Node, int] = {}
        self._parts: dict[Node, list[np.ndarray]] = {}
        for node in graph.nodes:
            if node.op == "call_function":
                self._read(node)

    def numbers(self, value: Node) -> np.ndarray:
        """Return the numbers of a value's channels.

        Args:
            value: The value; one that is not moved gets numbers of its own.
        """
        if value in self.moved:
            return self.moved[value]
        count = channels(value)
        if value not in self._first:
            self._first[value] = len(self.channels)
            self.channels.extend(Channel(value, index) for index in range(count))
        return np.arange(count) + self._first[value]

    def is_moved(self, node: Node) -> bool:
        """Tell whether a node only moves channels."""
        return node in self.moved or node in self._parts

    def _read(self, node: Node) -> None:
        """Find the layout of one value."""
        if node.target is DEQUANTIZE and node.args[0] not in self.moved:
            self.limits[node] = node.args[1:]
        sources = (n for n in node.all_input_nodes if is_image(n) or n in self._parts)
        limits = {self.limits.get(source, ()) for source in sources}
        if len(limits) != 1:
            return
        found = self._layout(node)
        if found is None:
            return
        self.limits[node] = next(iter(limits))
        if isinstance(found, list):
            self._parts[node] = found
        else:
            self.moved[node] = found

    def _layout(self, node: Node) -> np.ndarray | list[np.ndarray] | None:
        """Return the layout of a node that moves channels; a list if it returns several values."""
        args: Any = node.args
        if node.target in (QUANTIZE, DEQUANTIZE):
            same = self.limits.get(args[0]) == tuple(args[1:])
            return self.moved.get(args[0]) if same else None
        if node.target not in MOVES or node.kwargs:
            return None
        if node.target is operator.getitem:
            parts = self._parts.get(args[0])
            return None if parts is None else parts[args[1]]
        if node.target is aten.cat.default:
            joined = len(args) > 1 and args[1] == 1 and all(map(is_image, args[0]))
            flat = [self.numbers(source) for source in args[0]] if joined else []
            return np.concatenate(flat) if flat and all(f.ndim == 1 for f in flat) else None
        if not is_image(args[0]) or (args[0] not in self.moved and node.target in COPIES):
            return None
        return _changed(node, self.numbers(args[0]), args)


def _changed(
    node: Node, numbers: np.ndarray, args: tuple[Any, ...]
) -> np.ndarray | list[np.ndarray] | None:
    """Return the layout after an operation with one input."""
    if node.target in COPIES:
        return numbers
    if node.target in VIEWS:
        return _viewed(node, numbers)
    if node.target is aten.channel_shuffle.default:
        shuffled: np.ndarray = numbers.reshape(args[1], -1).T.reshape(-1)
        return shuffled if numbers.ndim == 1 else None
    if node.target in SHUFFLES:
        return _transposed(node, numbers, args)
    return _selected(node, numbers, args) if numbers.ndim == 1 else None


def _selected(
    node: Node, numbers: np.ndarray, args: tuple[Any, ...]
) -> np.ndarray | list[np.ndarray] | None:
    """Return the layout of a part of the channels, or of all parts of a split."""
    if node.target is aten.slice.Tensor:
        plain = len(args) > 1 and args[1] == 1 and all(isinstance(end, int) for end in args[2:])
        ends = (*args[2:], None) if len(args) == 3 else args[2:]
        return numbers[slice(*ends)] if plain else None
    if len(args) < 3 or args[2] != 1:
        return None
    sizes = [channels(part) for part in node.meta["val"]]
    return np.split(numbers, np.cumsum(sizes)[:-1])


def _viewed(node: Node, numbers: np.ndarray) -> np.ndarray | None:
    """Return the layout of a view that splits or joins the axes of channels, and no other axis."""
    source: Any = node.args[0]
    before, after = _shape(source), _shape(node)
    space = len(before) - 1 - numbers.ndim
    axes = after[1 : len(after) - space]
    others = (before[:1] + before[len(before) - space :], after[:1] + after[len(after) - space :])
    # The sizes of other axes may be symbols, whose comparison as numbers would add a guard.
    if [str(size) for size in others[0]] != [str(size) for size in others[1]]:
        return None
    if not axes or not all(isinstance(size, int) for size in axes):
        return None
    shaped: np.ndarray = numbers.reshape(axes)
    return shaped


def _transposed(node: Node, numbers: np.ndarray, args: tuple[Any, ...]) -> np.ndarray | None:
    """Return the layout after two axes of channels changed places."""
    rank = len(_shape(node))
    if node.target is aten.transpose.int:
        order = list(range(rank))
        first, second = args[1] % rank, args[2] % rank
        order[first], order[second] = second, first
    else:
        order = [axis % rank for axis in args[1]]
    inner = order[1 : 1 + numbers.ndim]
    fixed = [axis for axis in range(rank) if not 1 <= axis <= numbers.ndim]
    if [order[axis] for axis in fixed] != fixed:
        return None
    moved: np.ndarray = numbers.transpose([axis - 1 for axis in inner])
    return moved


def is_image(value: Any) -> bool:
    """Tell whether a node is a tensor with a known number of channels on axis 1."""
    shape = _shape(value)
    return len(shape) > 1 and isinstance(shape[1], int)


def channels(value: Any) -> int:
    """Return the number of channels of a value, which is on axis 1.

    Args:
        value: A node, or a tensor.
    """
    return int((value.shape if isinstance(value, Tensor) else _shape(value))[1])


def _shape(value: Any) -> list[Any]:
    while isinstance(value, Node) and value.target in (QUANTIZE, DEQUANTIZE):
        value = value.args[0]
    found = value.meta.get("val") if isinstance(value, Node) else None
    return list(found.shape) if isinstance(found, Tensor) else []
