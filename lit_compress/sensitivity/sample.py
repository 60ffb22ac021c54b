"""A fixed sample of the validation set, with the classes in the set's own proportions."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from lit_compress.errors import ScanError
from lit_compress.evaluation.loaders import unmoved

#: Where a batch that is a mapping may hold labels.
LABELS = ("label", "labels", "target", "targets", "y")
#: Images a batch of the sample.
BATCH = 512


@dataclass(frozen=True)
class Sample:
    """What a scan measures on.

    Attributes:
        batches: As a validation_step takes them.
        size: Number of examples.
        how: How they were drawn, in words.
    """

    batches: tuple[Any, ...]
    size: int
    how: str

    def __iter__(self) -> Iterator[Any]:
        return (self.batch(index) for index in range(len(self)))

    def __len__(self) -> int:
        return len(self.batches)

    def batch(self, index: int, clone: bool = True) -> Any:
        """Return a copy of a batch: a step may change what it is given.

        Args:
            index: Its number.
            clone: Whether tensors are copied too.
        """

        def copied(leaf: Any) -> Any:
            if isinstance(leaf, Tensor):
                return leaf.clone() if clone else leaf
            return copy.deepcopy(leaf)

        return tree_map(copied, self.batches[index])


def draw(loader: Any, size: int | None, seed: int = 0) -> Sample:
    """Draw a sample from a loader.

    Where labels are found (whole numbers, one an example), each class is drawn in its proportion;
    elsewhere the examples are drawn evenly. Batches that cannot be taken apart are taken whole.

    Args:
        loader: Gives the validation batches; an order drawn at random is that of the seed.
        size: Examples to draw; None takes all.
        seed: Another one draws others.

    Raises:
        ScanError: If the loader is empty.
    """
    with _repeatable(loader, seed):
        lengths, labels, apart = _survey(loader)
    total = sum(lengths)
    if not total:
        raise ScanError("there is no validation data to scan on: give the datamodule some")
    with _repeatable(loader, seed):
        return _drawn(loader, size, seed, lengths, labels, apart)


@contextmanager
def _repeatable(loader: Any, seed: int) -> Iterator[None]:
    """Let a loader that shuffles give the same order each time; nothing is drawn from the run."""
    with isolate_rng(), unmoved([loader]):
        torch.manual_seed(seed)
        for part in (loader, getattr(loader, "sampler", None)):
            if isinstance(generator := getattr(part, "generator", None), torch.Generator):
                generator.manual_seed(seed)
        yield


def _drawn(
    loader: Any,
    size: int | None,
    seed: int,
    lengths: Sequence[int],
    labels: np.ndarray | None,
    apart: bool,
) -> Sample:
    total = sum(lengths)
    if size is None or size >= total:
        return Sample(tuple(loader), total, f"all {total} validation examples")
    if not apart:
        chosen = np.unique(
            np.linspace(0, len(lengths) - 1, -(-size * len(lengths) // total)).round()
        )
        batches = tuple(batch for index, batch in enumerate(loader) if index in chosen)
        taken = sum(lengths[int(index)] for index in chosen)
        return Sample(batches, taken, f"{len(batches)} whole batches, {taken} examples")
    random = np.random.default_rng(seed)
    if labels is None:
        rows = np.sort(random.choice(total, size, replace=False))
        how = f"{size} of {total} validation examples, drawn evenly"
    else:
        rows = stratified(labels, size, random)
        how = f"{size} of {total} validation examples, each class in its proportion"
    return Sample(_collected(loader, lengths, rows), size, f"{how} (seed {seed})")


def stratified(labels: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """Return the rows of a sample that holds each class in its proportion, rising.

    Args:
        labels: The class of each row.
        size: Rows to draw.
        random: Draws them.
    """
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * size / len(labels)
    share = np.floor(exact).astype(int)
    left = size - int(share.sum())
    share[np.argsort(share - exact, kind="stable")[:left]] += 1
    rows = [
        random.choice(np.flatnonzero(labels == label), count, replace=False)
        for label, count in zip(classes, share, strict=True)
    ]
    drawn: np.ndarray = np.sort(np.concatenate(rows))
    return drawn


def _survey(loader: Any) -> tuple[list[int], np.ndarray | None, bool]:
    """Return the batches' lengths, all labels if there are any, and whether rows can be drawn."""
    lengths: list[int] = []
    labels: list[np.ndarray] = []
    apart = True
    kinds: set[Any] = set()
    for batch in loader:
        leaves, spec = tree_flatten(batch)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim()]
        length = len(tensors[0]) if tensors else 1
        apart &= bool(tensors) and all(
            isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == length for leaf in leaves
        )
        kinds.add((str(spec), *((leaf.shape[1:], leaf.dtype) for leaf in tensors)))
        lengths.append(length)
        found = _labels(batch)
        if found is not None and len(found) == length:
            labels.append(found.cpu().numpy())
    whole = len(labels) == len(lengths) and bool(labels)
    # Batches that are padded to a length of their own cannot be put together anew.
    return lengths, np.concatenate(labels) if whole else None, apart and len(kinds) == 1


def _labels(batch: Any) -> Tensor | None:
    candidates: Sequence[Any] = ()
    if isinstance(batch, Mapping):
        candidates = [batch[name] for name in LABELS if name in batch]
    elif isinstance(batch, (tuple, list)):
        candidates = list(batch[1:])
    for value in candidates:
        whole = isinstance(value, Tensor) and not value.is_floating_point()
        if whole and value.dim() == 1:
            return torch.as_tensor(value)
    return None


def _collected(loader: Any, lengths: Sequence[int], rows: np.ndarray) -> tuple[Any, ...]:
    """Return batches of the rows, a fixed number of them each."""
    starts = np.cumsum([0, *lengths])
    parts: list[list[Tensor]] = []
    spec: Any = None
    for batch, start, end in zip(loader, starts[:-1], starts[1:], strict=True):
        own = torch.from_numpy(rows[(rows >= start) & (rows < end)] - start)
        if len(own):
            leaves, spec = tree_flatten(batch)
            parts.append([leaf[own.to(leaf.device)] for leaf in leaves])
    joined = [torch.cat(column) for column in zip(*parts, strict=True)]
    pieces = zip(*(torch.split(leaf, BATCH) for leaf in joined), strict=True)
    return tuple(tree_unflatten(list(piece), spec) for piece in pieces)
