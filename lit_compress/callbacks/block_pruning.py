"""Block pruning: whole residual blocks are removed from the network while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, get_args

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn
from typing_extensions import override

from lit_compress.callbacks._blocks.choice import Choice, Ranking, choose_blocks
from lit_compress.callbacks._blocks.order import check_order
from lit_compress.callbacks._blocks.planning import (
    Patterns,
    kinds_of,
    plan_blocks,
    without_blocks,
)
from lit_compress.callbacks._blocks.record import BlockRecord
from lit_compress.callbacks._budget.contract import Contract, Mode
from lit_compress.callbacks._pruning.arguments import check_counts, check_patterns, one_of, plain
from lit_compress.callbacks._pruning.base import pruning_callbacks
from lit_compress.callbacks._pruning.channels import sizes_left
from lit_compress.callbacks._pruning.compatibility import check_callbacks
from lit_compress.callbacks._pruning.optimizers import check_optimizers, optimizers_of
from lit_compress.callbacks._pruning.weight_copies import check_weight_copies
from lit_compress.checkpoints.loading_line import checkpoint_line
from lit_compress.errors import InvalidArgumentError, RuleError
from lit_compress.evaluation.distributed import on_rank_zero, rewrap
from lit_compress.evaluation.example_inputs import ExampleInputs, find_example_inputs
from lit_compress.evaluation.loaders import validation_loaders
from lit_compress.evaluation.metric import check_logged, metric_rises
from lit_compress.evaluation.recalibrate import recalibrate
from lit_compress.evaluation.run_view.copies import clone
from lit_compress.measure.cost import Inputs
from lit_compress.pruning import Schedule
from lit_compress.pruning.blocks.analysis import find_blocks
from lit_compress.pruning.blocks.block import BlockGraph, OfBlocks
from lit_compress.pruning.blocks.eligible import check_reachable, eligible_blocks
from lit_compress.pruning.blocks.preview import BlockPreview
from lit_compress.pruning.blocks.surgery import remove_blocks
from lit_compress.pruning.masks import exact_share
from lit_compress.pruning.rules.files import read_rules
from lit_compress.pruning.rules.rule import Rule

DEFAULT_SCHEDULE = Schedule()


class BlockPruning(BlockRecord):
    """Removes whole residual blocks while the network trains: those that cost it least.

    A residual block adds a branch to its input. Without the branch the input goes on as it is, so
    the block can go without a change of any other layer. A small network spends much of its time
    between its layers, and only fewer layers save that.

    Works on any LightningModule: blocks are found by running its forward once, and each is tried.
    A preview of the blocks that may go, and of those that cannot and why, is printed before the
    training. Which of them go is measured at each pruning step: the block without which the network
    is least worse for what it saves goes first, then the others are measured again.

    Args:
        target: Share to remove by the end of the schedule, in [0, 1), of what ``of`` names. It is
            a share of the unpruned network, and never compounds. Whole blocks go, so the nearest
            share is taken.
        of: What ``target`` is a share of: the ``blocks`` that may go, all ``parameters``, ``macs``
            (multiply-accumulates of one forward of one example), or ``nodes`` (operations of a
            forward). What a block costs the network is weighed against it.
        schedule: Epochs at which to prune. Default: each of the first two thirds of the run, cubic.
        rank_by: Key that your ``validation_step`` logs, such as ``val_loss``; the block without
            which it is least worse goes first. Default: the error of the network's outputs.
        batches: Number of validation batches on which blocks are ranked.
        include: Globs of the blocks that may go, such as ``model.layer3.*``, or ``regex:`` and a
            regular expression. Default: all.
        exclude: Patterns of the blocks to keep.
        rules: Path of a YAML rule file with blocks to keep: ``{pattern: glob, skip: true}``.
        recalibrate: Number of training batches on which the statistics of batch norms are estimated
            again after each pruning step; the batches go through your ``validation_step``.
        submodule: Name of the module whose forward is analysed, if that is not the
            LightningModule's own.
        monitor: Key that your ``validation_step`` logs, such as ``val_acc``. It is logged again as
            ``pruned/val_acc``: NaN until the target is reached, then the metric. Let
            ModelCheckpoint watch it to keep the best pruned weights.
        max_drop: How much of ``monitor`` pruning may cost, such as 0.01, of the dense network that
            CompressionReport's ``baseline`` names, or else of this network just before its first
            pruning step. A step waits until the metric is within it again; if the last network
            breaks it, the run goes back to the last one that kept it.
        mode: Whether more of ``monitor`` and ``rank_by`` is better (``max``) or less (``min``);
            ``auto`` tells it by the name or by the torchmetrics object that is logged, and
            otherwise asks.

    Example:
        >>> from lit_compress.callbacks import BlockPruning
        >>> from torch import zeros
        >>> from torchvision.models import mobilenet_v2
        >>> preview = BlockPruning(0.3).describe(mobilenet_v2(), zeros(1, 3, 32, 32))
        >>> list(preview.graph.blocks)[:3]
        ['features.3', 'features.5', 'features.6']
    """

    removes_blocks = True

    def __init__(
        self,
        target: float,
        of: OfBlocks = "blocks",
        schedule: Schedule = DEFAULT_SCHEDULE,
        rank_by: str | None = None,
        batches: int = 8,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        rules: str | None = None,
        recalibrate: int = 0,
        submodule: str | None = None,
        monitor: str | None = None,
        max_drop: float | None = None,
        mode: Mode = "auto",
    ) -> None:
        one_of("of", of, get_args(OfBlocks))
        check_counts(batches=(batches, 1), recalibrate=(recalibrate, 0))
        check_patterns(include=include, exclude=exclude)
        contract = Contract(monitor, max_drop, mode)
        super().__init__(exact_share(target), schedule, monitor, contract=contract)
        self.target, self.of, self.rank_by, self.batches = target, of, rank_by, batches
        self.mode, self.recalibrate, self.submodule = mode, recalibrate, submodule
        given = () if rules is None else _skip_rules(rules)
        self.patterns = Patterns(list(include), list(exclude), given)
        self._example: ExampleInputs | None = None
        self._untried = False

    @override
    def arguments(self) -> dict[str, Any]:
        patterns = self.patterns
        return {
            "target": float(self.target),
            "of": self.of,
            "schedule": plain(self.schedule),
            "rank_by": self.rank_by,
            "batches": self.batches,
            "include": list(patterns.include),
            "exclude": list(patterns.exclude),
            "rules": [rule.pattern for rule in patterns.rules],
            "recalibrate": self.recalibrate,
            "submodule": self.submodule,
        }

    def describe(self, module: nn.Module, example_inputs: Inputs) -> BlockPreview:
        """Return which blocks may be removed, and which cannot be and why.

        The module is not changed. Which blocks go is measured in the fit.

        Args:
            module: A LightningModule or any other module.
            example_inputs: Inputs of its forward: a tensor, a tuple, or a mapping of keywords.
        """
        graph = find_blocks(module, example_inputs, self.submodule or "")
        patterns = self.patterns
        return BlockPreview(
            eligible_blocks(graph, patterns.include, patterns.exclude, patterns.rules)
        )

    # --- fit -------------------------------------------------------------------------------------

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            check_callbacks(self, trainer)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        check_order(self, trainer)
        optimizers = optimizers_of(trainer, pl_module)
        check_optimizers(type(self).__name__, optimizers, self.last_epoch > 0, what="blocks")
        with isolate_rng():
            on_rank_zero(trainer, lambda: self._prepare(trainer, pl_module))
            if self._graph is None:
                self._make_plan(trainer, pl_module)
            else:  # a resumed run may have other arguments
                check_reachable(self._graph, self.of, self._target)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._untried and self._graph is not None:  # after on_train_start of all callbacks
            self._untried = False
            prune = without_blocks(kinds_of(self._graph, list(self._graph.blocks)))
            on_rank_zero(trainer, lambda: check_weight_copies(trainer, pl_module, prune))
        super().on_train_epoch_start(trainer, pl_module)
        if not sizes_left(trainer, pl_module):  # else the callback that removes filters logs them
            self._log_sizes(trainer, pl_module)

    @override
    def prune(self, trainer: Trainer, pl_module: LightningModule, share: Fraction) -> float:
        graph = self._require_graph()
        chosen = on_rank_zero(
            trainer,
            lambda: self._choose(trainer, pl_module, graph, share),
            "it measures what blocks are worth",
        )
        for choice in chosen:
            remove_blocks(pl_module, choice.kinds, *optimizers_of(trainer, pl_module))
            self._removed.append(choice.name)
            rank_zero_info(
                f"{type(self).__name__}: {choice.name} is removed, which costs {choice.cost:.4g} "
                f"of {self.rank_by or 'the outputs'} before it is trained further"
            )
        if chosen:
            self._carry(pl_module)
            rewrap(trainer)
            for other in pruning_callbacks(trainer):
                if other is not self:
                    other.after_blocks_removed(trainer, pl_module)
        return graph.saved(self._removed, self.of) / max(1, graph.total(self.of))

    @override
    def after_pruning_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().after_pruning_step(trainer, pl_module)
        if self.recalibrate:
            recalibrate(trainer, pl_module, self.recalibrate)

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_end(trainer, pl_module)
        line = checkpoint_line(trainer, pl_module)
        if line is not None and self._removed:
            rank_zero_info(f"{type(self).__name__}: this loads the pruned network: {line}")

    # --- plan ------------------------------------------------------------------------------------

    def _prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find example inputs; only the process that chooses blocks needs them."""
        self._example = find_example_inputs(trainer, pl_module, self.submodule)
        if self.rank_by is not None:
            check_logged(trainer, pl_module, self.rank_by)

    def _make_plan(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the blocks on rank zero, and print which may be removed."""

        def plan() -> tuple[dict[str, Any], str]:
            found = plan_blocks(
                trainer, pl_module, self._require_example(), self.patterns, self.of, self._target
            )
            return found.to_dict(), str(BlockPreview(found))

        content, text = on_rank_zero(trainer, plan, "it plans which blocks go")
        self.begin_with(pl_module, BlockGraph.from_dict(content))
        self._untried = True
        count = len(self._resolved_schedule.events())
        rank_zero_info(
            f"{type(self).__name__}: what may be removed, up to {self.goal:.1%} of the {self.of}\n"
            f"{text}; steps: {count}"
        )

    def _choose(
        self, trainer: Trainer, pl_module: LightningModule, graph: BlockGraph, share: Fraction
    ) -> list[Choice]:
        ranking = Ranking(self.of, self.rank_by, self._rises(trainer, pl_module), self.batches)
        example = self._require_example()
        return choose_blocks(trainer, pl_module, example, graph, self._removed, share, ranking)

    def _rises(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        """Tell whether more of the metric is better that blocks are ranked by."""
        if self.rank_by is None or self.mode != "auto":
            return self.mode == "max"
        with isolate_rng():
            loaders, copy = validation_loaders(trainer), clone(trainer, pl_module)
            return metric_rises(trainer, copy, loaders, self.rank_by)

    def _log_sizes(self, trainer: Trainer, pl_module: LightningModule) -> None:
        graph = self._require_graph()
        left = {
            "parameters": sum(parameter.numel() for parameter in pl_module.parameters()),
            "macs": graph.macs - graph.saved(self._removed, "macs"),
            "nodes": graph.nodes - graph.saved(self._removed, "nodes"),
        }
        for word, number in left.items():
            pl_module.log(f"compress/{word}", float(number), on_step=False, on_epoch=True)

    def _require_example(self) -> ExampleInputs:
        if self._example is None:
            raise InvalidArgumentError(
                f"{type(self).__name__} has no example inputs yet: start a fit"
            )
        return self._example


def _skip_rules(path: str) -> tuple[Rule, ...]:
    """Return the rules of a file that keeps blocks and says nothing else."""
    rules = read_rules(path)
    for rule in rules:
        if rule.ratio is not None:
            raise RuleError(
                f"{rule.place}: a ratio is for filters and weights, and a block goes as a whole: "
                "keep the block by skip: true, or leave the rule out"
            )
    return rules
