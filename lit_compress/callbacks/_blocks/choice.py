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
        of: What is to be saved.
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
    gone, chosen = graph.with_inner(removed), list[Choice]()
    if not _nearer(graph, gone, wanted, ranking.of):
        return []
    with isolate_rng():
        copy = clone(trainer, module)
        worth = ranking.worth(trainer, copy, example.submodule)
        while names := _nearer(graph, gone, wanted, ranking.of):
            with in_run(trainer, copy):
                found = find_blocks(copy, example.inputs, example.submodule, only=names)
            best: tuple[float, float, Choice] | None = None
            for name, block in track(trainer, list(found.blocks.items()), "what blocks are worth"):
                with without(copy, block.kinds):
                    cost = worth.loss()
                saved = graph.saved({*gone, name}, ranking.of) - graph.saved(gone, ranking.of)
                saved = max(1, saved)
                price = (cost / saved if cost > 0 else cost * saved, -saved)
                if best is None or price < best[:2]:
                    best = (*price, Choice(name, dict(block.kinds), cost))
            if best is None:
                break
            if not isfinite(best[0]):
                raise InvalidArgumentError(
                    f"blocks cannot be ranked: {ranking.key or 'an output of the network'} is not "
                    f"finite without {best[2].name}, nor without another block; the training has "
                    "diverged (lower the learning rate, or start again from a checkpoint without "
                    "NaN)"
                )
            chosen.append(best[2])
            remove_blocks(copy, best[2].kinds)
            gone = graph.with_inner({*gone, best[2].name})
    return chosen


def _nearer(graph: BlockGraph, gone: Collection[str], wanted: Fraction, of: OfBlocks) -> list[str]:
    """Return the blocks without which the network is nearer to what is wanted."""
    now = abs(graph.saved(gone, of) - wanted)
    return [
        name
        for name in graph.blocks
        if name not in gone and abs(graph.saved({*gone, name}, of) - wanted) < now
    ]
