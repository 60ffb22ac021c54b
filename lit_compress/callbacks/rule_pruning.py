"""Pruning by rules: elements of some layers, filters of others, in one run on one schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from typing_extensions import override

from lit_compress.callbacks._budget.contract import Contract, Mode
from lit_compress.callbacks._pruning.arguments import check_counts, one_of, plain
from lit_compress.callbacks._pruning.channels import ChannelPruning
from lit_compress.callbacks._pruning.rewind import reinitialize_linear
from lit_compress.callbacks._pruning.untrained import check_trained_in_time, never_trained
from lit_compress.callbacks._run.resuming import named
from lit_compress.errors import CheckpointError, InvalidArgumentError, PlanError, RuleError
from lit_compress.evaluation.trainer_access import is_fast_dev_run
from lit_compress.measure.cost import Inputs
from lit_compress.pruning import Schedule, pack, unpack
from lit_compress.pruning.channels.checks import check_module
from lit_compress.pruning.channels.plan import Plan
from lit_compress.pruning.channels.surgery import cut_tensor
from lit_compress.pruning.layers import plain_weights
from lit_compress.pruning.masks import Masks, Scope, exact_share
from lit_compress.pruning.rules.files import read_rules
from lit_compress.pruning.rules.masks import rule_masks
from lit_compress.pruning.rules.rule import DEFAULT, default_rules, overruled
from lit_compress.pruning.selection.by_rules import Resolved, RuleSelector, resolve
from lit_compress.pruning.selection.eligible import untrained_now
from lit_compress.pruning.selection.preview import PruningPreview
from lit_compress.pruning.selection.preview_weights import preview_weights
from lit_compress.pruning.selection.state import PruningState

DEFAULT_SCHEDULE = Schedule()
ShrinkOrNot = Literal["every", "end", "never"]


class RulePruning(ChannelPruning):
    """Prunes each layer by its rule: single weights, or whole filters.

    Works on any LightningModule. Weights that no rule matches are not pruned. Single weights are
    set to zero and kept there. Filters and neurons are removed from the network with everything
    that is coupled with them, or only set to zero (``shrink: never``), as the paper's original code
    does.

    Args:
        rules: Path of a rule file (YAML, or the original code's lines if it ends with ``.rule``),
            or ``default`` for the rules of the original code: filters of convolutions by their
            Euclidean norm, elements of linear layers by their magnitude.
        target: Ratio, in [0, 1), of the rules that have none of their own; the default rules need
            it.
        schedule: Epochs at which to prune. Default: each of the first two thirds of the run, cubic.
            A rule with a list of ratios uses one at each pruning step instead; the original code
            prunes at once (``one_shot``).
        scope: ``local`` prunes the same ratio of each layer that a rule matches, ``global`` ranks
            all these layers together.
        shrink: ``every`` removes filters at each pruning step; ``end`` keeps them at zero and
            removes them at the end of the fit; ``never`` only sets the filters' own weights to
            zero: the network keeps its shape, and the bias and the norm of a filter keep their
            values.
        round_to: The number of filters that a layer keeps, of those that can be removed, is a
            multiple of this; runtimes are fastest with multiples of 8.
        min_channels: Smallest number of channels that a layer keeps, where filters are removed.
        rewind: ``init`` sets the kept weights back to those at the start of the fit, after each
            pruning step; ``epoch k`` to those at the start of that epoch (lottery tickets). The
            optimizer restarts, the learning rate continues.
        reinitialize: ``linear`` initializes the linear layers again after the first pruning step,
            as the original code can.
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
        mode: Whether more of ``monitor`` is better (``max``) or less (``min``); ``auto`` tells it
            by the name or by the torchmetrics object that is logged, and otherwise asks.

    Example:
        >>> from lit_compress.callbacks import RulePruning
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 4))
        >>> preview = RulePruning(target=0.5, shrink="never").describe(net)
        >>> [(weight.name, weight.size, weight.left) for weight in preview.weights]
        [('0.weight', 216, 108), ('2.weight', 32, 16)]
    """

    def __init__(
        self,
        rules: str = DEFAULT,
        target: float | None = None,
        schedule: Schedule = DEFAULT_SCHEDULE,
        scope: Scope = "local",
        shrink: ShrinkOrNot = "every",
        round_to: int = 1,
        min_channels: int = 1,
        rewind: str | None = None,
        reinitialize: Literal["none", "linear"] = "none",
        recalibrate: int = 0,
        submodule: str | None = None,
        monitor: str | None = None,
        max_drop: float | None = None,
        mode: Mode = "auto",
    ) -> None:
        one_of("scope", scope, get_args(Scope))
        one_of("shrink", shrink, get_args(ShrinkOrNot))
        one_of("reinitialize", reinitialize, ("none", "linear"))
        check_counts(
            round_to=(round_to, 1), min_channels=(min_channels, 1), recalibrate=(recalibrate, 0)
        )
        if rewind is not None and reinitialize != "none":
            raise InvalidArgumentError(
                "rewind and reinitialize both set the weights after pruning: give only one"
            )
        ratio = None if target is None else exact_share(target)
        if rules == DEFAULT and ratio is None:
            raise InvalidArgumentError(
                "RulePruning needs the path of a rule file (rules), or a target for the default "
                "rules, such as target: 0.35"
            )
        self._written = () if rules == DEFAULT else read_rules(Path(rules), ratio)
        super().__init__(
            RuleSelector(self._written),
            target=Fraction(1),  # of the schedule: each rule has a ratio of its own
            schedule=schedule,
            monitor=monitor,
            rewind=rewind,
            shrink=shrink,
            recalibrate=recalibrate,
            submodule=submodule,
            contract=Contract(monitor, max_drop, mode),
        )
        self.rules = rules
        self.ratio = ratio
        self.scope = scope
        self.round_to = round_to
        self.min_channels = min_channels
        self.reinitialize = reinitialize
        self._rules = Resolved({}, {}, RuleSelector(()))
        self._untrained: frozenset[str] = frozenset()
        self._kept: Masks = {}
        self._packed: dict[str, Tensor] = {}
        self._total = 0
        self._goal = 0.0

    @override
    def arguments(self) -> dict[str, Any]:
        rules = [
            [rule.pattern, rule.granularity, rule.importance, str(rule.ratio)]
            + [str(stage) for stage in rule.stages]
            for rule in self._written
        ]
        return {
            "rules": rules or self.rules,
            "target": None if self.ratio is None else float(self.ratio),
            "schedule": plain(self.schedule),
            "scope": self.scope,
            "shrink": self.shrink,
            "round_to": self.round_to,
            "min_channels": self.min_channels,
            "rewind": self._rewind.spec,
            "reinitialize": self.reinitialize,
            "recalibrate": self.recalibrate,
            "submodule": self.submodule,
        }

    @property
    @override
    def goal(self) -> float:
        return self._goal

    @property
    def masks(self) -> Masks:
        """Boolean masks by weight name, True where the weight is kept."""
        return dict(self._kept)

    def describe(self, module: nn.Module, example_inputs: Inputs | None = None) -> PruningPreview:
        """Return what each rule would prune in a module; the module is not changed.

        Args:
            module: A LightningModule or any other module.
            example_inputs: Inputs of its forward; needed where filters are removed.
        """
        check_module(module)
        rules, untrained = self._resolved(module), untrained_now(module)
        selector = rules.selector
        if not selector.removes:
            rows = preview_weights(module, rules.all, untrained=untrained)
            return PruningPreview(weights=rows)
        if example_inputs is None:
            raise InvalidArgumentError(
                "example_inputs are needed to tell which filters can be removed"
            )
        state = selector.analyse(module, example_inputs, self.submodule or "")
        selection = selector.select(module, state)
        plan = state.plan(selection.selected)
        weights = preview_weights(module, rules.all, plan, untrained)
        return replace(selector.preview(module, state, selection), weights=weights)

    # --- fit -------------------------------------------------------------------------------------

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._selector = RuleSelector(self._written)  # until the module is known
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        steps = len(self._resolved_schedule.events())
        for rule in self._written:
            if rule.unreached(steps) and not is_fast_dev_run(trainer):
                raise RuleError(
                    f"{rule.place}: the rule has {len(rule.stages)} ratios, but the schedule has "
                    f"only {steps} pruning steps: set schedule.last later, every lower, or a shape "
                    "other than one_shot"
                )

    @override
    def start_anew(self) -> None:
        super().start_anew()
        self._kept, self._packed, self._total, self._goal = {}, {}, 0, 0.0

    @override
    def matches(self, pl_module: LightningModule) -> bool:
        own = dict(pl_module.named_parameters())
        kept = self._kept.items()
        return super().matches(pl_module) and all(
            name in own and own[name].shape == mask.shape for name, mask in kept
        )

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        self._rules = self._resolved(pl_module)
        self._untrained = never_trained(trainer, pl_module) - {*self._packed, *self._kept}
        check_trained_in_time(self, trainer, pl_module, {*self._rules.masked} - self._untrained)
        self._selector = self._rules.selector
        self._total = self._total or _weights(pl_module)
        if self._packed:
            with named(trainer):
                self._kept, self._packed = self._restored(pl_module), {}
        if not self._goal:
            self._goal = self._preview(pl_module).share
        still = [name for name in self._rules.all if name in self._untrained]
        if still:
            rank_zero_info(
                f"RulePruning: {len(still)} weights with a rule are not trained (requires_grad is "
                f"False) and stay as they are: {', '.join(still[:4])}" + (" ..." * bool(still[4:]))
            )
        lines = overruled(pl_module, self._written)
        if lines:
            shown = "; ".join(lines[:4]) + ("; ..." if len(lines) > 4 else "")
            rank_zero_info(f"RulePruning: {len(lines)} weights match several rules: {shown}")

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if not self._selector.removes:
            rank_zero_info(f"RulePruning: what will be zero\n{self._preview(pl_module)}")

    @override
    def after_planning(self, pl_module: LightningModule, plan: Plan) -> None:
        found = self._preview(pl_module, plan)
        self._goal = found.share
        rank_zero_info(f"RulePruning: what each rule prunes\n{found}")

    @override
    def after_analysis(self, pl_module: LightningModule, state: PruningState) -> None:
        """Warn of rules that remove no filters although they have a ratio."""
        idle = self._rules.selector.idle(pl_module, state)
        if idle and self._written:
            shown = "; ".join(f"{name} ({why})" for name, why in list(idle.items())[:4])
            rank_zero_warn(
                f"RulePruning: {len(idle)} layers have a rule that removes filters, but none of "
                f"their filters can be removed: {shown}" + ("; ..." if len(idle) > 4 else "")
            )

    @override
    def has_common_target(self) -> bool:
        return False

    @override
    def keeps_masks(self) -> bool:
        return True

    @override
    def prune(self, trainer: Trainer, pl_module: LightningModule, share: Fraction) -> float:
        self._waiting = []
        if self._state is not None:
            super().prune(trainer, pl_module, share)
        first = not self.history
        pending = self._pending_masks(pl_module)
        found = rule_masks(
            pl_module,
            self._rules.masked,
            share,
            stage=self._step(self._event).index,
            scope=self.scope,
            previous=self._kept,
            absent=pending,
        )
        for name in found:
            if not pl_module.get_parameter(name).requires_grad:  # it stays as it is
                found[name] = self._kept.get(name, torch.ones_like(found[name]))
                self._waiting += [name] if name not in self._untrained else []
        self._kept = found
        if first and self.reinitialize == "linear":
            reinitialize_linear(pl_module)
        self._update_masks(pl_module)
        left = sum(
            int(self._joined(name, pending).sum())
            if name in {*pending, *self._kept}
            else weight.numel()
            for name, weight in plain_weights(pl_module).items()
        )
        return 1 - left / self._total

    @override
    def after_removal(self, plan: Plan) -> None:
        super().after_removal(plan)
        for name, dims in plan.by_tensor().items():
            if name in self._kept:
                self._kept[name] = cut_tensor(self._kept[name], dims)

    @override
    def masks_of(self, pl_module: LightningModule) -> Masks:
        pending = self._pending_masks(pl_module)
        return {name: self._joined(name, pending) for name in {**pending, **self._kept}}

    # --- checkpoints ---------------------------------------------------------------------------

    @override
    def after_step_back(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._kept = self._restored(pl_module) if self._packed else {}
        self._packed = {}
        super().after_step_back(trainer, pl_module)

    @override
    def own_state(self) -> dict[str, Any]:
        masks = {name: pack(mask) for name, mask in self._kept.items()} or dict(self._packed)
        return {**super().own_state(), "masks": masks, "total": self._total, "goal": self._goal}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        try:
            self._packed = dict(state_dict["masks"])
            self._total, self._goal = int(state_dict["total"]), float(state_dict["goal"])
        except (KeyError, TypeError, ValueError) as error:
            raise PlanError(
                "the checkpoint's state of RulePruning is damaged "
                f"({type(error).__name__}: {error})"
            ) from error

    @override
    def progress(self) -> dict[str, Any]:
        return {**super().progress(), "of": "weights"}

    def _restored(self, module: nn.Module) -> Masks:
        weights = dict(module.named_parameters())
        try:
            return {name: unpack(bits, weights[name].shape) for name, bits in self._packed.items()}
        except (KeyError, InvalidArgumentError) as error:
            raise CheckpointError(
                f"the checkpoint's masks are of another network ({error}): build the module with "
                "the arguments it was trained with"
            ) from error

    # --- rules -----------------------------------------------------------------------------------

    def _resolved(self, module: nn.Module) -> Resolved:
        rules = self._written or default_rules(module, self.ratio or Fraction(0))
        selector = RuleSelector((), self.scope, self.round_to, self.min_channels)
        return resolve(module, rules, selector, removing=self.shrink != "never")

    def _preview(self, module: nn.Module, plan: Plan | None = None) -> PruningPreview:
        rows = preview_weights(module, self._rules.all, plan, self._untrained)
        return PruningPreview(weights=rows)

    def _joined(self, name: str, pending: Mapping[str, Tensor]) -> Tensor:
        """Return the mask of a weight that keeps what both masks keep."""
        found = [masks[name] for masks in (pending, self._kept) if name in masks]
        return found[0] if len(found) == 1 else found[0] & found[1]


def _weights(module: nn.Module) -> int:
    return sum(weight.numel() for weight in plain_weights(module).values())
