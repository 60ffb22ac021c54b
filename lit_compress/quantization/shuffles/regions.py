"""Which channel shuffles of a graph can be left out, and are worth it."""

from __future__ import annotations

import operator
from collections.abc import Collection
from dataclasses import dataclass

from torch.fx import GraphModule, Node

from lit_compress.quantization.shuffles.groups import Groups, Unions
from lit_compress.quantization.shuffles.layers import Layers
from lit_compress.quantization.shuffles.layouts import (
    COPIES,
    DEQUANTIZE,
    QUANTIZE,
    SHUFFLES,
    Layouts,
    is_image,
)
from lit_compress.quantization.shuffles.orders import Orders

#: Operations that become no node of a file, or part of one.
FREE = {operator.getitem, QUANTIZE, DEQUANTIZE, *COPIES}


@dataclass(frozen=True)
class Region:
    """Operations next to each other that only move channels.

    Attributes:
        nodes: The operations.
        exits: Those of their values that other operations read.
        sources: The values that they move the channels of.
    """

    nodes: tuple[Node, ...]
    exits: tuple[Node, ...]
    sources: frozenset[Node]

    @property
    def size(self) -> int:
        """Number of the nodes that a file has for the operations."""
        return sum(node.target not in FREE for node in self.nodes)


def find_orders(graph: GraphModule, layers: Layers) -> Orders | None:
    """Return the order of all channels without the shuffles that can be left out.

    Args:
        graph: A captured graph; it does not change.
        layers: Its convolutions.

    Returns:
        The orders; None if no shuffle can be left out.
    """
    layouts = Layouts(graph.graph)
    groups = Groups(graph, layouts, layers)
    regions = _regions(graph, layouts, groups)
    chosen = [region for region in regions if _is_shuffle(region, layouts)]
    looped: set[Node] = set()
    while chosen:
        fixed = groups.fixed | looped | _held(regions, chosen, layouts, groups)
        kept = [region for region in chosen if _is_free(region, groups, fixed)]
        if len(kept) == len(chosen):
            exits = {value for region in kept for value in region.exits}
            read = [node for node in graph.graph.nodes if node in exits]
            orders = Orders(layouts, groups, read, fixed)
            if orders.loop is not None:
                looped.add(orders.loop)
                continue
            kept = [region for region in chosen if _new_size(region, orders) < region.size]
            if len(kept) == len(chosen):
                return orders
        chosen = kept
    return None


def _regions(graph: GraphModule, layouts: Layouts, groups: Groups) -> list[Region]:
    """Return the regions of a graph."""
    unions, moved = Unions(), [node for node in graph.graph.nodes if layouts.is_moved(node)]
    for node in moved:
        for source in node.all_input_nodes:
            if layouts.is_moved(source):
                unions.join(node, source)
    members: dict[Node, list[Node]] = {}
    for node in moved:
        members.setdefault(unions.find(node), []).append(node)
    return [_region(nodes, layouts, groups) for nodes in members.values()]


def _region(nodes: list[Node], layouts: Layouts, groups: Groups) -> Region:
    exits = tuple(node for node in nodes if node in groups.readers)
    inputs = {source for node in nodes for source in node.all_input_nodes if is_image(source)}
    return Region(tuple(nodes), exits, frozenset(inputs - set(nodes)))


def _is_shuffle(region: Region, layouts: Layouts) -> bool:
    """Tell whether a region shuffles channels, and its values can be put together from pieces."""
    for value in region.exits:
        numbers = layouts.moved.get(value)
        if numbers is None or numbers.ndim != 1 or len(set(numbers.tolist())) != len(numbers):
            return False
    return any(node.target in SHUFFLES for node in region.nodes)


def _held(
    regions: list[Region], chosen: list[Region], layouts: Layouts, groups: Groups
) -> set[Node]:
    """Return the groups whose order cannot change as other shuffles stay, or two orders meet."""
    stay = [region for region in regions if region not in chosen]
    held = {groups.find(source) for region in stay for source in region.sources}
    held |= {groups.find(node) for region in stay for node in _keepers(region, groups)}
    orders: dict[Node, bytes] = {}
    for region in chosen:
        for value in region.exits:
            numbers = layouts.moved[value].tobytes()
            for reader in filter(groups.keeps, groups.readers[value]):
                group = groups.find(reader)
                if orders.setdefault(group, numbers) != numbers:
                    held.add(group)
    return held


def _keepers(region: Region, groups: Groups) -> list[Node]:
    """Return the nodes that read values of a region, and keep the order of channels."""
    readers = [reader for value in region.exits for reader in groups.readers[value]]
    return [reader for reader in readers if groups.keeps(reader)]


def _is_free(region: Region, groups: Groups, fixed: Collection[Node]) -> bool:
    """Tell whether all nodes that read values of a region may read them in any order."""
    readers = [reader for value in region.exits for reader in groups.readers[value]]
    return all(groups.takes_any_order(reader, fixed) for reader in readers)


def _new_size(region: Region, orders: Orders) -> int:
    """Return the number of nodes for a region that is put together from pieces."""
    splits = sum(len(orders.cuts.get(source, ())) > 2 for source in region.sources)
    joined = {tuple(orders.pieces[value]) for value in region.exits}
    return splits + sum(len(pieces) > 1 for pieces in joined)
