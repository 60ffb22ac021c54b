"""Choosing the blocks to remove at a step: those that cost the network least for what they save."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from lit_compress.callbacks._blocks.worth import MetricWorth, OutputWorth, Worth
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.example_inputs import ExampleInputs
from lit_compress.evaluation.run_view.copies import clone, in_run
from lit_compress.progress import track
from lit_compress.pruning.blocks.analysis import find_blocks
from lit_compress.pruning.blocks.block import BlockGraph, OfBlocks
from lit_compress.pruning.blocks.surgery import remove_blocks, without


@dataclass(frozen=True)
class Ranking:
    """How blocks are ranked.

    Attributes:
        of: What the removal of blocks saves.
        key: Key of the metric that may be lost; None for the outputs of the network.
        rises: Whether more of the metric is better.
        batches: Number of batches to measure on.
    """

    of: OfBlocks
    key: str | None
    rises: bool
    batches: int

    def worth(self, trainer: Trainer, copy: LightningModule, path: str) -> Worth:
        """Return what measures a copy of the network."""
        if self.key is None:
            return OutputWorth(trainer, copy, path, self.batches)
        return MetricWorth(trainer, copy, self.key, self.rises, self.batches)


@dataclass(frozen=True)
class Choice:
    """A block that is removed at a step.

    Attributes:
        name: Its name.
        kinds: By name of a module, what stands in its place.
        cost: How much worse the network became by it, on the batches that were measured.
    """

    name: str
    kinds: dict[str, str]
    cost: float


def choose_blocks(
    trainer: Trainer,
    module: LightningModule,
    example: ExampleInputs,
    graph: BlockGraph,
    removed: Collection[str],
    due: Fraction,
    ranking: Ranking,
) -> list[Choice]:
    """Choose the blocks to remove, one after the other, each time the one that costs least.

    What is left of the network is measured again after each. A block is taken only if the share
    then is nearer to the one that is due.

    Args:
        trainer: The run.
        module: The user's module; it does not change.
        example: Example inputs of the network.
        graph: The blocks of the unpruned network that may go.
        removed: Names of those that went.
        due: Share of the unpruned network that is due.
        ranking: How blocks are ranked.

    Returns:
        The blocks, in the order in which they are removed.

    Raises:
        InvalidArgumentError: If the network has no finite outputs, or no finite metric.
    """
    wanted = due * graph.total(ranking.of)
    out, chosen = graph.with_inner(removed), list[Choice]()
    if not _nearer(graph, out, wanted, ranking.of):
        return []
    with isolate_rng():
        copy = clone(trainer, module)
        worth = ranking.worth(trainer, copy, example.submodule)
        while names := _nearer(graph, out, wanted, ranking.of):
            with in_run(trainer, copy):
                found = find_blocks(copy, example.inputs, example.submodule, only=names)
            best = _cheapest(trainer, copy, found, graph, out, worth, ranking)
            if best is None:
                break
            chosen.append(best)
            remove_blocks(copy, best.kinds)
            out = graph.with_inner({*out, best.name})
    return chosen


def _cheapest(
    trainer: Trainer,
    copy: LightningModule,
    found: BlockGraph,
    graph: BlockGraph,
    out: Collection[str],
    worth: Worth,
    ranking: Ranking,
) -> Choice | None:
    """Return the block without which a copy of the network is least worse for what it saves.

    Args:
        trainer: The run.
        copy: The copy, without the blocks that went.
        found: The blocks of the copy.
        graph: The blocks of the unpruned network.
        out: Names of the blocks that went.
        worth: Measures the copy.
        ranking: How blocks are ranked.
    """
    best: tuple[float, float, Choice] | None = None
    for name, block in track(trainer, list(found.blocks.items()), "what blocks are worth"):
        with without(copy, block.kinds):
            cost = worth.loss()
        saved = max(1, graph.saved({*out, name}, ranking.of) - graph.saved(out, ranking.of))
        price = (cost / saved if cost > 0 else cost * saved, -saved)
        if best is None or price < best[:2]:
            best = (*price, Choice(name, dict(block.kinds), cost))
    if best is None:
        return None
    if not isfinite(best[0]):
        raise InvalidArgumentError(
            f"blocks cannot be ranked: {ranking.key or 'an output of the network'} is not finite "
            f"without {best[2].name}, nor without another block; the training has diverged (lower "
            "the learning rate, or start again from a checkpoint without NaN)"
        )
    return best[2]


def _nearer(graph: BlockGraph, out: Collection[str], wanted: Fraction, of: OfBlocks) -> list[str]:
    """Return the blocks without which the network is nearer to what is wanted."""
    now = abs(graph.saved(out, of) - wanted)
    return [
        name
        for name in graph.blocks
        if name not in out and abs(graph.saved({*out, name}, of) - wanted) < now
    ]
