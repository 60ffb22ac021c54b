"""Fold channel shuffles into the weights of the convolutions around them.

A channel shuffle is a view, a transpose and a view: three operations that compute nothing, and with
the layout that runtimes change to as many again. The channels that a convolution returns can be
stored in the order in which they are read. What is left of the shuffle is then a split behind the
convolution that computes the channels, and a concatenation in front of the one that reads them. All
sums of int8 products stay the same.
"""

from __future__ import annotations

import operator
from itertools import pairwise
from typing import Any

from torch.fx import Graph, GraphModule, Node

from lit_compress.quantization.operations import aten
from lit_compress.quantization.shuffles.layers import CONVOLUTIONS, Layers
from lit_compress.quantization.shuffles.layouts import DEQUANTIZE, QUANTIZE, SHUFFLES
from lit_compress.quantization.shuffles.orders import Orders, Piece
from lit_compress.quantization.shuffles.regions import find_orders


def fold_shuffles(graph: GraphModule) -> int:
    """Leave out the channel shuffles that convolutions read, if that makes the graph smaller.

    Args:
        graph: A captured graph in float or int8, with the shapes of its values; changed in place.

    Returns:
        The number of transposes that were left out.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ChannelShuffle(2), nn.Conv2d(4, 2, 1)).eval()
        >>> images = torch.rand(1, 1, 5, 5)
        >>> graph = torch.export.export(net, (images,)).module()
        >>> fold_shuffles(graph)
        1
        >>> torch.allclose(graph(images), net(images), atol=1e-6)
        True
    """
    if not _shuffles(graph.graph):
        return 0
    layers = Layers(graph)
    orders = find_orders(graph, layers)
    if orders is None:
        return 0
    before = _shuffles(graph.graph)
    _reorder(graph, layers, orders)
    _Pieces(graph.graph, orders).place()
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return before - _shuffles(graph.graph)


def _shuffles(graph: Graph) -> int:
    return sum(node.target in SHUFFLES for node in graph.nodes)


def _reorder(graph: GraphModule, layers: Layers, orders: Orders) -> None:
    """Give convolutions the orders of the channels that they read and return."""
    for node in graph.graph.nodes:
        if layers.mixes(node):
            _apply(layers, node, orders.of(node.args[0]), 1)
        if layers.mixes(node) or (node.target in CONVOLUTIONS and layers.keeps(node)):
            _apply(layers, node, orders.of(node), 0)


def _apply(layers: Layers, node: Node, order: list[int], axis: int) -> None:
    if order != sorted(order):
        layers.reorder(node, order, axis)


class _Pieces:
    """Puts moved values together from pieces of those that are computed.

    Args:
        graph: The graph, which is changed.
        orders: The pieces of each value.
    """

    def __init__(self, graph: Graph, orders: Orders) -> None:
        self._graph, self._orders = graph, orders
        self._parts: dict[Piece, Node] = {}
        self._joined: dict[tuple[Piece, ...], Node] = {}

    def place(self) -> None:
        """Replace the moved values."""
        for value, pieces in self._orders.pieces.items():
            with self._graph.inserting_before(value):
                found = self._value(tuple(pieces), self._orders.limits(value))
                # Each reader of an int8 value has a dequantise operation of its own.
                if value.target is DEQUANTIZE and found.target is DEQUANTIZE:
                    found = self._graph.call_function(DEQUANTIZE, found.args)
            value.replace_all_uses_with(found)

    def _value(self, pieces: tuple[Piece, ...], limits: tuple[Any, ...]) -> Node:
        """Return a value that is put together from pieces; the same for the same pieces."""
        if pieces not in self._joined:
            parts = [self._part(piece, limits) for piece in pieces]
            joined = parts[0]
            if len(parts) > 1:
                joined = self._graph.call_function(aten.cat.default, (parts, 1))
                joined = self._limited(joined, limits)
            self._joined[pieces] = joined
        return self._joined[pieces]

    def _part(self, piece: Piece, limits: tuple[Any, ...]) -> Node:
        """Return a piece; all pieces of a value are split off behind the value at once."""
        if len(self._orders.cuts[piece.value]) == 2:
            return piece.value
        if piece not in self._parts:
            with self._graph.inserting_before(piece.value.next):
                self._split(piece.value, limits)
        return self._parts[piece]

    def _split(self, value: Node, limits: tuple[Any, ...]) -> None:
        ends = list(pairwise(self._orders.cuts[value]))
        sizes = [stop - start for start, stop in ends]
        split = self._graph.call_function(aten.split_with_sizes.default, (value, sizes, 1))
        for index, (start, stop) in enumerate(ends):
            part = self._graph.call_function(operator.getitem, (split, index))
            self._parts[Piece(value, start, stop)] = self._limited(part, limits)

    def _limited(self, value: Node, limits: tuple[Any, ...]) -> Node:
        """Quantise a moved value as the values that it comes from: this changes no number."""
        if not limits:
            return value
        quantized = self._graph.call_function(QUANTIZE, (value, *limits))
        return self._graph.call_function(DEQUANTIZE, (quantized, *limits))
