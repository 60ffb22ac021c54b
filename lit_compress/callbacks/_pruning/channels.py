"""What the callbacks that remove channels share: plan, surgery, and the record in checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from lit_compress.callbacks._budget.contract import Contract
from lit_compress.callbacks._pruning.compatibility import check_callbacks, check_target
from lit_compress.callbacks._pruning.optimizers import check_optimizers, optimizers_of
from lit_compress.callbacks._pruning.planning import (
    ResolvesSelector,
    plan_removal,
    select_and_verify,
)
from lit_compress.callbacks._pruning.weight_copies import check_weight_copies
from lit_compress.callbacks._pruning.weight_masks import mask_cost
from lit_compress.checkpoints.loading_line import checkpoint_line
from lit_compress.checkpoints.resize import CheckpointResizer
from lit_compress.errors import InvalidArgumentError, PlanError
from lit_compress.evaluation.distributed import on_rank_zero, rewrap
from lit_compress.evaluation.example_inputs import ExampleInputs, find_example_inputs
from lit_compress.evaluation.recalibrate import recalibrate
from lit_compress.evaluation.trainer_access import callbacks, is_fast_dev_run
from lit_compress.pruning import Schedule, apply, make_plan
from lit_compress.pruning.channels.plan import Plan
from lit_compress.pruning.channels.tracing.modules import named_tensors
from lit_compress.pruning.channels.unpruned import UnprunedShapes, carried, carry
from lit_compress.pruning.importance import layer_scores
from lit_compress.pruning.layers import plain_weights
from lit_compress.pruning.masks import Masks
from lit_compress.pruning.selection.analysis import left_over, parameter_names
from lit_compress.pruning.selection.selector import LAST_STEP, ChannelSelector, PruningStep
from lit_compress.pruning.selection.state import Channels, PruningState, pruning_states_of

Shrink = Literal["every", "end"]


class ChannelPruning(ResolvesSelector):
    """Removes the channels that a selector selects, at the steps of a schedule.

    Args:
        selector: Selects the channels at each step.
        target: Share to prune at the end of the schedule.
        schedule: Epochs at which to prune.
        monitor: Key that ``validation_step`` logs; logged again under ``pruned/`` once the target
            is reached.
        rewind: ``init`` or ``epoch k``: the weights to go back to after each pruning step.
        shrink: Remove channels at each step (``every``), or keep them at zero and remove them at
            the end of the fit (``end``).
        recalibrate: Number of training batches on which batch norm statistics are estimated again
            after each step.
        submodule: Name of the module whose forward is analysed.
        contract: How much of the metric pruning may cost.
    """

    def __init__(
        self,
        selector: ChannelSelector,
        target: Fraction,
        schedule: Schedule,
        monitor: str | None,
        rewind: str | None,
        shrink: str,
        recalibrate: int,
        submodule: str | None,
        contract: Contract,
    ) -> None:
        super().__init__(target, schedule, monitor, rewind, contract)
        self.shrink = shrink
        self.recalibrate = recalibrate
        self.submodule = submodule
        self._selector = selector
        self._state: PruningState | None = None
        self._scores: dict[str, Tensor] = {}
        self._earlier = UnprunedShapes()
        self._resizer = CheckpointResizer()
        self._example: ExampleInputs | None = None
        self._planned: Plan | None = None

    # --- what a subclass may add -----------------------------------------------------------------

    def after_analysis(self, pl_module: LightningModule, state: PruningState) -> None:
        """Called on rank zero after the network was analysed, with the reasons of the graph."""

    def take_selector(self, selector: ChannelSelector) -> None:
        """Called on each rank with the selector whose target is known now."""

    def after_planning(self, pl_module: LightningModule, plan: Plan) -> None:
        """Called before the training, with the plan for the end of the schedule."""

    def after_removal(self, plan: Plan) -> None:
        """Called after channels were removed: remove them from copies of the weights too."""
        self._rewind.cut(plan)

    def kept_outputs(self, layer: str) -> list[int] | None:
        """Return which of a layer's outputs were not removed; None if none of them were.

        Args:
            layer: Name of a layer with a weight.
        """
        if self._state is None:
            return None
        for dim in (0, 1):
            channels = self._state.graph.channel_of.get((f"{layer}.weight", dim))
            role = self._state.graph.roles.get((f"{layer}.weight", dim))
            if channels is not None and role in ("filter", "depthwise", "scale"):
                removed = np.isin(channels, list(self._state.removed))
                return np.flatnonzero(~removed).tolist() if removed.any() else None
        return None

    def masks_of(self, pl_module: LightningModule) -> Masks:
        """Return masks of the weights to keep at zero: those of channels not removed yet."""
        return self._pending_masks(pl_module)

    def has_common_target(self) -> bool:
        """Tell whether the target is a share of the whole network, and not of each layer."""
        return True

    def keeps_masks(self) -> bool:
        """Tell whether weights are kept at zero during the training."""
        return self.shrink == "end"

    @override
    def after_blocks_removed(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._state is not None and not self.history:
            with isolate_rng():
                self._make_plan(trainer, pl_module)

    # --- fit -------------------------------------------------------------------------------------

    @override
    def earliest(self, epoch: int) -> int:
        # Gradients are added up in the epoch before the first step, which must be known by then.
        return super().earliest(epoch + bool(self._selector.gradient_importances()))

    @override
    def start_anew(self) -> None:
        super().start_anew()
        self._state, self._scores, self._earlier = None, {}, UnprunedShapes()

    @override
    def matches(self, pl_module: LightningModule) -> bool:
        if self._state is None:
            return True
        try:
            self._state.check(named_tensors(pl_module))
        except PlanError:  # another callback has pruned it since
            return False
        return True

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._release()
        if self not in _removers(trainer)[1:]:  # one of several gives the module its shapes
            self._resizer.attach(pl_module)
        if stage != "fit":
            return
        check_callbacks(self, trainer)
        importances = self._selector.gradient_importances()
        if importances and self.first_epoch == 0 and not is_fast_dev_run(trainer):
            raise InvalidArgumentError(
                f"importance {type(importances[0]).__name__} needs the gradients of the epoch "
                "before a pruning step: set schedule.first to 1 at least"
            )

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._resizer.accept()
        if self._state is not None:
            self._carry(pl_module)  # the weights may be those of a checkpoint
        if self._selector.removes:
            if self.shrink == "every":
                optimizers = optimizers_of(trainer, pl_module)
                check_optimizers(type(self).__name__, optimizers, self.last_epoch > 0)
            with isolate_rng():
                on_rank_zero(trainer, lambda: self._find_example(trainer, pl_module))
                if self._state is None:
                    self._make_plan(trainer, pl_module)
                elif self._selector.of != "filters":  # a resumed run may have other arguments
                    on_rank_zero(trainer, lambda: self._check_target(pl_module))
        if self.keeps_masks():
            self._weight_masks.attach(trainer.optimizers)
            self._update_masks(pl_module)
            weights = plain_weights(pl_module).values()
            rank_zero_info(f"{type(self).__name__}: {mask_cost(trainer, weights)}")

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._planned is not None:  # after on_train_start of all callbacks
            plan, self._planned = self._planned, None

            def prune(copy: LightningModule, optimizers: Sequence[Optimizer]) -> None:
                apply(plan, copy, *optimizers)

            on_rank_zero(trainer, lambda: check_weight_copies(trainer, pl_module, prune))
        super().on_train_epoch_start(trainer, pl_module)
        self._scores = {}
        if self not in _removers(trainer)[:-1]:  # all others have pruned by now
            self._log_sizes(trainer, pl_module)

    @override
    def prune(self, trainer: Trainer, pl_module: LightningModule, share: Fraction) -> float:
        state = self._require_state()
        step = self._step(self._event)
        chosen, self._waiting = on_rank_zero(
            trainer,
            lambda: select_and_verify(
                self._selector, state, self._require_example(), pl_module, step, self._scores
            ),
            "it chooses channels and tries their removal",
        )
        selected = frozenset(chosen)
        if self.shrink == "every":
            self._remove_channels(trainer, pl_module, selected)
        else:
            state.select(selected)
        self._update_masks(pl_module)
        of = self._selector.of
        names = parameter_names(pl_module, state.submodule)
        return state.saved(of, names) / max(1, state.total(of))

    @override
    def after_pruning_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().after_pruning_step(trainer, pl_module)
        if self.recalibrate:
            recalibrate(trainer, pl_module, self.recalibrate)

    @override
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        self._weight_masks.apply_to_gradients()
        if self._state is not None and self._scores_are_due(trainer):
            for importance in self._selector.gradient_importances():
                found = layer_scores(pl_module, self._state.current_graph(), importance)
                for name, score in found.items():
                    self._scores[name] = self._scores.get(name, torch.zeros(())) + score

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        if self._state is not None and self._state.pending:
            self._remove_at_the_end(trainer, pl_module, self._state.selected)
        self._weight_masks.clear()

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_end(trainer, pl_module)
        if self._state is not None and self._state.pending and self.keeps_masks():
            # A fit that is resumed after its last epoch trains nothing, and skips on_train_end.
            self._remove_at_the_end(trainer, pl_module, self._state.selected)
        line = checkpoint_line(trainer, pl_module)
        if line is not None and self._state is not None and self._state.removed:
            rank_zero_info(f"{type(self).__name__}: this loads the pruned network: {line}")

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        super().on_exception(trainer, pl_module, exception)
        self._resizer.undo(pl_module)
        self._release()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._release()

    def _release(self) -> None:
        self._weight_masks.detach()
        self._resizer.detach()

    # --- plan and surgery ------------------------------------------------------------------------

    def _step(self, epoch: int | None = None) -> PruningStep:
        """Return the step of the schedule that is due at an epoch; the last one by default."""
        if epoch is None:
            return LAST_STEP
        index = max(0, sum(event <= epoch for event in self._resolved_schedule.events()) - 1)
        return PruningStep(self._resolved_schedule.share(epoch), index)

    def _find_example(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find example inputs; only the process that selects channels needs them."""
        self._example = find_example_inputs(trainer, pl_module, self.submodule)

    def _make_plan(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Analyse the network on rank zero, and print what will be removed."""
        content, selected, text, self._selector = on_rank_zero(
            trainer,
            lambda: plan_removal(
                self,
                self._selector,
                self._require_example(),
                trainer,
                pl_module,
                after_analysis=lambda state: self.after_analysis(pl_module, state),
                has_common_target=self.has_common_target(),
            ),
            "it analyses the network and tries the removal",
        )
        self.take_selector(self._selector)
        self._state = PruningState.from_dict(content)
        self._earlier = carried(pl_module) or UnprunedShapes()
        self._planned = self._state.plan(frozenset(selected))
        self.after_planning(pl_module, self._planned)
        count = len(self._resolved_schedule.events())
        rank_zero_info(f"{type(self).__name__}: what will be removed\n{text}; steps: {count}")

    def _check_target(self, pl_module: LightningModule) -> None:
        state = self._require_state()
        selection = self._selector.select(pl_module, state)
        check_target(pl_module, state, selection, self._selector.of, self.goal)

    def _remove_channels(
        self, trainer: Trainer, pl_module: LightningModule, selected: Channels
    ) -> None:
        """Remove channels from the module and its optimizers."""
        state = self._require_state()
        plan = state.plan(selected)
        apply(plan, pl_module, *optimizers_of(trainer, pl_module))
        self.after_removal(plan)
        state.select(selected)
        state.commit()
        self._carry(pl_module)
        rewrap(trainer)

    def _remove_at_the_end(
        self, trainer: Trainer, pl_module: LightningModule, selected: Channels
    ) -> None:
        """Remove channels after the last optimizer step: optimizer state may be dropped."""
        try:
            self._remove_channels(trainer, pl_module, selected)
        except PlanError as error:
            for optimizer in optimizers_of(trainer, pl_module):
                optimizer.state.clear()
            self._remove_channels(trainer, pl_module, selected)
            rank_zero_warn(
                f"{type(self).__name__}: the state of the optimizers was dropped, and they start "
                f"without it if this network is trained further, since {error}"
            )

    def _log_sizes(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for word, left in sizes_left(trainer, pl_module).items():
            # The second is the name of earlier versions, which checkpoints of a run may watch.
            for tag, logger in ((f"compress/{word}", None), (f"size/{word}", False)):
                pl_module.log(tag, float(left), logger=logger, on_step=False, on_epoch=True)

    @override
    def after_step_back(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._weight_masks.clear()
        self._update_masks(pl_module)

    def _scores_are_due(self, trainer: Trainer) -> bool:
        due = self._target * self._resolved_schedule.share(trainer.current_epoch + 1)
        return due > self._done

    def _pending_masks(self, pl_module: LightningModule) -> Masks:
        state = self._state
        if state is None or not state.pending:
            return {}
        return state.masks(dict(pl_module.named_parameters()))

    def _update_masks(self, pl_module: LightningModule) -> None:
        masks = self.masks_of(pl_module)
        if masks:
            self._weight_masks.set(dict(pl_module.named_parameters()), masks)

    # --- checkpoints -----------------------------------------------------------------------------

    @override
    def unpruned_shapes(self) -> UnprunedShapes | None:
        if self._state is None:
            return None
        return self._earlier.before(self._state.unpruned_shapes())

    def _carry(self, pl_module: LightningModule) -> None:
        """Let the module carry the record along, for later fits and weights-only checkpoints."""
        own, known = self.unpruned_shapes(), carried(pl_module)
        if own is not None and self._require_state().removed:
            carry(pl_module, own if known is None else known.before(own))

    @override
    def prune_to_final(self, module: LightningModule) -> None:
        if self._state is not None:
            graph, tensors = self._state.graph, named_tensors(module)
            if all(tuple(tensors[n].shape) == shape for n, shape in graph.shapes.items()):
                apply(make_plan(graph, self._state.selected), module)

    @override
    def own_state(self) -> dict[str, Any]:
        common = super().own_state()
        if self._state is None:
            return common
        return {
            **common,
            "ledger": self._state.to_dict(),
            "scores": dict(self._scores),
            "original": self._earlier.before(self._state.unpruned_shapes()).to_dict(),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        try:
            super().load_state_dict(state_dict)
            channels, shapes = state_dict.get("ledger"), state_dict.get("original")
            if (channels is None) != (shapes is None) or not 0 <= self._done <= 1:
                raise ValueError("its parts do not agree")
            scores = dict(state_dict["scores"]) if channels is not None else {}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PlanError(
                f"the checkpoint's state of {type(self).__name__} is damaged "
                f"({type(error).__name__}: {error})"
            ) from error
        if channels is not None and shapes is not None:
            self._state, self._scores = PruningState.from_dict(channels), scores
            self._earlier = UnprunedShapes.from_dict(shapes)

    @override
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._resizer.check_record(pl_module, checkpoint, _known_shapes(trainer))
        for state in pruning_states_of(checkpoint):
            state.check(named_tensors(pl_module))
        super().on_load_checkpoint(trainer, pl_module, checkpoint)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._resizer.check_without_record(pl_module, _known_shapes(trainer))

    on_test_start = on_predict_start = on_validation_start

    @override
    def progress(self) -> dict[str, Any]:
        return {**super().progress(), "of": self._selector.of}

    def _require_state(self) -> PruningState:
        if self._state is None:
            raise InvalidArgumentError(
                f"{type(self).__name__} has not analysed the network yet: start a fit"
            )
        return self._state

    def _require_example(self) -> ExampleInputs:
        if self._example is None:
            raise InvalidArgumentError(
                f"{type(self).__name__} has no example inputs yet: start a fit"
            )
        return self._example


def sizes_left(trainer: Trainer, pl_module: LightningModule) -> dict[str, int]:
    """Return ``parameters`` and ``macs`` that the callbacks of a run leave.

    Nothing is returned if none removes channels.
    """
    states = [other._state for other in _removers(trainer) if other._state is not None]
    return left_over(states, pl_module) if states else {}


def _removers(trainer: Trainer) -> list[ChannelPruning]:
    """Return the callbacks of a run that remove channels, each of a part of its own."""
    return [found for found in callbacks(trainer) if isinstance(found, ChannelPruning)]


def _known_shapes(trainer: Trainer) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the unpruned network, as far as this run has analysed it."""
    found: dict[str, tuple[int, ...]] = {}
    for pruner in _removers(trainer):
        if pruner._state is not None:
            found.update(pruner._state.graph.shapes)
    return found
