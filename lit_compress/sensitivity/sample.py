"""Draw a fixed sample of the validation data, with the same class proportions as the whole."""

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

#: Keys under which a batch that is a mapping may have its labels.
LABELS = ("label", "labels", "target", "targets", "y")
#: Examples in each batch of the sample.
BATCH = 512
NO_DATA = "there is no validation data to scan on: add validation data to the datamodule"


@dataclass(frozen=True)
class Sample:
    """The validation data that a scan measures on; iterating gives copies of the batches.

    Attributes:
        batches: The batches, as a validation_step takes them.
        size: Number of examples in all batches.
        how: How the examples were drawn, in words.
    """

    batches: tuple[Any, ...]
    size: int
    how: str

    def __iter__(self) -> Iterator[Any]:
        return (self.batch(index) for index in range(len(self)))

    def __len__(self) -> int:
        return len(self.batches)

    def batch(self, index: int, clone: bool = True) -> Any:
        """Return a copy of a batch, because a validation_step may change its batch.

        Args:
            index: Number of the batch.
            clone: Whether to copy the tensors too.
        """

        def copied(leaf: Any) -> Any:
            if isinstance(leaf, Tensor):
                return leaf.clone() if clone else leaf
            return copy.deepcopy(leaf)

        return tree_map(copied, self.batches[index])


def draw(loader: Any, size: int | None, seed: int = 0) -> Sample:
    """Draw a sample from a loader.

    If each example has a label (a whole number), each class is drawn in its proportion; otherwise
    all examples have the same chance. Batches that cannot be split into examples, such as padded
    sequences of different lengths, are taken whole.

    Args:
        loader: The loader of the validation batches. If it shuffles, ``seed`` sets its order.
        size: Number of examples to draw, at least 1; None takes all.
        seed: Random seed of the sample.

    Raises:
        ScanError: If the loader has no examples.

    Example:
        >>> import torch
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> labels = torch.tensor([0] * 30 + [1] * 10)
        >>> loader = DataLoader(TensorDataset(torch.zeros(40, 2), labels), batch_size=16)
        >>> sample = draw(loader, 8)
        >>> sample.how
        '8 of 40 validation examples, each class in its proportion (seed 0)'
        >>> sample.batch(0)[1]
        tensor([0, 0, 0, 0, 0, 0, 1, 1])
    """
    with _repeatable(loader, seed):
        contents = _survey(loader)
    if not contents.total:
        raise ScanError(NO_DATA)
    with _repeatable(loader, seed):
        return _draw(loader, size, seed, contents)


@contextmanager
def _repeatable(loader: Any, seed: int) -> Iterator[None]:
    """Give a loader that shuffles the same order each time; the run's random state is not used."""
    with isolate_rng(), unmoved([loader]):
        torch.manual_seed(seed)
        for part in (loader, getattr(loader, "sampler", None)):
            if isinstance(generator := getattr(part, "generator", None), torch.Generator):
                generator.manual_seed(seed)
        yield


@dataclass(frozen=True)
class _Contents:
    """The examples that a loader has.

    Attributes:
        lengths: Number of examples in each batch.
        labels: The class of each example; None if the examples have no labels.
        splittable: Whether single examples can be taken from the batches.
    """

    lengths: list[int]
    labels: np.ndarray | None
    splittable: bool

    @property
    def total(self) -> int:
        """Number of examples."""
        return sum(self.lengths)


def _draw(loader: Any, size: int | None, seed: int, contents: _Contents) -> Sample:
    total, labels = contents.total, contents.labels
    if size is None or size >= total:
        return Sample(tuple(loader), total, f"all {total} validation examples")
    if not contents.splittable:
        return _whole_batches(loader, size, contents)
    random = np.random.default_rng(seed)
    if labels is None:
        rows = np.sort(random.choice(total, size, replace=False))
        how = f"{size} of {total} validation examples, drawn evenly"
    else:
        rows = stratified(labels, size, random)
        how = f"{size} of {total} validation examples, each class in its proportion"
    return Sample(_collect(loader, contents.lengths, rows), size, f"{how} (seed {seed})")


def _whole_batches(loader: Any, size: int, contents: _Contents) -> Sample:
    """Return a sample of batches in equal steps, with about ``size`` examples or more."""
    count = len(contents.lengths)
    wanted = -(-size * count // contents.total)
    chosen = np.unique(np.linspace(0, count - 1, wanted).round())
    batches = tuple(batch for index, batch in enumerate(loader) if index in chosen)
    taken = sum(contents.lengths[int(index)] for index in chosen)
    return Sample(batches, taken, f"{len(batches)} whole batches, {taken} examples")


def stratified(labels: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """Return the rows of a sample with each class in its proportion.

    The number of rows of a class is rounded by the largest remainder method, so that the numbers
    add up to ``size``.

    Args:
        labels: The class of each row, N.
        size: Number of rows to draw, at most N.
        random: The generator to draw with.

    Returns:
        The row numbers, rising.

    Example:
        >>> labels = np.array([0] * 6 + [1] * 3)
        >>> rows = stratified(labels, 3, np.random.default_rng(0))
        >>> labels[rows]
        array([0, 0, 1])
    """
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * size / len(labels)
    share = np.floor(exact).astype(int)
    missing = size - int(share.sum())
    share[np.argsort(share - exact, kind="stable")[:missing]] += 1
    rows = [
        random.choice(np.flatnonzero(labels == label), count, replace=False)
        for label, count in zip(classes, share, strict=True)
    ]
    drawn: np.ndarray = np.sort(np.concatenate(rows))
    return drawn


def _survey(loader: Any) -> _Contents:
    """Read all batches of a loader once, and return the examples that it has."""
    lengths: list[int] = []
    labels: list[np.ndarray] = []
    splittable = True
    kinds: set[Any] = set()
    for batch in loader:
        leaves, spec = tree_flatten(batch)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim()]
        length = len(tensors[0]) if tensors else 1
        splittable &= bool(tensors) and all(
            isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == length for leaf in leaves
        )
        kinds.add((str(spec), *((leaf.shape[1:], leaf.dtype) for leaf in tensors)))
        lengths.append(length)
        found = _labels(batch)
        if found is not None and len(found) == length:
            labels.append(found.cpu().numpy())
    labelled = len(labels) == len(lengths) and bool(labels)
    # Examples of batches with different padding cannot be joined into one batch.
    same_shape = len(kinds) == 1
    return _Contents(
        lengths, np.concatenate(labels) if labelled else None, splittable and same_shape
    )


def _labels(batch: Any) -> Tensor | None:
    """Return the labels of a batch: the first vector of whole numbers after the inputs."""
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


def _collect(loader: Any, lengths: Sequence[int], rows: np.ndarray) -> tuple[Any, ...]:
    """Return new batches of ``BATCH`` examples each, made of some rows of a loader."""
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
