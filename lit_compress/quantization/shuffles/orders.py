"""In which order channels are stored, so that those that are read together stand together."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from torch.fx import Node

from lit_compress.quantization.shuffles.groups import Groups
from lit_compress.quantization.shuffles.layouts import Layouts, channels


@dataclass(frozen=True)
class Piece:
    """Some channels of a value, as they are stored.

    Attributes:
        value: The value.
        start: Place of the first channel.
        stop: Place behind the last channel.
    """

    value: Node
    start: int
    stop: int


class Orders:
    """The order of the channels of each value, where some moved values are put together anew.

    Args:
        layouts: Which channels the moved values have.
        groups: The values that share an order.
        read: The moved values to put together from pieces, in the order of the graph.
        fixed: The groups whose channels stay where they are.

    Attributes:
        loop: A group whose order would depend on itself; None if there is none. The orders are
            then of no use.
    """

    def __init__(
        self, layouts: Layouts, groups: Groups, read: list[Node], fixed: Collection[Node]
    ) -> None:
        self.loop: Node | None = None
        self._layouts, self._groups, self._fixed = layouts, groups, fixed
        self._keys = self._users(read)
        self._entry = {
            groups.find(reader): value
            for value in read
            for reader in groups.readers[value]
            if groups.keeps(reader)
        }
        self._known: dict[Node, list[int]] = {}
        self._open: set[Node] = set()
        runs = {value: self._runs(value) for value in read}
        self.cuts = _cuts(runs.values())
        self.pieces = {value: _cut(found, self.cuts) for value, found in runs.items()}

    def of(self, value: Node) -> list[int]:
        """Return the number of the channel that stands at each place of a value.

        Args:
            value: A value that is computed, or a moved one that is put together from pieces.
        """
        if value in self.pieces:
            return self._of_pieces(value, self.pieces[value])
        if self._layouts.is_moved(value):
            return list(range(channels(value)))
        return self._of_group(self._groups.find(value), channels(value))

    def limits(self, value: Node) -> tuple[Any, ...]:
        """Return how a moved value is quantised; nothing if it is not."""
        return self._layouts.limits.get(value, ())

    def _users(self, read: list[Node]) -> dict[Node, dict[int, set[int]]]:
        """Return, by group and channel, the numbers of the moved values that have the channel."""
        users: dict[Node, dict[int, set[int]]] = {}
        known: dict[bytes, int] = {}
        for value in read:
            numbers = self._layouts.moved[value]
            index = known.setdefault(numbers.tobytes(), len(known))
            for number in numbers:
                channel = self._layouts.channels[number]
                group = users.setdefault(self._groups.find(channel.value), {})
                group.setdefault(channel.index, set()).add(index)
        return users

    def _of_group(self, group: Node, count: int) -> list[int]:
        """Return the order of a group of values with so many channels."""
        if group in self._fixed:
            return list(range(count))
        if group in self._open:
            self.loop = group
            return list(range(count))
        if group not in self._known:
            self._open.add(group)
            self._known[group] = self._new(group, count)
            self._open.remove(group)
        return self._known[group]

    def _new(self, group: Node, count: int) -> list[int]:
        entry = self._entry.get(group)
        if entry is not None:
            return self._of_pieces(entry, self._runs(entry))
        users = self._keys.get(group, {})
        return sorted(range(count), key=lambda channel: sorted(users.get(channel, ())))

    def _runs(self, value: Node) -> list[Piece]:
        """Return the pieces of a moved value, as long as the orders let them be."""
        indices: dict[Node, list[int]] = {}
        for number in self._layouts.moved[value]:
            channel = self._layouts.channels[number]
            indices.setdefault(channel.value, []).append(channel.index)
        found = []
        for source, wanted in indices.items():
            order = np.argsort(self._of_group(self._groups.find(source), channels(source)))
            places = np.sort(order[wanted])
            for run in np.split(places, np.flatnonzero(np.diff(places) != 1) + 1):
                found.append(Piece(source, int(run[0]), int(run[-1]) + 1))
        return found

    def _of_pieces(self, value: Node, pieces: list[Piece]) -> list[int]:
        """Return which channel of a moved value stands at each place of its pieces."""
        place = {int(number): index for index, number in enumerate(self._layouts.moved[value])}
        order = []
        for piece in pieces:
            source = piece.value
            numbers = self._layouts.numbers(source)
            group = self._of_group(self._groups.find(source), channels(source))
            order += [place[int(numbers[channel])] for channel in group[piece.start : piece.stop]]
        return order


def _cuts(runs: Iterable[list[Piece]]) -> dict[Node, list[int]]:
    """Return, by value, the places where any of the pieces begins or ends, and both ends."""
    found: dict[Node, set[int]] = {}
    for piece in (piece for pieces in runs for piece in pieces):
        ends = found.setdefault(piece.value, {0, channels(piece.value)})
        ends.update((piece.start, piece.stop))
    return {value: sorted(ends) for value, ends in found.items()}


def _cut(pieces: list[Piece], cuts: dict[Node, list[int]]) -> list[Piece]:
    """Divide pieces where others begin or end."""
    return [
        Piece(piece.value, start, stop)
        for piece in pieces
        for start, stop in pairwise(cuts[piece.value])
        if piece.start <= start and stop <= piece.stop
    ]
