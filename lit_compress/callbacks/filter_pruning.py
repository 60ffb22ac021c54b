"""Filter pruning: channels are removed from the network while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn
from typing_extensions import override

from lit_compress.callbacks._budget.contract import Contract, Mode
from lit_compress.callbacks._budget.latency_budget import Stopwatch, Timed, TimesInt8
from lit_compress.callbacks._budget.resolve import resolve
from lit_compress.callbacks._budget.wanted import COUNTED, is_measured, wanted_of
from lit_compress.callbacks._pruning.arguments import check_counts, check_patterns, one_of, plain
from lit_compress.callbacks._pruning.channels import ChannelPruning, Shrink
from lit_compress.errors import InvalidArgumentError, RuleError
from lit_compress.measure.cost import Inputs
from lit_compress.pruning import Schedule
from lit_compress.pruning.channels.analysis import Norm
from lit_compress.pruning.importance import Importance, ImportanceName, importance_of
from lit_compress.pruning.masks import Scope
from lit_compress.pruning.rules.files import read_rules
from lit_compress.pruning.rules.rule import Rule
from lit_compress.pruning.selection.budget import Of
from lit_compress.pruning.selection.preview import PruningPreview
from lit_compress.pruning.selection.selector import ChannelSelector
from lit_compress.pruning.selection.state import PruningState
from lit_compress.pruning.selection.uniform import UniformSelector

DEFAULT_SCHEDULE = Schedule()
#: How the share of the network becomes those of its layers.
Allocations = Literal["auto", "uniform", "sensitivity"]


class FilterPruning(ChannelPruning, TimesInt8):
    """Removes filters, and everything that is coupled with them, while the network trains.

    Works on any LightningModule: the coupled channels are found by running its forward once. The
    layers become smaller, so each epoch costs less than the one before; optimizers, schedulers and
    checkpoints continue. A preview of what will be removed, and of what cannot be and why, is
    printed before the training.

    Layers that are not trained keep their filters. Those that a finetuning callback of Lightning
    trains later lose theirs once they are trained.

    Args:
        target: Share to remove by the end of the schedule, in [0, 1), of what ``of`` names. It is
            a share of the unpruned network, and never compounds. With ``of: bytes``, the largest
            size of the int8 file in bytes.
        of: What ``target`` is a share of: the prunable ``filters``, all ``parameters``, or
            ``macs`` (multiply-accumulates of one forward of one example). With ``submodule``, they
            are those of that part. ``bytes`` finds the share of the parameters for which
            ``model.onnx`` has 95 to 100 % of the target, by files of pruned copies before the
            training; it needs PostTrainingQuantization. ``latency`` is the time of ``model.onnx``:
            with 0.5, that of the pruned network takes at most half the time of that of the dense
            one, in ONNX Runtime on one thread of this machine. It is found by timed files before
            the training, and timed again at the end.
        schedule: Epochs at which to prune. Default: each of the first two thirds of the run, cubic.
        scope: ``local`` removes the same share of each layer, ``global`` ranks all filters
            together.
        importance: How filters are ranked: by their ``l1`` or ``l2`` norm, ``bn_scale`` (scale of
            the batch norm that follows), ``taylor`` (effect on the loss, over the epoch before),
            ``fpgm`` (distance from the layer's other filters), ``random``, or a subclass of
            ``lit_compress.pruning.Importance``.
        include: Globs of the layers to prune, such as ``model.features.*``, or ``regex:`` and a
            regular expression. Default: all.
        exclude: Patterns of the layers to keep whole.
        rules: Path of a YAML rule file: a list of ``{pattern: glob, ratio: share}`` or
            ``{pattern: glob, skip: true}``. Layers that no rule matches lose the common share.
        round_to: The number of filters that a layer keeps, of those that can be removed, is a
            multiple of this; runtimes are fastest with multiples of 8. ``auto`` times the layers
            and takes the largest multiple that costs no time on this machine. Default: ``auto``
            with ``of: latency``, as layers with odd numbers of filters can take longer than whole
            ones; otherwise 1.
        min_channels: Smallest number of channels that a layer keeps.
        shrink: ``every`` removes filters at each pruning step; ``end`` keeps them at zero and
            removes them at the end of the fit. Both give the same network.
        recalibrate: Number of training batches on which the statistics of batch norms are estimated
            again after each pruning step; the batches go through your ``validation_step``.
        submodule: Name of the module whose forward is analysed, if that is not the
            LightningModule's own. For the two networks of a GAN, give the Trainer a callback for
            each, with its submodule.
        monitor: Key that your ``validation_step`` logs, such as ``val_acc``. It is logged again as
            ``pruned/val_acc``: NaN until the target is reached, then the metric. Let
            ModelCheckpoint watch it to keep the best pruned weights.
        norm: ``exact`` keeps all channels that a norm over all channels reads: the residual stream
            of a transformer under its layer norms. ``approximate`` removes them too: the norm is
            then one of the channels that are left, so the network changes by more than what goes.
        rewind: ``init`` sets the kept weights back to those at the start of the fit, after each
            pruning step; ``epoch k`` to those at the start of that epoch (lottery tickets). The
            optimizer restarts, the learning rate continues.
        allocation: ``uniform`` removes the same share of each layer. ``sensitivity`` measures what
            each layer's filters are worth before the training, and removes those first that cost
            the outputs least for each parameter; it needs a trained network. ``auto`` is
            ``sensitivity`` for ``of: bytes`` with ``scope: local``, and else ``uniform``.
        max_drop: How much of ``monitor`` pruning may cost, such as 0.01, of the dense network that
            CompressionReport's ``baseline`` names, or else of this network just before its first
            pruning step. A step waits until the metric is within it again; if the last network
            breaks it, the run goes back to the last one that kept it.
        mode: Whether more of ``monitor`` is better (``max``) or less (``min``); ``auto`` tells it
            by the name or by the torchmetrics object that is logged, and otherwise asks.
        latency_batch: Batch size for the times of ``of: latency`` and ``round_to: auto``.

    Example:
        >>> from lit_compress.callbacks import FilterPruning
        >>> from torch import nn, zeros
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
        >>> preview = FilterPruning(0.5).describe(net, zeros(1, 3, 8, 8))
        >>> [(layer.name, layer.filters, layer.kept) for layer in preview.layers]
        [('0', 8, 4), ('2', 4, 4)]
    """

    follows_blocks = True

    def __init__(
        self,
        target: float,
        of: Of | Literal["bytes", "latency"] = "filters",
        schedule: Schedule = DEFAULT_SCHEDULE,
        scope: Scope = "local",
        importance: ImportanceName | Importance = "l2",
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        rules: str | None = None,
        round_to: int | Literal["auto"] | None = None,
        min_channels: int = 1,
        shrink: Shrink = "every",
        recalibrate: int = 0,
        submodule: str | None = None,
        monitor: str | None = None,
        rewind: str | None = None,
        norm: Norm = "exact",
        max_drop: float | None = None,
        mode: Mode = "auto",
        allocation: Allocations = "auto",
        latency_batch: int = 1,
    ) -> None:
        _check_choices(of=of, scope=scope, shrink=shrink, allocation=allocation, norm=norm)
        measured = is_measured(allocation, of, scope)
        wanted = wanted_of(target, of, measured, round_to, latency_batch)
        check_counts(min_channels=(min_channels, 1), recalibrate=(recalibrate, 0))
        check_patterns(include=include, exclude=exclude)
        selector = UniformSelector(
            target=wanted.share,
            of=wanted.counted,
            scope=scope,
            importance=importance_of(importance),
            include=list(include),
            exclude=list(exclude),
            rules=_filter_rules(rules) if rules is not None else (),
            round_to=wanted.multiple,
            min_channels=min_channels,
            norm=norm,
        )
        super().__init__(
            selector,
            target=wanted.share,
            schedule=schedule,
            monitor=monitor,
            rewind=rewind,
            shrink=shrink,
            recalibrate=recalibrate,
            submodule=submodule,
            contract=Contract(monitor, max_drop, mode),
        )
        self.selector, self.target, self.of = selector, target, of
        self.importance, self.rules, self.round_to = importance, rules, wanted.round_to
        self.min_channels, self._wanted = min_channels, wanted
        self._watch: Stopwatch | None = None
        self._timed: Timed | None = None

    @override
    def counted(self) -> str:
        of = COUNTED.get(self.of, self.of)
        named = {"filters": "prunable filters", "macs": "MACs"}
        return f" of the {named.get(of, of)}"

    @override
    def resolved_selector(
        self,
        trainer: Trainer,
        module: LightningModule,
        selector: ChannelSelector,
        state: PruningState,
    ) -> tuple[ChannelSelector, str]:
        wanted = self._wanted
        if not isinstance(selector, UniformSelector) or not wanted.unknown:
            return selector, ""
        example = self._require_example()
        found = resolve(trainer, module, selector, state, example, wanted, self._watch)
        self.take_selector(found.selector)
        self._watch = found.watch
        if found.latency is not None:
            self._timed = found.latency.timed
        return self._selector, found.text

    @override
    def time_again(self, file: Path) -> None:
        if self.of != "latency":
            return
        allowed = f"of at most {100 * (1 - float(self.target)):.1f} %"
        if self._watch is None:
            rank_zero_info(
                f"{type(self).__name__}: the int8 file is not timed again, as this fit was resumed "
                "and did not write that of the dense network"
            )
            return
        self._timed = self._watch.time(file.read_bytes())
        said = f"the int8 file takes {self._timed} of the dense one's time, {allowed}"
        rank_zero_info(f"{type(self).__name__}: {said}")
        if self._timed.interval[0] > 1 - self.target:
            rank_zero_warn(f"{type(self).__name__}: {said}")

    @override
    def take_selector(self, selector: ChannelSelector) -> None:
        self._selector = selector
        if isinstance(selector, UniformSelector):
            self.selector = selector
            if self.of in COUNTED:
                self._target = selector.target

    @override
    def progress(self) -> dict[str, Any]:
        asked: dict[str, Any] = {"bytes": int(self.target)} if self.of == "bytes" else {}
        if self._timed is not None:
            low, high = self._timed.interval
            asked["latency"] = {
                "allowed": round(1 - float(self.target), 6),
                "ratio": round(self._timed.ratio, 4),
                "interval": [round(low, 4), round(high, 4)],
                "batch": self._wanted.batch,
            }
        if self._state is not None and self.selector.shares:
            names = {index: group.name for index, group in enumerate(self._state.graph.groups)}
            shares = sorted(self.selector.shares.items())
            asked["shares"] = {names[index]: round(float(share), 4) for index, share in shares}
        return {**super().progress(), **asked}

    @override
    def own_state(self) -> dict[str, Any]:
        common, shares = super().own_state(), self.selector.shares
        if self.round_to == "auto":
            common["round_to"] = self.selector.round_to
        if not shares and self.of not in COUNTED:
            return common
        kept = {str(index): str(share) for index, share in shares.items()}
        return {**common, "share": str(self.selector.target), "shares": kept}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        given = state_dict.get("shares", {})
        shares = {int(index): Fraction(share) for index, share in given.items()}
        target = Fraction(state_dict.get("share", self.selector.target))
        round_to = int(state_dict.get("round_to", self.selector.round_to))
        if shares or self._wanted.unknown:
            found = replace(self.selector, target=target, shares=shares, round_to=round_to)
            self.take_selector(found)
        super().load_state_dict(state_dict)

    @override
    def has_common_target(self) -> bool:
        return not self.selector.rules  # their layers have ratios of their own

    @override
    def arguments(self) -> dict[str, Any]:
        selector, named = self.selector, self.importance
        return {
            "target": float(self.target),
            "of": self.of,
            "schedule": plain(self.schedule),
            "scope": selector.scope,
            "importance": named if isinstance(named, str) else type(named).__name__,
            "include": list(selector.include),
            "exclude": list(selector.exclude),
            "rules": [[rule.pattern, str(rule.ratio)] for rule in selector.rules],
            "round_to": self.round_to,
            "min_channels": selector.min_channels,
            "shrink": self.shrink,
            "recalibrate": self.recalibrate,
            "submodule": self.submodule,
            **({"norm": selector.norm} if selector.norm != "exact" else {}),
            **({"rewind": self._rewind.spec} if self._rewind.spec else {}),
        }

    def describe(self, module: nn.Module, example_inputs: Inputs) -> PruningPreview:
        """Return what would be removed from a module, and what cannot be and why.

        The module is not changed. With ``scope: global``, the share of a layer depends on the
        weights at the time of pruning; filters that ``taylor`` ranks are ranked by their norm here.

        Args:
            module: A LightningModule or any other module.
            example_inputs: Inputs of its forward: a tensor, a tuple, or a mapping of keywords.
        """
        state = self.selector.analyse(module, example_inputs, self.submodule or "")
        return self.selector.preview(module, state, self.selector.select(module, state))


def _check_choices(of: str, scope: str, shrink: str, allocation: str, norm: str) -> None:
    """Check the arguments that are one of a few words."""
    one_of("allocation", allocation, get_args(Allocations))
    one_of("of", of, (*get_args(Of), *COUNTED))
    one_of("scope", scope, get_args(Scope))
    one_of("shrink", shrink, get_args(Shrink))
    _check_norm(norm, shrink)


def _check_norm(norm: str, shrink: str) -> None:
    one_of("norm", norm, get_args(Norm))
    if norm == "approximate" and shrink == "end":
        raise InvalidArgumentError(
            "norm: approximate removes channels that norms read, and shrink: end keeps them at "
            "zero, where norms still read them: set shrink to every"
        )


def _filter_rules(path: str) -> tuple[Rule, ...]:
    """Return the rules of a file that has nothing but ratios of filters."""
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
