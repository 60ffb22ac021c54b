"""Filter-wise pruning: channels leave the network for good, while training goes on."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from lit_compress.callbacks.ddp import on_rank_zero, rewrap
from lit_compress.callbacks.example import Example, find_example
from lit_compress.callbacks.fitting import Fitting
from lit_compress.callbacks.hold import Hold
from lit_compress.callbacks.pruning import PruningCallback, check_patterns, plain
from lit_compress.callbacks.recalibrate import recalibrate
from lit_compress.callbacks.refusals import check_company, check_optimizers
from lit_compress.callbacks.rehearsal import rehearse
from lit_compress.errors import InvalidArgumentError, PlanError
from lit_compress.measure.cost import Inputs
from lit_compress.pruning import Schedule, apply, make_plan
from lit_compress.pruning.build import UNSEEN
from lit_compress.pruning.channels import verify
from lit_compress.pruning.describe import Outlook
from lit_compress.pruning.importance import (
    Importance,
    ImportanceName,
    importance_of,
    layer_scores,
)
from lit_compress.pruning.ledger import Gone, Ledger, ledger_of
from lit_compress.pruning.masks import Scope
from lit_compress.pruning.policy import Policy, parameter_names
from lit_compress.pruning.rules import read_rules
from lit_compress.pruning.selection import Of
from lit_compress.pruning.shapes import Original
from lit_compress.pruning.trace import named_tensors

DEFAULT_SCHEDULE = Schedule()


class FilterPruning(PruningCallback):
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
        include: Globs of the layers to prune, such as ``model.features.*``. Default: all.
        exclude: Globs of the layers to leave alone.
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
        shrink: Literal["every", "end"] = "every",
        recalibrate: int = 0,
        submodule: str | None = None,
        monitor: str | None = None,
    ) -> None:
        super().__init__(target, schedule, monitor)
        _one_of("of", of, get_args(Of))
        _one_of("scope", scope, get_args(Scope))
        _one_of("shrink", shrink, ("every", "end"))
        for name, value, low in (
            ("round_to", round_to, 1),
            ("min_channels", min_channels, 1),
            ("recalibrate", recalibrate, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise InvalidArgumentError(
                    f"{name} must be a whole number of at least {low}, got {value!r}"
                )
        check_patterns(include=include, exclude=exclude)
        self.of = of
        self.importance = importance
        self.rules = rules
        self.shrink = shrink
        self.recalibrate = recalibrate
        self.submodule = submodule
        self.policy = Policy(
            of,
            scope,
            importance_of(importance),
            list(include),
            list(exclude),
            read_rules(rules) if rules is not None else (),
            round_to,
            min_channels,
        )
        self._hold = Hold()
        self._fitting = Fitting()
        self._example: Example | None = None
        self._ledger: Ledger | None = None
        self._scores: dict[str, Tensor] = {}

    @override
    def arguments(self) -> dict[str, Any]:
        policy, named = self.policy, self.importance
        return {
            "target": float(self._target),
            "of": self.of,
            "schedule": plain(self.schedule),
            "scope": policy.scope,
            "importance": named if isinstance(named, str) else type(named).__name__,
            "include": list(policy.include),
            "exclude": list(policy.exclude),
            "rules": [[rule.pattern, str(rule.ratio)] for rule in policy.rules],
            "round_to": policy.round_to,
            "min_channels": policy.min_channels,
            "shrink": self.shrink,
            "recalibrate": self.recalibrate,
            "submodule": self.submodule,
        }

    def describe(self, module: nn.Module, example_inputs: Inputs) -> Outlook:
        """Return what would go from a module, and what cannot and why; nothing is changed.

        With ``scope: global``, how much each layer loses depends on the weights it has by then;
        for ``taylor`` they are ranked by their norm here.

        Args:
            module: A LightningModule or any other.
            example_inputs: What its forward takes: a tensor, a tuple, or a mapping of keywords.
        """
        ledger = self.policy.open(module, example_inputs, self.submodule or "")
        selection = self.policy.select(module, ledger, self._target)
        return self.policy.outlook(module, ledger, selection)

    # --- fit -----------------------------------------------------------------------------------

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._release()
        self._fitting.attach(pl_module)
        if stage != "fit":
            return
        self._ledger, self._scores = None, {}
        self._hold.clear()
        check_company(self, trainer)
        if self.policy.importance.needs_gradient and self._settled.first == 0:
            raise InvalidArgumentError(
                f"importance {type(self.policy.importance).__name__} needs the gradients of the "
                "epoch before an event: set schedule.first to 1 at least"
            )

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._release()

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        super().on_exception(trainer, pl_module, exception)
        self._fitting.undo(pl_module)
        self._release()  # after an exception, teardown is not called

    def _release(self) -> None:
        self._hold.release()
        self._fitting.detach()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._fitting.settle()
        if self.shrink == "every" and self._settled.events()[-1] > 0:
            check_optimizers(trainer.optimizers)
        with isolate_rng():
            on_rank_zero(trainer, lambda: self._look(trainer, pl_module))
            if self._ledger is None:
                opened, text = on_rank_zero(trainer, lambda: self._planned(trainer, pl_module))
                self._ledger = Ledger.from_dict(opened)
                rank_zero_info(f"FilterPruning: what will go\n{text}")
        if self.shrink == "end":
            self._hold.attach(trainer.optimizers)
            self._hold_masks(pl_module)

    def _look(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find an example input; only the process that decides needs one."""
        self._example = find_example(trainer, pl_module, self.submodule)

    def _planned(self, trainer: Trainer, pl_module: LightningModule) -> tuple[dict[str, Any], str]:
        """Return the ledger of the network, and what will go; try it on a copy."""
        example = self._seen()
        ledger = self.policy.open(pl_module, example.inputs, example.submodule)
        selection = self.policy.select(pl_module, ledger, self._target)
        if selection.clamped and self.of != "filters":
            most = ledger.saved(self.of, parameter_names(pl_module), selection.gone)
            raise InvalidArgumentError(
                f"target {float(self._target):g} of {self.of} cannot be reached: "
                f"{most / ledger.total(self.of):.3f} can go at most; lower target, or let more "
                "layers go (include, exclude, min_channels, round_to)"
            )
        self._say_clamped(selection.clamped)
        # Parts that the forward does not use are the training step's.
        unseen = any(frozen.reason == UNSEEN for frozen in ledger.graph.frozen)
        rehearse(trainer, pl_module, ledger.plan(selection.gone), training=unseen)
        return ledger.to_dict(), str(self.policy.outlook(pl_module, ledger, selection))

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self._scores = {}
        if self._ledger is not None:
            names = parameter_names(pl_module)
            words: tuple[Of, ...] = ("parameters", "macs")
            for word in words:
                left = self._ledger.total(word) - self._ledger.saved(word, names)
                pl_module.log(f"size/{word}", float(left), on_step=False, on_epoch=True)

    @override
    def prune(self, trainer: Trainer, pl_module: LightningModule, share: Fraction) -> float:
        ledger = self._opened()
        gone = frozenset(on_rank_zero(trainer, lambda: self._chosen(pl_module, share)))
        if self.shrink == "every":
            self._remove(trainer, pl_module, gone)
        ledger.gone = gone
        self._hold_masks(pl_module)
        if self.recalibrate:
            recalibrate(trainer, pl_module, self.recalibrate)
        return ledger.saved(self.of, parameter_names(pl_module)) / max(1, ledger.total(self.of))

    def _chosen(self, pl_module: LightningModule, share: Fraction) -> list[int]:
        """Return the classes to be gone, after a trial of their removal."""
        ledger, example = self._opened(), self._seen()
        progress = share / self._target
        selection = self.policy.select(pl_module, ledger, share, progress, self._scores)
        plan = ledger.plan(selection.gone)
        with isolate_rng():
            verify(pl_module, example.inputs, ledger.left(), plan, example.submodule)
        return sorted(selection.gone)

    def _remove(self, trainer: Trainer, pl_module: LightningModule, gone: Gone) -> None:
        """Cut channels out of the module and its optimizers."""
        ledger = self._opened()
        apply(ledger.plan(gone), pl_module, *trainer.optimizers)
        ledger.removed = gone
        rewrap(trainer)

    @override
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        self._hold.apply_to_gradients()
        if self._ledger is not None and self._scores_are_due(trainer):
            importance = self.policy.importance
            for name, score in layer_scores(pl_module, self._ledger.left(), importance).items():
                self._scores[name] = self._scores.get(name, torch.zeros(())) + score

    def _scores_are_due(self, trainer: Trainer) -> bool:
        due = self._target * self._settled.share(trainer.current_epoch + 1)
        return self.policy.importance.needs_gradient and due > self._done

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if not pl_module.automatic_optimization:
            self._hold.apply()

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._hold.apply()
        self._hold.release()
        if self._ledger is not None and self._ledger.removed != self._ledger.gone:
            self._remove_at_the_end(trainer, pl_module, self._ledger.gone)
        self._hold.clear()

    def _remove_at_the_end(self, trainer: Trainer, pl_module: LightningModule, gone: Gone) -> None:
        """Remove channels where no optimizer steps any more: states that cannot be cut may go."""
        try:
            self._remove(trainer, pl_module, gone)
        except PlanError as error:
            for optimizer in trainer.optimizers:
                optimizer.state.clear()
            self._remove(trainer, pl_module, gone)
            rank_zero_warn(
                f"FilterPruning: the optimizers start anew if this network is trained on, since "
                f"{error}"
            )

    # --- checkpoints ---------------------------------------------------------------------------

    @override
    def original(self) -> Original | None:
        return None if self._ledger is None else self._ledger.original()

    @override
    def complete(self, module: LightningModule) -> None:
        if self._ledger is not None:
            graph, tensors = self._ledger.graph, named_tensors(module)
            if all(tuple(tensors[n].shape) == shape for n, shape in graph.shapes.items()):
                apply(make_plan(graph, self._ledger.gone), module)

    @override
    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        if self._ledger is None:
            return state
        original = self._ledger.original().to_dict()
        ledger = self._ledger.to_dict()
        return {**state, "ledger": ledger, "scores": dict(self._scores), "original": original}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        try:
            super().load_state_dict(state_dict)
            ledger, original = state_dict.get("ledger"), state_dict.get("original")
            if (ledger is None) != (original is None) or not 0 <= self._done < 1:
                raise ValueError("its parts do not agree")
            scores = dict(state_dict["scores"]) if ledger is not None else {}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PlanError(
                "the checkpoint's state of FilterPruning is damaged "
                f"({type(error).__name__}: {error})"
            ) from error
        if ledger is not None:
            self._ledger, self._scores = Ledger.from_dict(ledger), scores

    @override
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        known = self._ledger.graph.shapes if self._ledger is not None else {}
        self._fitting.confirm(pl_module, checkpoint, known)
        if (ledger := ledger_of(checkpoint)) is not None:
            ledger.check(named_tensors(pl_module))
        super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def _opened(self) -> Ledger:
        if self._ledger is None:
            raise InvalidArgumentError("FilterPruning has not seen the network yet: start a fit")
        return self._ledger

    def _seen(self) -> Example:
        if self._example is None:
            raise InvalidArgumentError("FilterPruning has no example input yet: start a fit")
        return self._example

    @override
    def progress(self) -> dict[str, Any]:
        return {**super().progress(), "of": self.of}

    def _hold_masks(self, pl_module: LightningModule) -> None:
        """Hold at zero what is decided to go, until it is removed."""
        ledger = self._opened()
        if ledger.gone != ledger.removed:
            parameters = dict(pl_module.named_parameters())
            self._hold.hold(parameters, ledger.masks(parameters))

    def _say_clamped(self, names: Sequence[str]) -> None:
        if names:
            rank_zero_warn(
                f"FilterPruning: {len(names)} layers will keep more than their share, since "
                f"min_channels ({self.policy.min_channels}), and two of each group of a grouped "
                f"convolution, stay: {', '.join(names[:4])}" + (" ..." if len(names) > 4 else "")
            )


def _one_of(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InvalidArgumentError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
