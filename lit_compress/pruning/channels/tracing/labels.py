"""Labels that follow channels through a network: coupled channels, frozen channels and reasons.

Every activation has a *twin*: an int32 tensor of its shape whose entries are the labels of the
channels its elements belong to, or :data:`UNLABELLED`. A twin is stored expanded (stride 0) along
each dimension in which it is constant, so in most of a network it is as small as a vector.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

#: Label of elements that belong to no channel that could be removed.
UNLABELLED = -1


@dataclass(frozen=True)
class Reason:
    """Reason why a channel cannot be removed.

    Attributes:
        why: The reason in words; the channel is the subject of the phrase.
        op: Name of the torch operation that causes it, empty if there is none.
        module: Name of the module that calls the operation.
        file: Source file of the call.
        line: Line number in the file, from 1.
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
    """Creates labels, and records which of them are tied together and which are frozen."""

    def __init__(self) -> None:
        self.count = 0
        self.reasons: list[Reason] = []
        self._ties: list[tuple[Tensor, Reason]] = []
        self._frozen: list[tuple[Tensor, int]] = []
        self._resolved: tuple[tuple[int, int, int], np.ndarray, np.ndarray] | None = None

    def fresh(self, count: int) -> Tensor:
        """Return ``count`` new labels."""
        labels = torch.arange(self.count, self.count + count, dtype=torch.int32)
        self.count += count
        return labels

    def freeze(self, twin: Tensor | None, reason: Reason) -> None:
        """Freeze the channels of a twin: they cannot be removed. The first reason counts."""
        if twin is None:
            return
        labels = torch.unique(core(twin))
        labels = labels[labels >= 0]
        if len(labels):
            self.reasons.append(reason)
            self._frozen.append((labels.long(), len(self.reasons) - 1))

    def tie(self, first: Tensor, second: Tensor, reason: Reason) -> None:
        """Tie two twins of the same shape position by position; freeze a label tied to no label."""
        first, second = shared_core(first, second)
        differ = first != second
        if not differ.any():
            return
        pairs = torch.stack([first[differ], second[differ]]).long()
        incomplete = (pairs < 0).any(0)
        if incomplete.any():
            self.freeze(pairs[:, incomplete].amax(0), reason)
            pairs = pairs[:, ~incomplete]
        # Encode each pair as one number, so that unique compares numbers.
        encoded = torch.unique(pairs[0] * self.count + pairs[1])
        distinct = torch.stack([encoded // self.count, encoded % self.count])
        self._ties.append((distinct, reason))

    def along(self, twin: Tensor, dim: int, reason: Reason) -> Tensor:
        """Return the labels along one dimension; labels with the same index there are tied."""
        size = twin.shape[dim]
        rows = core(twin).movedim(dim, 0)
        rows = rows.reshape(rows.shape[0], -1)
        if rows.shape[1] > 1:
            self.tie(rows, rows[:, :1].expand(rows.shape), reason)
        row = rows[:, 0] if rows.shape[1] == 1 else rows.amax(1)
        return row.expand(size) if len(row) == 1 else row

    def collapse(self, twin: Tensor, dims: Iterable[int], reason: Reason) -> Tensor:
        """Return a twin that is constant along dimensions; labels that differ only there are tied.

        Labels that lie along no other dimension are frozen, and the twin is without labels then.

        Args:
            twin: The twin.
            dims: The dimensions.
            reason: Why the labels are tied or frozen.
        """
        along = set(dims) & set(varying(twin))
        if not along:
            return twin
        if set(varying(twin)) <= along:
            self.freeze(twin, reason)
            return torch.full((1,) * twin.dim(), UNLABELLED, dtype=torch.int32).expand(twin.shape)
        first = core(twin)
        for dim in along:
            first = first.narrow(dim, 0, 1)
        self.tie(first.expand(twin.shape), twin, reason)
        return first.expand(twin.shape)

    def resolve(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the channel of each label, and the reason that freezes it.

        Returns:
            By label, the smallest label of its channel; by label, the index of the channel's first
            reason in ``reasons``, or -1 if the channel is not frozen.
        """
        known = self.count, len(self._ties), len(self._frozen)
        if self._resolved is None or self._resolved[0] != known:
            self._resolved = known, *self._resolve()
        return self._resolved[1:]

    def _resolve(self) -> tuple[np.ndarray, np.ndarray]:
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
        """Return the reason of the tie that contains most of the given labels.

        Args:
            member: By label, True for the labels that count.
        """
        counts = [(int(member[pairs[0].numpy()].sum()), reason) for pairs, reason in self._ties]
        most = max(counts, key=lambda pair: pair[0], default=(0, None))
        return most[1] if most[0] else None


def components(count: int, pairs: np.ndarray) -> np.ndarray:
    """Return the connected components of a graph.

    Args:
        count: Number of nodes.
        pairs: Edges, shape (2, edges).

    Returns:
        By node, the smallest node that is connected to it.
    """
    root = np.arange(count)
    while pairs.shape[1]:
        ends = root[pairs]
        low, high = ends.min(0), ends.max(0)
        separate = low != high
        if not separate.any():
            break
        np.minimum.at(root, high[separate], low[separate])
        while (root[root] != root).any():
            root = root[root]
        pairs = pairs[:, separate]
    return root


def spread(labels: Tensor, shape: torch.Size, dim: int) -> Tensor:
    """Return a twin of a given shape, with ``labels`` along one dimension."""
    sizes = [1] * len(shape)
    sizes[dim] = -1
    return labels.view(sizes).expand(shape)


def core(twin: Tensor) -> Tensor:
    """Return a twin without repetition: with size 1 along each expanded dimension."""
    return shared_core(twin)[0]


def shared_core(*twins: Tensor) -> tuple[Tensor, ...]:
    """Return twins of one shape, cut to size 1 along the dimensions that are expanded in all."""
    strides = [twin.stride() for twin in twins]
    shape = twins[0].shape
    expanded = [not any(along) for along in zip(*strides, strict=True)]
    if not any(expanded):
        return twins
    sizes = [min(1, n) if alike else n for n, alike in zip(shape, expanded, strict=True)]
    # One call, where narrowing takes one for each dimension.
    return tuple(twin.as_strided(sizes, own) for twin, own in zip(twins, strides, strict=True))


def compact(twin: Tensor) -> Tensor:
    """Return a twin expanded along every dimension in which it is constant."""
    small = core(twin)
    values = small.numpy()  # its operations on few numbers are faster than those of tensors
    for dim, size in enumerate(values.shape):
        if size > 1:
            first = values[(slice(None),) * dim + (slice(1),)]
            if (values == first).all():
                small, values = small.narrow(dim, 0, 1), first
    return small.expand(twin.shape)


def is_labelled(twin: Tensor) -> bool:
    """Tell whether a twin has any label."""
    return bool((core(twin).numpy() >= 0).any())


def varying(twin: Tensor) -> list[int]:
    """Return the dimensions along which a compact twin varies."""
    return [dim for dim, size in enumerate(core(twin).shape) if size > 1]
