"""The common part of the callbacks that remove channels while training goes on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from lit_compress.callbacks._pruning.channel_record import ChannelRecord
from lit_compress.callbacks._pruning.compatibility import (
    check_callbacks,
    check_optimizers,
    warn_clamped,
)
from lit_compress.callbacks._pruning.reach import check_target, warn_rounded
from lit_compress.callbacks._pruning.weight_masks import WeightMasks
from lit_compress.errors import InvalidArgumentError, PlanError
from lit_compress.evaluation.distributed import on_rank_zero, rewrap
from lit_compress.evaluation.dry_run import dry_run
from lit_compress.evaluation.example_inputs import ExampleInputs, find_example_inputs
from lit_compress.evaluation.recalibrate import recalibrate
from lit_compress.measure.cost import Inputs
from lit_compress.pruning import Schedule, apply
from lit_compress.pruning.channels.analysis import verify
from lit_compress.pruning.channels.build import UNSEEN
from lit_compress.pruning.channels.plan import Plan
from lit_compress.pruning.importance import Importance, layer_scores
from lit_compress.pruning.selection.budget import Of, Selection
from lit_compress.pruning.selection.preview import PruningPreview
from lit_compress.pruning.selection.state import Channels, PruningState
from lit_compress.pruning.selection.uniform import parameter_names

Shrink = Literal["every", "end"]


class ChannelPruning(ChannelRecord):
    """Removes channels at the events of a schedule; a subclass says which.

    Args:
        target: Share to remove in the end, in [0, 1).
        schedule: Epochs at which to prune.
        monitor: Key that ``validation_step`` logs, to be logged again once the target is reached.
        rewind: What the weights that stay are set back to after an event.
        shrink: Remove at each event (``every``), or hold at zero and remove at the end of the fit.
        min_channels: Channels that each layer keeps at least.
        recalibrate: Training batches on which batch norms are estimated anew after an event.
        submodule: Name of the module whose forward is followed.
    """

    #: What a share removed is of.
    of: Of = "filters"
    #: What the filters that stay are a multiple of.
    round_to = 1

    def __init__(
        self,
        target: float,
        schedule: Schedule,
        monitor: str | None,
        rewind: str | None,
        shrink: str,
        min_channels: int,
        recalibrate: int,
        submodule: str | None,
    ) -> None:
        super().__init__(target, schedule, monitor, rewind)
        self.shrink = shrink
        self.min_channels = min_channels
        self.recalibrate = recalibrate
        self.submodule = submodule
        self._weight_masks = WeightMasks()
        self._example: ExampleInputs | None = None

    @abstractmethod
    def open(self, module: LightningModule, inputs: Inputs, submodule: str) -> PruningState:
        """Analyse a network; nothing is changed in it."""

    @abstractmethod
    def choose(
        self, module: LightningModule, state: PruningState, share: Fraction, epoch: int | None
    ) -> Selection:
        """Choose what is to be gone when a share of the schedule is due.

        Args:
            module: The module, as it is now.
            state: Its pruning state.
            share: The share, of the target at most.
            epoch: The epoch of the event; None for the end of the schedule.
        """

    @abstractmethod
    def preview(
        self, module: LightningModule, state: PruningState, selection: Selection
    ) -> PruningPreview:
        """Return what a selection takes from each layer."""

    @abstractmethod
    def gradient_importances(self) -> Sequence[Importance]:
        """Return the importances that need gradients."""

    @override
    def earliest(self, epoch: int) -> int:
        # Gradients are those of the epoch before the first event, which must be seen coming.
        return super().earliest(epoch + bool(self.gradient_importances()))

    def removes_channels(self, module: LightningModule) -> bool:
        """Tell whether any channels of a module are to be removed."""
        return True

    # --- fit -----------------------------------------------------------------------------------

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._release()
        self._resizer.attach(pl_module)
        if stage != "fit":
            return
        self._state, self._scores = None, {}
        self._weight_masks.clear()
        check_callbacks(self, trainer, self.shrink in get_args(Shrink))
        needy = [type(found).__name__ for found in self.gradient_importances()]
        if needy and self._resolved_schedule.first == 0 and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise InvalidArgumentError(
                f"importance {needy[0]} needs the gradients of the epoch before an event: set "
                "schedule.first to 1 at least"
            )

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._release()

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        super().on_exception(trainer, pl_module, exception)
        self._resizer.undo(pl_module)
        self._release()  # after an exception, teardown is not called

    def _release(self) -> None:
        self._weight_masks.release()
        self._resizer.detach()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._resizer.settle()
        if self.removes_channels(pl_module):
            if self.shrink == "every" and self._resolved_schedule.events()[-1] > 0:
                check_optimizers(type(self).__name__, trainer.optimizers)
            with isolate_rng():
                on_rank_zero(trainer, lambda: self._find_example(trainer, pl_module))
                if self._state is None:
                    opened, selected, text = on_rank_zero(
                        trainer, lambda: self._make_plan(trainer, pl_module)
                    )
                    self._state = PruningState.from_dict(opened)
                    self.on_plan(pl_module, self._state.plan(frozenset(selected)))
                    rank_zero_info(f"{type(self).__name__}: what will go\n{text}")
                elif self.of != "filters":  # a resumed run may have other arguments
                    on_rank_zero(trainer, lambda: self._check_reach(pl_module))
        if self._needs_masks():
            self._weight_masks.attach(trainer.optimizers)
            self._update_masks(pl_module)

    def _check_reach(self, pl_module: LightningModule) -> None:
        state = self._require_state()
        selection = self.choose(pl_module, state, self._target, None)
        check_target(pl_module, state, selection, self.of, self.goal)

    def on_plan(self, pl_module: LightningModule, plan: Plan) -> None:
        """Take note of what is to go in the end."""

    def _needs_masks(self) -> bool:
        return self.shrink == "end"

    def _find_example(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find an example input; only the process that decides needs one."""
        self._example = find_example_inputs(trainer, pl_module, self.submodule)

    def _make_plan(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> tuple[dict[str, Any], list[int], str]:
        """Return the ledger of the network, and what will go; try it on a copy."""
        example = self._require_example()
        state = self.open(pl_module, example.inputs, example.submodule)
        selection = self.choose(pl_module, state, self._target, None)
        check_target(pl_module, state, selection, self.of, self.goal)
        warn_clamped(type(self).__name__, selection.clamped, self.min_channels)
        warn_rounded(pl_module, state, selection, self.of, self.goal, self.round_to)
        # Parts that the forward does not use are the training step's.
        unseen = any(frozen.reason == UNSEEN for frozen in state.graph.frozen)
        dry_run(trainer, pl_module, state.plan(selection.selected), training=unseen)
        text = str(self.preview(pl_module, state, selection))
        return state.to_dict(), sorted(selection.selected), text

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self._scores = {}
        if self._state is not None:
            names = parameter_names(pl_module)
            words: tuple[Of, ...] = ("parameters", "macs")
            for word in words:
                left = self._state.total(word) - self._state.saved(word, names)
                pl_module.log(f"size/{word}", float(left), on_step=False, on_epoch=True)

    @override
    def prune(self, trainer: Trainer, pl_module: LightningModule, share: Fraction) -> float:
        state = self._require_state()
        selected = frozenset(
            on_rank_zero(trainer, lambda: self._select_and_verify(trainer, pl_module, share))
        )
        if self.shrink == "every":
            self._remove_channels(trainer, pl_module, selected)
        state.selected = selected
        self._update_masks(pl_module)
        return state.saved(self.of, parameter_names(pl_module)) / max(1, state.total(self.of))

    @override
    def after_pruning_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._weight_masks.apply()
        if self.recalibrate:
            recalibrate(trainer, pl_module, self.recalibrate)

    def _select_and_verify(
        self, trainer: Trainer, pl_module: LightningModule, share: Fraction
    ) -> list[int]:
        """Return the classes to be gone, after a trial of their removal."""
        state, example = self._require_state(), self._require_example()
        selection = self.choose(pl_module, state, share, trainer.current_epoch)
        plan = state.plan(selection.selected)
        with isolate_rng():
            verify(pl_module, example.inputs, state.left(), plan, example.submodule)
        return sorted(selection.selected)

    def _remove_channels(
        self, trainer: Trainer, pl_module: LightningModule, selected: Channels
    ) -> None:
        """Cut channels out of the module and its optimizers."""
        state = self._require_state()
        plan = state.plan(selected)
        apply(plan, pl_module, *trainer.optimizers)
        self.removed(plan)
        state.removed = selected
        rewrap(trainer)

    def removed(self, plan: Plan) -> None:
        """Cut along what is kept beside the module."""
        self._rewind.cut(plan)

    @override
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        self._weight_masks.apply_to_gradients()
        if self._state is not None and self._scores_are_due(trainer):
            for importance in self.gradient_importances():
                found = layer_scores(pl_module, self._state.left(), importance)
                for name, score in found.items():
                    self._scores[name] = self._scores.get(name, torch.zeros(())) + score

    def _scores_are_due(self, trainer: Trainer) -> bool:
        due = self._target * self._resolved_schedule.share(trainer.current_epoch + 1)
        return due > self._done

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if not pl_module.automatic_optimization:
            self._weight_masks.apply()

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._weight_masks.apply()
        self._weight_masks.release()
        if self._state is not None and self._state.removed != self._state.selected:
            self._remove_at_the_end(trainer, pl_module, self._state.selected)
        self._weight_masks.clear()

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_end(trainer, pl_module)
        if (
            self._state is not None
            and self._state.removed != self._state.selected
            and self._needs_masks()
        ):
            # Resumed from its last epoch, a fit has nothing to train, and on_train_end is left out.
            self._remove_at_the_end(trainer, pl_module, self._state.selected)

    def _remove_at_the_end(
        self, trainer: Trainer, pl_module: LightningModule, selected: Channels
    ) -> None:
        """Remove channels where no optimizer steps any more: states that cannot be cut may go."""
        try:
            self._remove_channels(trainer, pl_module, selected)
        except PlanError as error:
            for optimizer in trainer.optimizers:
                optimizer.state.clear()
            self._remove_channels(trainer, pl_module, selected)
            rank_zero_warn(
                f"{type(self).__name__}: the optimizers start anew if this network is trained on, "
                f"since {error}"
            )

    # --- what is seen and held -----------------------------------------------------------------

    def _require_example(self) -> ExampleInputs:
        if self._example is None:
            raise InvalidArgumentError(
                f"{type(self).__name__} has no example input yet: start a fit"
            )
        return self._example

    @override
    def progress(self) -> dict[str, Any]:
        return {**super().progress(), "of": self.of}

    def _masks(self, pl_module: LightningModule) -> dict[str, Tensor]:
        """Return the masks of what is decided to go, until it is removed."""
        state = self._state
        if state is None or state.selected == state.removed:
            return {}
        return state.masks(dict(pl_module.named_parameters()))

    def _update_masks(self, pl_module: LightningModule) -> None:
        """Hold at zero what the masks drop."""
        masks = self._masks(pl_module)
        if masks:
            self._weight_masks.hold(dict(pl_module.named_parameters()), masks)
