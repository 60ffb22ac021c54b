"""Planning the removal of blocks on rank zero: search, checks, a dry run of the user's steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from lightning.pytorch import LightningModule, Trainer
from torch.optim import Optimizer

from lit_compress.callbacks._pruning.followers import find_followers
from lit_compress.callbacks.knowledge_distillation import KnowledgeDistillation
from lit_compress.errors import ChannelError, InvalidArgumentError
from lit_compress.evaluation.dry_run import Prune, failing_step
from lit_compress.evaluation.example_inputs import ExampleInputs
from lit_compress.evaluation.trainer_access import callbacks_of_type
from lit_compress.pruning.blocks.analysis import find_blocks
from lit_compress.pruning.blocks.block import BlockGraph, OfBlocks
from lit_compress.pruning.blocks.eligible import check_reachable, eligible_blocks
from lit_compress.pruning.blocks.surgery import remove_blocks
from lit_compress.pruning.rules.rule import Rule


@dataclass(frozen=True)
class Patterns:
    """Which blocks may go, see :func:`~lit_compress.pruning.blocks.eligible.eligible_blocks`."""

    include: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()
    rules: Sequence[Rule] = ()


def plan_blocks(
    trainer: Trainer,
    module: LightningModule,
    example: ExampleInputs,
    patterns: Patterns,
    of: OfBlocks,
    target: Fraction,
) -> BlockGraph:
    """Find the blocks that may be removed, and try the user's steps without them.

    Args:
        trainer: The run.
        module: The user's module; it does not change.
        example: Example inputs of the network.
        patterns: Which blocks may go.
        of: What the target is a share of.
        target: The share to remove.

    Raises:
        ChannelError: If no block can be removed.
        InvalidArgumentError: If the target cannot be reached, or an average of the weights follows
            the network.
    """
    followers = find_followers(trainer, module)
    if followers:
        name, followed = next(iter(followers.items()))
        raise InvalidArgumentError(
            f"blocks cannot be removed where a part of the module follows another: {name} is an "
            f"average of {followed}, and would keep its blocks; average in a later fit"
        )
    graph = find_blocks(module, example.inputs, example.submodule)
    graph = eligible_blocks(graph, patterns.include, patterns.exclude, patterns.rules)
    graph = _tried(trainer, module, _without_features(trainer, graph))
    check_reachable(graph, of, target)
    return graph


def without_blocks(kinds: Mapping[str, str]) -> Prune:
    """Return a function that removes blocks from a copy of a module."""

    def prune(copy: LightningModule, optimizers: Sequence[Optimizer]) -> None:
        remove_blocks(copy, kinds, *optimizers)

    return prune


def kinds_of(graph: BlockGraph, names: Collection[str]) -> dict[str, str]:
    """Return what stands in the place of modules without some blocks."""
    return {name: kind for one in names for name, kind in graph.blocks[one].kinds.items()}


def _without_features(trainer: Trainer, graph: BlockGraph) -> BlockGraph:
    """Return the blocks that have no layer whose outputs are compared with a teacher's."""
    found = callbacks_of_type(trainer, KnowledgeDistillation)
    layers = [layer for callback in found for layer in callback.features]
    kept = {
        name: f"has {layer}, which KnowledgeDistillation compares (features)"
        for name, block in graph.blocks.items()
        for layer in layers
        if any(layer == part or layer.startswith(f"{part}.") for part in block.kinds)
    }
    return _keeping(graph, kept)


def _keeping(graph: BlockGraph, kept: Mapping[str, str]) -> BlockGraph:
    """Return the blocks without some that stay, with the reason.

    Raises:
        ChannelError: If none is left.
    """
    left = {name: block for name, block in graph.blocks.items() if name not in kept}
    if not left:
        name, why = next(iter(kept.items()))
        raise ChannelError(f"no block can be removed: {name} {why} ({len(kept)} such)")
    return replace(graph, blocks=left, kept={**kept, **graph.kept})


def _tried(trainer: Trainer, module: LightningModule, graph: BlockGraph) -> BlockGraph:
    """Return the blocks without which the user's steps still run."""
    every = without_blocks(kinds_of(graph, list(graph.blocks)))
    failure = failing_step(trainer, module, every)
    if failure is None:
        return graph
    kept: dict[str, str] = {}
    for name in graph.blocks:
        alone = failing_step(trainer, module, without_blocks(kinds_of(graph, [name])))
        if alone is not None:
            kept[name] = f"{alone[0]} fails without it ({_told(alone[1])})"
    found = _keeping(graph, kept)
    rest = failing_step(trainer, module, without_blocks(kinds_of(found, list(found.blocks))))
    if rest is not None:
        raise InvalidArgumentError(
            f"{rest[0]} of {type(module).__name__} fails once all blocks are removed that may go "
            f"({_told(rest[1])}), and not without one of them alone: exclude some"
        )
    return found


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
