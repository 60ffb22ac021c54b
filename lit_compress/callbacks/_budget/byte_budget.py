"""How much to prune so that the int8 file has a given size, found by writing files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from lightning.pytorch import LightningModule, Trainer

from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.run_view.copies import clone
from lit_compress.evaluation.trainer_access import callbacks
from lit_compress.pruning import apply
from lit_compress.pruning.selection.state import PruningState
from lit_compress.pruning.selection.uniform import UniformSelector

#: The file has at least this share of the bytes.
USED = 0.95
#: Files that are written at most until one has the size.
TRIES = 10


class WritesInt8(ABC):
    """A callback that can tell how large the int8 file of a network is."""

    @abstractmethod
    def int8_bytes(self, trainer: Trainer, copy: LightningModule) -> int:
        """Return the size of ``model.onnx`` in bytes for a copy of the user's module."""


@dataclass(frozen=True)
class ByteBudget:
    """What was found for a budget of bytes.

    Attributes:
        share: Share of the parameters to remove.
        size: Bytes of the int8 file of the network without them.
        tries: Number of files that were written to find it.
    """

    share: Fraction
    size: int
    tries: int


def writer_of(trainer: Trainer) -> WritesInt8:
    """Return the callback that writes the int8 file of a run.

    Raises:
        InvalidArgumentError: If there is none.
    """
    for callback in callbacks(trainer):
        if isinstance(callback, WritesInt8):
            return callback
    raise InvalidArgumentError(
        "of: bytes is the size of the int8 file, and nothing writes one: add the "
        "PostTrainingQuantization callback"
    )


def share_for(
    trainer: Trainer,
    module: LightningModule,
    selector: UniformSelector,
    state: PruningState,
    budget: int,
) -> ByteBudget:
    """Find the share of the parameters to remove for a file of at most some bytes.

    The network is pruned on a copy and written, until the file has between 95 and 100 % of the
    bytes. The size depends on shapes alone, so the trained network has a file of the same size.

    Args:
        trainer: The run.
        module: The user's module; it does not change.
        selector: Selects the channels, by a share of the parameters.
        state: The pruning state of the network.
        budget: Largest size of the file.

    Raises:
        InvalidArgumentError: If the smallest file is larger.
    """
    writer = writer_of(trainer)

    def size(share: Fraction) -> int:
        chosen = replace(selector, target=share).select(module, state).selected
        copy = clone(trainer, module)
        apply(state.plan(chosen), copy)
        return writer.int8_bytes(trainer, copy)

    return _search(size, budget, state.budget.parameters)


def _search(size: Callable[[Fraction], int], budget: int, parameters: int) -> ByteBudget:
    """Return the share at which a size that falls with the share is just within a budget."""
    low, most = Fraction(0), size(Fraction(0))
    if most <= budget:
        return ByteBudget(low, most, 1)
    high, least = Fraction(99, 100), 0
    guess = min(high, Fraction(most - budget, parameters))  # a byte for each parameter
    best: ByteBudget | None = None
    for tries in range(2, TRIES + 1):
        found = size(guess)
        if found <= budget:
            best = ByteBudget(guess, found, tries)
            high, least = guess, found
        else:
            low, most = guess, found
        if best is not None and best.size >= USED * budget:
            return best
        if best is None and guess >= Fraction(99, 100):
            break
        guess = _between(low, most, high, least, budget)
    if best is None:
        raise InvalidArgumentError(
            f"target of {budget:,} bytes cannot be reached: the smallest file that was found has "
            f"{most:,}; raise target, or let more layers lose channels (include, exclude, "
            "min_channels, round_to)"
        )
    return best


def _between(low: Fraction, most: int, high: Fraction, least: int, budget: int) -> Fraction:
    """Return the share at which a line between two sizes has 98 % of the budget."""
    aim = Fraction(98 * budget, 100)
    share = low + (high - low) * (most - aim) / max(1, most - least)
    inside = (low + (high - low) / 20, high - (high - low) / 20)
    if least == 0:  # nothing small enough was found yet
        return min(high, max(share, low + Fraction(1, 50)))
    return min(max(share, inside[0]), inside[1])
