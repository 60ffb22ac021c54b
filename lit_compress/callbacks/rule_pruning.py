"""Pruning by rules: elements of some layers, filters of others, in one run on one schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from typing_extensions import override

from lit_compress.callbacks._pruning.arguments import check_counts, one_of, plain
from lit_compress.callbacks._pruning.channels import ChannelPruning
from lit_compress.callbacks._pruning.rewind import reinitialize_linear
from lit_compress.errors import CheckpointError, InvalidArgumentError, PlanError, RuleError
from lit_compress.measure.cost import Inputs
from lit_compress.pruning import Schedule, pack, unpack
from lit_compress.pruning.channels.checks import check_module
from lit_compress.pruning.channels.plan import Plan
from lit_compress.pruning.channels.surgery import cut_tensor
from lit_compress.pruning.importance import Importance
from lit_compress.pruning.layers import plain_weights
from lit_compress.pruning.masks import Masks, Scope, exact_share
from lit_compress.pruning.rules.files import read_rules
from lit_compress.pruning.rules.masks import rule_masks
from lit_compress.pruning.rules.rule import DEFAULT, default_rules, overruled
from lit_compress.pruning.selection.budget import Selection
from lit_compress.pruning.selection.by_rules import Resolved, RuleSelector, resolve
from lit_compress.pruning.selection.preview import PruningPreview
from lit_compress.pruning.selection.rule_preview import RulePreview, rule_preview
from lit_compress.pruning.selection.state import PruningState

DEFAULT_SCHEDULE = Schedule()
ShrinkOrNot = Literal["every", "end", "never"]


class RulePruning(ChannelPruning):
    """Prunes each layer as a rule says: single weights, or whole filters, and how many.

    Works on any LightningModule. Weights that no rule names are left alone. Single weights are set
    to zero and held there; filters and neurons leave the network with all that is tied to them, or
    are only set to zero (``shrink: never``), as the paper's original code does.

    Args:
        rules: Path of a rule file (YAML, or the original code's lines if it ends with ``.rule``),
            or ``default`` for the rules that the original code makes: filters of convolutions by
            their Euclidean norm, elements of linear layers by their magnitude.
        target: Share, in [0, 1), that a rule without a ratio of its own takes in the end; the
            default rules need it.
        schedule: Epochs at which to prune. Default: each of the first two thirds of the run, cubic.
            A rule with a list of ratios takes one at each event instead; ``one_shot`` is what the
            original code does.
        scope: ``local`` takes the same share of each layer that a rule names, ``global`` ranks
            them all together.
        shrink: ``every`` removes filters at each event; ``end`` holds them at zero and removes at
            the end of the fit; ``never`` only sets the filters' own weights to zero: the network
            keeps its shape, and a bias or norm behind a filter stays.
        round_to: The number of filters that stay, of those of a layer that can go, is a multiple of
            this; 8 is what runtimes like.
        min_channels: Channels that each layer keeps at least, where filters are removed.
        rewind: ``init`` sets the weights that stay back to those the fit began with, after each
            event, and ``epoch k`` to those at the start of that epoch (lottery tickets); the
            optimizer starts anew, the learning rate goes on.
        reinitialize: ``linear`` draws linear layers anew after the first event, as the original
            code can.
        recalibrate: Training batches on which the statistics of batch norms are estimated anew
            after each event; they go through your ``validation_step``.
        submodule: Name of the module whose forward is followed, where it is not the
            LightningModule's own.
        monitor: Key that your ``validation_step`` logs, such as ``val_acc``; it is logged again as
            ``pruned/val_acc`` once the target is reached, NaN before: what ModelCheckpoint should
            watch to keep the best pruned weights.
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
    ) -> None:
        super().__init__(
            0.0, schedule, monitor, rewind, shrink, min_channels, recalibrate, submodule
        )
        one_of("scope", scope, get_args(Scope))
        one_of("shrink", shrink, get_args(ShrinkOrNot))
        one_of("reinitialize", reinitialize, ("none", "linear"))
        check_counts(
            round_to=(round_to, 1), min_channels=(min_channels, 1), recalibrate=(recalibrate, 0)
        )
        if rewind is not None and reinitialize != "none":
            raise InvalidArgumentError(
                "rewind and reinitialize both say what the weights become after pruning: give one"
            )
        ratio = None if target is None else exact_share(target)
        if rules == DEFAULT and ratio is None:
            raise InvalidArgumentError(
                "RulePruning needs the path of a rule file (rules), or a target for the default "
                "rules, such as target: 0.35"
            )
        self.rules = rules
        self.ratio = ratio
        self.scope = scope
        self.round_to = round_to
        self.reinitialize = reinitialize
        self._written = () if rules == DEFAULT else read_rules(Path(rules), ratio)
        self._target = Fraction(1)  # of the schedule: each rule has a target of its own
        self._rules = Resolved({}, {}, RuleSelector(()))
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

    def describe(self, module: nn.Module, example_inputs: Inputs | None = None) -> RulePreview:
        """Return what each rule would take from a module; nothing is changed.

        Args:
            module: A LightningModule or any other.
            example_inputs: What its forward takes; needed where filters are removed.
        """
        check_module(module)
        rules = self._resolved(module)
        if not rules.selector.removes:
            return rule_preview(module, rules.all, None, None)
        if example_inputs is None:
            raise InvalidArgumentError("example_inputs are needed to tell which filters can go")
        state = rules.selector.open(module, example_inputs, self.submodule or "")
        selection = rules.selector.select(module, state)
        preview = rules.selector.preview(module, state, selection)
        return rule_preview(module, rules.all, state.plan(selection.selected), preview)

    # --- fit -----------------------------------------------------------------------------------

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        self._kept, self._packed, self._total, self._goal = {}, {}, 0, 0.0
        events = len(self._resolved_schedule.events())
        for rule in self._written:
            if rule.unreached(events) and not trainer.fast_dev_run:  # type: ignore[attr-defined]
                raise RuleError(
                    f"{rule.place}: the rule has {len(rule.stages)} stages, but the schedule only "
                    f"{events} events: set schedule.last later, every lower, or shape other than "
                    "one_shot"
                )

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._rules = self._resolved(pl_module)
        self._total = self._total or _weights(pl_module)
        if self._packed:
            self._kept = self._restored(pl_module)
        if not self._goal:
            self._goal = rule_preview(pl_module, self._rules.all, None, None).share
        lines = overruled(pl_module, self._written)
        if lines:
            shown = "; ".join(lines[:4]) + ("; ..." if len(lines) > 4 else "")
            rank_zero_info(f"RulePruning: {len(lines)} weights have several rules: {shown}")

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if not self.removes_channels(pl_module):
            rank_zero_info(
                "RulePruning: what will be zero\n"
                f"{rule_preview(pl_module, self._rules.all, None, None)}"
            )

    @override
    def on_plan(self, pl_module: LightningModule, plan: Plan) -> None:
        found = rule_preview(pl_module, self._rules.all, plan, None)
        self._goal = found.share
        rank_zero_info(f"RulePruning: what each rule takes\n{found}")

    @override
    def removes_channels(self, module: LightningModule) -> bool:
        return self._rules.selector.removes

    def _needs_masks(self) -> bool:
        return True

    @override
    def prune(self, trainer: Trainer, pl_module: LightningModule, share: Fraction) -> float:
        if self._state is not None:
            super().prune(trainer, pl_module, share)
        first = not self.history
        stage = self._stage(trainer.current_epoch)
        held = self._held(pl_module)
        self._kept = rule_masks(
            pl_module, self._rules.masked, share, stage, self.scope, self._kept, held
        )
        if first and self.reinitialize == "linear":
            reinitialize_linear(pl_module)
        self._update_masks(pl_module)
        left = sum(
            int(self._both(name, held).sum()) if name in {*held, *self._kept} else weight.numel()
            for name, weight in plain_weights(pl_module).items()
        )
        return 1 - left / self._total

    @override
    def removed(self, plan: Plan) -> None:
        super().removed(plan)
        for name, dims in plan.by_tensor().items():
            if name in self._kept:
                self._kept[name] = cut_tensor(self._kept[name], dims)

    # --- what is removed -----------------------------------------------------------------------

    @override
    def open(self, module: LightningModule, inputs: Inputs, submodule: str) -> PruningState:
        state = self._rules.selector.open(module, inputs, submodule)
        idle = self._rules.selector.idle(module, state.graph)
        if idle and self._written:
            shown = "; ".join(f"{name} ({why})" for name, why in list(idle.items())[:4])
            rank_zero_warn(
                f"RulePruning: {len(idle)} layers have a rule to remove filters, and none can go: "
                + shown
                + ("; ..." if len(idle) > 4 else "")
            )
        return state

    @override
    def choose(
        self, module: LightningModule, state: PruningState, share: Fraction, epoch: int | None
    ) -> Selection:
        stage = len(self._resolved_schedule.events()) if epoch is None else self._stage(epoch)
        return self._rules.selector.select(module, state, share, stage, self._scores)

    @override
    def preview(
        self, module: LightningModule, state: PruningState, selection: Selection
    ) -> PruningPreview:
        return self._rules.selector.preview(module, state, selection)

    @override
    def gradient_importances(self) -> Sequence[Importance]:
        rules = tuple(rule for rule in self._written if rule.importance == "taylor")
        return RuleSelector(rules).gradient_importances()

    # --- checkpoints ---------------------------------------------------------------------------

    @override
    def state_dict(self) -> dict[str, Any]:
        masks = {name: pack(mask) for name, mask in self._kept.items()} or dict(self._packed)
        return {**super().state_dict(), "masks": masks, "total": self._total, "goal": self._goal}

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
                f"the checkpoint's masks are not of this network ({error}): build the module with "
                "the arguments it was trained with"
            ) from error

    # --- rules ---------------------------------------------------------------------------------

    def _resolved(self, module: nn.Module) -> Resolved:
        rules = self._written or default_rules(module, self.ratio or Fraction(0))
        selector = RuleSelector((), self.scope, self.round_to, self.min_channels)
        return resolve(module, rules, selector, removing=self.shrink != "never")

    def _stage(self, epoch: int) -> int:
        return max(0, sum(event <= epoch for event in self._resolved_schedule.events()) - 1)

    def _held(self, module: LightningModule) -> Masks:
        """Return the masks of channels that are gone but for their removal."""
        return super()._masks(module)

    def _both(self, name: str, held: Mapping[str, Tensor]) -> Tensor:
        found = [masks[name] for masks in (held, self._kept) if name in masks]
        return found[0] if len(found) == 1 else found[0] & found[1]

    @override
    def _masks(self, pl_module: LightningModule) -> Masks:
        held = self._held(pl_module)
        return {name: self._both(name, held) for name in {**held, **self._kept}}


def _weights(module: nn.Module) -> int:
    return sum(weight.numel() for weight in plain_weights(module).values())
