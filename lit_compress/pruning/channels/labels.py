"""Labels that follow channels through a network: which go together, which cannot go, and why.

Every activation has a *twin*: an int32 tensor of its shape whose entries are the labels of the
channels its elements belong to, or :data:`UNLABELLED`. A twin is kept expanded (stride 0) along
each dimension in which it is constant, so that it is as small as a vector in most of a network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

#: The label of elements that belong to no channel that could go.
UNLABELLED = -1


@dataclass(frozen=True)
class Reason:
    """Why a channel cannot go.

    Attributes:
        why: What stands in the way.
        op: The operation that does, empty where there is none.
        module: Name of the module that called it.
        file: Source file of the call.
        line: Line in it.
    """

    why: str
    op: str = ""
    module: str = ""
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = [self.op] if self.op else []
        place += [f"in {self.module}"] if self.module else []
        place += [f"at {self.file}:{self.line}"] if self.file else []
        return f"{self.why} ({' '.join(place)})" if place else self.why


class Labels:
    """Makes labels, and keeps which are tied together and which are frozen."""

    def __init__(self) -> None:
        self.count = 0
        self.reasons: list[Reason] = []
        self._ties: list[tuple[Tensor, Reason]] = []
        self._frozen: list[tuple[Tensor, int]] = []

    def fresh(self, count: int) -> Tensor:
        """Return ``count`` new labels."""
        labels = torch.arange(self.count, self.count + count, dtype=torch.int32)
        self.count += count
        return labels

    def freeze(self, twin: Tensor | None, reason: Reason) -> None:
        """Say that the channels of a twin cannot go; the first reason given stays."""
        if twin is None:
            return
        labels = torch.unique(core(twin))
        labels = labels[labels >= 0]
        if len(labels):
            self.reasons.append(reason)
            self._frozen.append((labels.long(), len(self.reasons) - 1))

    def tie(self, first: Tensor, second: Tensor, reason: Reason) -> None:
        """Unite two twins of one shape position by position; beside no label, a label is frozen."""
        first, second = shared_core(first, second)
        differ = first != second
        if not differ.any():
            return
        pairs = torch.stack([first[differ], second[differ]]).long()
        bare = (pairs < 0).any(0)
        if bare.any():
            self.freeze(pairs[:, bare].amax(0), reason)
            pairs = pairs[:, ~bare]
        coded = torch.unique(pairs[0] * self.count + pairs[1])
        united = torch.stack([coded // self.count, coded % self.count])
        self._ties.append((united, reason))

    def along(self, twin: Tensor, dim: int, reason: Reason) -> Tensor:
        """Return the labels along one dimension, tying what shares an index of it."""
        size = twin.shape[dim]
        rows = core(twin).movedim(dim, 0)
        rows = rows.reshape(rows.shape[0], -1)
        if rows.shape[1] > 1:
            self.tie(rows, rows[:, :1].expand(rows.shape), reason)
        return rows.amax(1).expand(size) if rows.shape[0] == 1 else rows.amax(1)

    def resolve(self) -> tuple[np.ndarray, np.ndarray]:
        """Return, by label, the class it belongs to and the reason that class is frozen (or -1)."""
        pairs = [pairs for pairs, _ in self._ties]
        ties = torch.cat(pairs, 1).numpy() if pairs else np.empty((2, 0), np.int64)
        roots = components(self.count, ties)
        none = len(self.reasons)
        first = np.full(self.count, none, np.int64)
        for labels, reason in self._frozen:
            np.minimum.at(first, roots[labels.numpy()], reason)
        frozen = first[roots]
        return roots, np.where(frozen == none, -1, frozen)

    def tied_by(self, member: np.ndarray) -> Reason | None:
        """Return the reason of the tie that unites most of some labels.

        Args:
            member: By label, whether it is one of them.
        """
        counts = [(int(member[pairs[0].numpy()].sum()), reason) for pairs, reason in self._ties]
        most = max(counts, key=lambda pair: pair[0], default=(0, None))
        return most[1] if most[0] else None


def components(count: int, pairs: np.ndarray) -> np.ndarray:
    """Return, by node, the smallest node that is connected to it; ``pairs`` is (2, edges)."""
    root = np.arange(count)
    while pairs.shape[1]:
        ends = root[pairs]
        low, high = ends.min(0), ends.max(0)
        apart = low != high
        if not apart.any():
            break
        np.minimum.at(root, high[apart], low[apart])
        while (root[root] != root).any():
            root = root[root]
        pairs = pairs[:, apart]
    return root


def spread(labels: Tensor, shape: torch.Size, dim: int) -> Tensor:
    """Return the twin of ``shape`` with ``labels`` along one dimension."""
    sizes = [1] * len(shape)
    sizes[dim] = -1
    return labels.view(sizes).expand(shape)


def core(twin: Tensor) -> Tensor:
    """Return a twin without its repetition: size 1 along each dimension it is expanded in."""
    return shared_core(twin)[0]


def shared_core(*twins: Tensor) -> tuple[Tensor, ...]:
    """Return twins of one shape, cut to size 1 along each dimension that all are expanded in."""
    for dim in range(twins[0].dim()):
        if all(twin.stride(dim) == 0 for twin in twins):
            twins = tuple(twin.narrow(dim, 0, min(1, twin.shape[dim])) for twin in twins)
    return twins


def compact(twin: Tensor) -> Tensor:
    """Return a twin expanded along every dimension in which it is constant."""
    small = core(twin)
    for dim in range(small.dim()):
        if small.shape[dim] > 1:
            first = small.narrow(dim, 0, 1)
            if bool((small == first).all()):
                small = first
    return small.expand(twin.shape)


def varying(twin: Tensor) -> list[int]:
    """Return the dimensions along which a compact twin varies."""
    return [dim for dim, size in enumerate(core(twin).shape) if size > 1]
