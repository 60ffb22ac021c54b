"""How much to prune so that the int8 file has a given size, found by writing files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import exp, log

from lightning.pytorch import LightningModule, Trainer

from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.run_view.copies import clone
from lit_compress.evaluation.trainer_access import callbacks
from lit_compress.pruning import apply
from lit_compress.pruning.selection.state import PruningState
from lit_compress.pruning.selection.uniform import UniformSelector

#: The file has at least this share of the bytes.
USED = 0.95
#: Share of the bytes that the search aims at.
AIM = 0.98
#: Largest share of the parameters that is tried.
MOST = 0.9995
#: Files that are written at most until one has the size.
TRIES = 10


class WritesInt8(ABC):
    """A callback that can write the int8 file of a network before it is trained."""

    @abstractmethod
    def int8_file(self, trainer: Trainer, copy: LightningModule) -> bytes:
        """Return the content of ``model.onnx`` for a copy of the user's module."""


@dataclass(frozen=True)
class ByteBudget:
    """What was found for a budget of bytes.

    Attributes:
        share: Share of the parameters to remove, as the selector is given it.
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
        "of: bytes and of: latency are the size and the time of the int8 file, and nothing writes "
        "one: add the PostTrainingQuantization callback"
    )


def share_for(
    trainer: Trainer,
    module: LightningModule,
    selector: Callable[[Fraction], UniformSelector],
    state: PruningState,
    budget: int,
) -> ByteBudget:
    """Find the share of the parameters to remove for a file of at most some bytes.

    The network is pruned on a copy and written, until the file has between 95 and 100 % of the
    bytes. The size depends on shapes alone, so the trained network has a file of the same size.

    Args:
        trainer: The run.
        module: The user's module; it does not change.
        selector: Returns what selects the channels, for a share of the parameters.
        state: The pruning state of the network.
        budget: Largest size of the file.

    Raises:
        InvalidArgumentError: If the smallest file is larger.
    """
    writer = writer_of(trainer)

    def size(share: Fraction) -> int:
        chosen = selector(share).select(module, state).selected
        copy = clone(trainer, module)
        apply(state.plan(chosen), copy)
        return len(writer.int8_file(trainer, copy))

    return _search(size, budget)


def _search(size: Callable[[Fraction], int], budget: int) -> ByteBudget:
    """Return the share at which a size that falls with the share is just within a budget."""
    low, high = (0.0, size(Fraction(0))), (MOST, 0)
    if low[1] <= budget:
        return ByteBudget(Fraction(0), low[1], 1)
    guess = 1 - (AIM * budget / low[1]) ** 0.5  # layers lose along both sides
    best: ByteBudget | None = None
    before: bool | None = None
    for tries in range(2, TRIES + 1):
        share = Fraction(guess).limit_denominator(1_000_000)
        found = size(share)
        again, before = before is (found <= budget), found <= budget
        if found <= budget:
            best, high = ByteBudget(share, found, tries), (guess, found)
        else:
            low = guess, found
        if best is not None and best.size >= USED * budget:
            return best
        if best is None and guess >= MOST:
            break
        guess = _between(low, high, AIM * budget, again) if tries < 4 or high[1] else MOST
    if best is None:
        raise InvalidArgumentError(
            f"target of {budget:,} bytes cannot be reached: the smallest file that was found has "
            f"{low[1]:,}; raise target, or let more layers lose channels (include, exclude, "
            "min_channels, round_to)"
        )
    return best


def _between(low: tuple[float, int], high: tuple[float, int], aim: float, again: bool) -> float:
    """Return the share at which a power of what is left has a size, through two sizes.

    Args:
        low: A share at which the size is too large, and the size.
        high: A share at which it is small enough, and the size; 0 if none was found yet.
        aim: The size.
        again: Whether the last two sizes were on the same side of the budget: the sizes are then no
            power, and half-way is nearer than small steps from that side.
    """
    if not high[1]:
        further = low[0] + (MOST - low[0]) / 3
        computed: float = 1 - (1 - low[0]) * (aim / low[1]) ** 0.7
        return min(MOST, max(further, computed))
    left = [log(1 - share) for share, _ in (low, high)]
    place: float = (log(low[1]) - log(aim)) / (log(low[1]) - log(high[1]))
    place = 0.5 if again else min(max(place, 0.05), 0.95)
    return min(MOST, 1 - exp(left[0] + (left[1] - left[0]) * place))
