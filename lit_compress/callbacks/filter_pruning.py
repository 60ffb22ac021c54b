"""Filter-wise pruning: channels leave the network for good, while training goes on."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, get_args

from lightning.pytorch import LightningModule
from torch import nn
from typing_extensions import override

from lit_compress.callbacks._pruning.arguments import check_counts, check_patterns, one_of, plain
from lit_compress.callbacks._pruning.channels import ChannelPruning, Shrink
from lit_compress.errors import RuleError
from lit_compress.measure.cost import Inputs
from lit_compress.pruning import Schedule
from lit_compress.pruning.importance import Importance, ImportanceName, importance_of
from lit_compress.pruning.masks import Scope
from lit_compress.pruning.rules.files import read_rules
from lit_compress.pruning.rules.rule import Rule
from lit_compress.pruning.selection.budget import Of, Selection
from lit_compress.pruning.selection.preview import PruningPreview
from lit_compress.pruning.selection.state import PruningState
from lit_compress.pruning.selection.uniform import UniformSelector

DEFAULT_SCHEDULE = Schedule()


class FilterPruning(ChannelPruning):
    """Removes filters, and all that is tied to them, from the network while it trains.

    Works on any LightningModule: which channels go together is found by running its forward once.
    Layers really get smaller, so each epoch costs less than the one before; optimizers, schedulers
    and checkpoints go on. What will go and what cannot, and why, is printed before the training.

    Args:
        target: Share removed in the end, in [0, 1), of what ``of`` names. Reached by the last event
            of the schedule, never compounding.
        of: ``filters`` that can go, or all ``parameters`` or ``macs`` (multiply-accumulates of one
            forward) of the network.
        schedule: Epochs at which to prune. Default: each of the first two thirds of the run, cubic.
        scope: ``local`` takes the same share of each layer, ``global`` ranks all filters together.
        importance: How filters are ranked: ``l1`` or ``l2`` norm, ``bn_scale`` (of the norm behind
            them), ``taylor`` (effect on the loss, over the epoch before), ``fpgm`` (distance from
            the layer's other filters), ``random``, or a subclass of
            ``lit_compress.pruning.Importance``.
        include: Globs of the layers to prune, such as ``model.features.*``, or ``regex:`` and a
            regular expression. Default: all.
        exclude: Patterns of the layers to leave alone.
        rules: Path of a YAML rule file: a list of ``{pattern: glob, ratio: share}`` or
            ``{pattern: glob, skip: true}``; layers that no rule names lose the common share.
        round_to: The number of filters that stay, of those of a layer that can go, is a multiple of
            this; 8 is what runtimes like.
        min_channels: Channels that each layer keeps at least.
        shrink: ``every`` removes at each event; ``end`` holds them at zero and removes at the end
            of the fit: the same network, later.
        recalibrate: Training batches on which the statistics of batch norms are estimated anew
            after each event; they go through your ``validation_step``.
        submodule: Name of the module whose forward is followed, where it is not the
            LightningModule's own.
        monitor: Key that your ``validation_step`` logs, such as ``val_acc``; it is logged again as
            ``pruned/val_acc`` once the target is reached, NaN before: what ModelCheckpoint should
            watch to keep the best pruned weights.
        rewind: ``init`` sets the weights that stay back to those the fit began with, after each
            event, and ``epoch k`` to those at the start of that epoch (lottery tickets); the
            optimizer starts anew, the learning rate goes on.
    """

    def __init__(
        self,
        target: float,
        of: Of = "filters",
        schedule: Schedule = DEFAULT_SCHEDULE,
        scope: Scope = "local",
        importance: ImportanceName | Importance = "l2",
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        rules: str | None = None,
        round_to: int = 1,
        min_channels: int = 1,
        shrink: Shrink = "every",
        recalibrate: int = 0,
        submodule: str | None = None,
        monitor: str | None = None,
        rewind: str | None = None,
    ) -> None:
        super().__init__(
            target, schedule, monitor, rewind, shrink, min_channels, recalibrate, submodule
        )
        one_of("of", of, get_args(Of))
        one_of("scope", scope, get_args(Scope))
        one_of("shrink", shrink, get_args(Shrink))
        check_counts(
            round_to=(round_to, 1), min_channels=(min_channels, 1), recalibrate=(recalibrate, 0)
        )
        check_patterns(include=include, exclude=exclude)
        self.of = of
        self.importance = importance
        self.rules = rules
        self.round_to = round_to
        self.selector = UniformSelector(
            of,
            scope,
            importance_of(importance),
            list(include),
            list(exclude),
            _filter_rules(rules) if rules is not None else (),
            round_to,
            min_channels,
        )

    @override
    def arguments(self) -> dict[str, Any]:
        selector, named = self.selector, self.importance
        return {
            "target": float(self._target),
            "of": self.of,
            "schedule": plain(self.schedule),
            "scope": selector.scope,
            "importance": named if isinstance(named, str) else type(named).__name__,
            "include": list(selector.include),
            "exclude": list(selector.exclude),
            "rules": [[rule.pattern, str(rule.ratio)] for rule in selector.rules],
            "round_to": selector.round_to,
            "min_channels": selector.min_channels,
            "shrink": self.shrink,
            "recalibrate": self.recalibrate,
            "submodule": self.submodule,
            **({"rewind": self._rewind.spec} if self._rewind.spec else {}),
        }

    def describe(self, module: nn.Module, example_inputs: Inputs) -> PruningPreview:
        """Return what would go from a module, and what cannot and why; nothing is changed.

        With ``scope: global``, how much each layer loses depends on the weights it has by then;
        for ``taylor`` they are ranked by their norm here.

        Args:
            module: A LightningModule or any other.
            example_inputs: What its forward takes: a tensor, a tuple, or a mapping of keywords.
        """
        state = self.selector.open(module, example_inputs, self.submodule or "")
        selection = self.selector.select(module, state, self._target)
        return self.selector.preview(module, state, selection)

    @override
    def open(self, module: LightningModule, inputs: Inputs, submodule: str) -> PruningState:
        return self.selector.open(module, inputs, submodule)

    @override
    def choose(
        self, module: LightningModule, state: PruningState, share: Fraction, epoch: int | None
    ) -> Selection:
        progress = share / self._target if self._target else Fraction(1)
        return self.selector.select(module, state, share, progress, self._scores)

    @override
    def preview(
        self, module: LightningModule, state: PruningState, selection: Selection
    ) -> PruningPreview:
        return self.selector.preview(module, state, selection)

    @override
    def gradient_importances(self) -> Sequence[Importance]:
        importance = self.selector.importance
        return (importance,) if importance.needs_gradient else ()


def _filter_rules(path: str) -> tuple[Rule, ...]:
    """Return the rules of a file that says how many filters each layer loses, and no more."""
    rules = read_rules(path)
    for rule in rules:
        if rule.granularity == "element" or rule.stages or rule.importance is not None:
            what = (
                "granularity element"
                if rule.granularity == "element"
                else "a list of ratios"
                if rule.stages
                else "an importance of its own"
            )
            raise RuleError(f"{rule.place}: {what} is for RulePruning; FilterPruning takes none")
    return rules
