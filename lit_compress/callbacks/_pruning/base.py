"""What all pruning callbacks share: target, schedule, progress, masks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from fractions import Fraction
from math import nan
from typing import Any
from uuid import uuid4

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from typing_extensions import override

from lit_compress.callbacks._budget.contract import Contract
from lit_compress.callbacks._budget.keeping import KeepsContract
from lit_compress.callbacks._pruning.rewind import Rewind
from lit_compress.callbacks._pruning.weight_masks import WeightMasks
from lit_compress.callbacks._run.requeue import requeue_between_batches
from lit_compress.callbacks._run.resuming import name_checkpoint, named
from lit_compress.callbacks._run.supported import check_run
from lit_compress.errors import CheckpointError, InvalidArgumentError
from lit_compress.evaluation.distributed import on_rank_zero
from lit_compress.evaluation.metric import check_logged, check_monitor
from lit_compress.evaluation.trainer_access import callbacks, is_fast_dev_run, publish
from lit_compress.pruning.channels.unpruned import UnprunedShapes
from lit_compress.pruning.schedule import Schedule

#: Attribute of a module: the marks of the callbacks that have pruned it.
MARKS = "_lit_compress_pruned_by"


class AddsPruning(Callback):
    """A callback that adds a pruning callback to the Trainer in its ``setup``."""


class BeforePruning(ABC):
    """A callback that is called while the network is still dense."""

    @abstractmethod
    def before_pruning(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called before the first pruning step of the run."""


class PruningCallback(KeepsContract, ABC):
    """Prunes a network step by step, at the start of the epochs of a schedule.

    Args:
        target: Share of the unpruned network to prune at the end of the schedule.
        schedule: Epochs at which to prune.
        monitor: Key that ``validation_step`` logs; logged again under ``pruned/`` once the target
            is reached.
        rewind: ``init`` or ``epoch k``: the weights to go back to after each pruning step.
        contract: How much of the metric pruning may cost. Default: anything.
    """

    #: Whether it removes whole blocks, before others prune what is left.
    removes_blocks = False
    #: Whether it can prune what a callback leaves that removes whole blocks.
    follows_blocks = False

    def __init__(
        self,
        target: Fraction,
        schedule: Schedule,
        monitor: str | None = None,
        rewind: str | None = None,
        contract: Contract | None = None,
    ) -> None:
        if not isinstance(schedule, Schedule):
            raise InvalidArgumentError(
                f"schedule must be a Schedule, such as Schedule(first=2), got {schedule!r}"
            )
        self.monitor = monitor
        self.schedule = schedule
        self.contract = contract or Contract(None, None)
        self.reached = 0.0
        self.history: list[dict[str, float]] = []
        self._target = target
        self._resolved_schedule = schedule
        self._epochs_earlier = 0
        self._done = Fraction(0)
        self._rewind = Rewind(rewind)
        self._weight_masks = WeightMasks()
        self._mark = uuid4().hex
        self._goes_on = False
        self._metric_before: Tensor | None = None
        self._epoch_begun = -1
        #: Epoch of the schedule whose step is taken; a step that waits is taken later.
        self._event = 0
        #: What the last pruning step passed over, since it was not trained yet.
        self._waiting: list[str] = []

    # --- what a subclass says --------------------------------------------------------------------

    @abstractmethod
    def prune(self, trainer: Trainer, pl_module: LightningModule, share: Fraction) -> float:
        """Prune until ``share`` of the unpruned network is pruned; return the share reached."""

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments as plain values, for the card and the state's key."""

    def matches(self, pl_module: LightningModule) -> bool:
        """Tell whether a module is as the last fit of this callback left it."""
        return True

    def start_anew(self) -> None:
        """Forget the last fit: the module is pruned from the beginning."""
        self.reached, self.history, self._done = 0.0, [], Fraction(0)
        self._waiting = []
        self._goes_on, self._epochs_earlier = False, 0
        self._weight_masks.clear()
        self._rewind.clear()
        self.contract.clear()

    def after_pruning_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called after each pruning step, when weights may have been rewound."""
        self._weight_masks.apply()

    @override
    def unpruned_shapes(self) -> UnprunedShapes | None:
        return None

    def after_blocks_removed(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called after another callback removed whole blocks of the network."""

    def prune_to_final(self, module: LightningModule) -> None:
        """Bring a copy that was loaded from a checkpoint of this run to its final shapes."""

    # --- hooks -----------------------------------------------------------------------------------

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(**self.arguments())

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        check_run(self, trainer, stage)
        if stage != "fit":
            return
        requeue_between_batches(trainer)
        name_checkpoint(trainer)
        self._epoch_begun = -1
        if self._pruned_before(pl_module):
            self._goes_on = True
        else:
            self.start_anew()
        self._resolve_schedule(trainer)
        marks = vars(pl_module).get(MARKS, ())
        vars(pl_module)[MARKS] = tuple(dict.fromkeys((*marks, self._mark)))
        self._check_run(trainer)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._goes_on and trainer.ckpt_path:  # weights alone: callbacks are not told of them
            self.start_anew()
            self._resolve_schedule(trainer)
        if self._goes_on:
            rank_zero_info(
                f"{type(self).__name__}: this fit goes on with the network of the last one: "
                f"{self.reached:.1%} pruned (target {self.goal:.1%})"
            )

    @override
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore state that was saved with different arguments."""
        if trainer.state.fn == TrainerFn.FITTING and self._goes_on:
            self.start_anew()  # the state of the checkpoint is loaded after this
            self._resolve_schedule(trainer)
        states = checkpoint.get("callbacks", {})
        kind = f"{type(self).__qualname__}{{"
        ours = [key for key in states if key.startswith(kind)]
        alone = sum(type(c) is type(self) for c in callbacks(trainer)) == 1
        if self.state_key not in states and len(ours) == 1 and alone:
            self.load_state_dict(states[ours[0]])
            if trainer.state.fn != TrainerFn.FITTING:
                return
            rank_zero_info(
                f"{type(self).__name__}: the checkpoint was saved with other arguments; its state "
                "is restored, and shares are still shares of the network that it was pruned from"
            )

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.monitor is not None:
            monitor = self.monitor
            on_rank_zero(trainer, lambda: check_logged(trainer, pl_module, monitor))
        if self.contract:
            contract = self.contract
            contract.rises = on_rank_zero(trainer, lambda: contract.find_mode(trainer, pl_module))

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Lightning leaves on_train_epoch_start out where a fit goes on from a checkpoint that was
        # saved at the last batch of the epoch before.
        if batch_idx == 0 and self._epoch_begun != trainer.current_epoch:
            self.on_train_epoch_start(trainer, pl_module)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_begun = trainer.current_epoch
        self._event = trainer.current_epoch
        if self.contract:
            self._event = on_rank_zero(trainer, lambda: self.next_event(trainer))
        due = self._target * self._resolved_schedule.share(self._event)
        if due < self._target or due > self._done:
            self._rewind.observe(pl_module, trainer.current_epoch)
        if due > self._done:
            self._pruning_step(trainer, pl_module, due)
        for tag, logger in self._tags(trainer).items():
            pl_module.log(
                tag, self.reached, logger=logger, on_step=False, on_epoch=True, sync_dist=True
            )

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        # In manual optimization a step may be that of an optimizer that the trainer does not know.
        if not pl_module.automatic_optimization:
            self._weight_masks.apply()

    @override
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.monitor is not None:
            self._metric_before = trainer.callback_metrics.get(self.monitor)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # At the end of the epoch the module has not logged yet what it logs there.
        if self.monitor is not None and not trainer.sanity_checking:
            check_monitor(self.monitor, trainer.callback_metrics)
            value = float(trainer.callback_metrics[self.monitor])
            if self.contract and self.history:
                # Lightning keeps the value of an earlier epoch where this one logs none.
                logged = trainer.callback_metrics[self.monitor] is not self._metric_before
                self.contract.last = value if logged else None
                if logged and self.contract.holds(value):
                    self.contract.keep(trainer, pl_module, self, value)
            reached = value if self._done >= self._target else nan
            publish(trainer, f"pruned/{self.monitor}", reached)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.contract and self.history and not self.contract.holds(self.contract.last):
            self.step_back(trainer, pl_module)
        self._weight_masks.apply()
        self._weight_masks.detach()

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._warn_if_short()

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if isinstance(exception, KeyboardInterrupt):
            self._warn_if_short()
        self._weight_masks.detach()  # Lightning does not call teardown after an exception

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._weight_masks.detach()

    @override
    def state_dict(self) -> dict[str, Any]:
        return {**self.own_state(), **self.contract.state()}

    @override
    def own_state(self) -> dict[str, Any]:
        history = [dict(step) for step in self.history]
        state = {
            "reached": self.reached,
            "history": history,
            "done": str(self._done),
            "ahead": self._epochs_earlier,
            "progress": self.progress(),  # for the card of a later conversion
        }
        kept = self._rewind.state()
        return {**state, "rewind": kept} if kept else state

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.reached, self._done = float(state_dict["reached"]), Fraction(state_dict["done"])
        self.history = [_step(step) for step in state_dict["history"]]
        ahead = int(state_dict.get("ahead", 0))
        if not (0 <= self._done <= 1 and 0 <= self.reached <= 1 and ahead >= 0):
            raise CheckpointError(
                f"{type(self).__name__}: the shares in its state are not between 0 and 1, or it "
                "is behind its schedule: take another checkpoint"
            )
        self._rewind.restore(state_dict.get("rewind", {}))
        self.contract.restore(state_dict)
        self.move_earlier(ahead - self._epochs_earlier)

    # --- schedule and progress -------------------------------------------------------------------

    @property
    def first_epoch(self) -> int:
        """Epoch of the first pruning step."""
        return self._resolved_schedule.first

    @property
    def last_epoch(self) -> int:
        """Epoch of the last pruning step."""
        return self._resolved_schedule.events()[-1]

    def earliest(self, epoch: int) -> int:
        """Return the first epoch, from ``epoch`` on, at which pruning could begin."""
        return max(epoch, self._rewind.epoch or 0)

    def move_earlier(self, epochs: int) -> None:
        """Move the whole schedule this many epochs earlier."""
        self._resolved_schedule = self._resolved_schedule.earlier(epochs)
        self._epochs_earlier += epochs

    @property
    @override
    def schedule_now(self) -> Schedule:
        return self._resolved_schedule

    @property
    def goal(self) -> float:
        """Share that is pruned at the end of the schedule."""
        return float(self._target)

    def progress(self) -> dict[str, Any]:
        """Return target and share reached, for the card."""
        return {
            "callback": type(self).__name__,
            "target": self.goal,
            "reached": self.reached,
            "epochs": [int(step["epoch"]) for step in self.history],
            **self.contract.progress(),
        }

    def _resolve_schedule(self, trainer: Trainer) -> None:
        if is_fast_dev_run(trainer):
            self._resolved_schedule = Schedule(shape="one_shot")
        else:
            self._resolved_schedule = self.schedule.resolve(trainer.max_epochs)
            self._rewind.check(self._resolved_schedule.first)
        self._resolved_schedule = self._resolved_schedule.earlier(self._epochs_earlier)

    def _pruned_before(self, pl_module: LightningModule) -> bool:
        """Tell whether this callback has pruned the module in an earlier fit."""
        known = self._mark in vars(pl_module).get(MARKS, ())
        return known and bool(self.history) and self.matches(pl_module)

    def counted(self) -> str:
        """Return, for messages, what the share that is reached is of; empty if not one thing."""
        return ""

    def _pruning_step(self, trainer: Trainer, pl_module: LightningModule, due: Fraction) -> None:
        epoch = trainer.current_epoch
        if not self.history:
            self._notify_before_pruning(trainer, pl_module)
            if self.contract:
                self.begin_contract(trainer, pl_module)
        self.contract.last = None
        with named(trainer):
            self.reached = self.prune(trainer, pl_module, due)
            self._rewind.apply(pl_module, trainer.optimizers)
        self.after_pruning_step(trainer, pl_module)
        self._done = due
        self.history.append({"epoch": epoch, "due": float(due), "reached": self.reached})
        rank_zero_info(
            f"{type(self).__name__}: epoch {epoch}, {self.reached:.1%}{self.counted()} pruned "
            f"(target {self.goal:.1%})"
        )
        if due == self._target:
            self._rewind.clear()  # no later step needs the copy, which makes checkpoints larger

    def _check_run(self, trainer: Trainer) -> None:
        self.check_contract(trainer)
        name = type(self).__name__
        for callback in callbacks(trainer):
            if isinstance(callback, (WeightAveraging, StochasticWeightAveraging)):
                raise InvalidArgumentError(
                    f"{name} cannot run together with {type(callback).__name__}: the average of "
                    "weights from before and after pruning is not a pruned network; average in a "
                    "later fit that starts from the pruned checkpoint, or remove that callback"
                )
            watched = getattr(callback, "monitor", None)
            known = {f"pruned/{pruner.monitor}" for pruner in pruning_callbacks(trainer)}
            if isinstance(watched, str) and watched.startswith("pruned/") and watched not in known:
                raise InvalidArgumentError(
                    f"{type(callback).__name__} watches {watched!r}, which no callback logs: give "
                    f"{name} monitor={watched.removeprefix('pruned/')!r}"
                )

    def _notify_before_pruning(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if any(pruner.history for pruner in pruning_callbacks(trainer)):
            return
        for callback in callbacks(trainer):
            if isinstance(callback, BeforePruning):
                callback.before_pruning(trainer, pl_module)

    def _tags(self, trainer: Trainer) -> dict[str, bool | None]:
        """Return the names of the share reached, with False for those that loggers do not get."""
        pruners = pruning_callbacks(trainer)
        if len(pruners) == 1:
            # The second is the name of earlier versions, which checkpoints of a run may watch.
            return {"compress/reached": None, "sparsity/total": False}
        number = pruners.index(self)
        return {f"compress/reached_{number}": None, f"sparsity/{number}": False}

    def _warn_if_short(self) -> None:
        if self._waiting:
            rank_zero_warn(
                f"{type(self).__name__} reached {self.reached:.2f} of {self.goal:.2f}: at its last "
                f"pruning step {self._waiting[0]} ({len(self._waiting)} such) was not trained yet"
            )
        if self._done < self._target:
            why = (
                f"the target gave way, as {self.contract} was kept"
                if self.contract.baseline is not None
                else "the run ended before its schedule did"
            )
            rank_zero_warn(
                f"{type(self).__name__} reached {self.reached:.2f} of {self.goal:.2f}: {why}"
            )


def _step(stored: dict[str, Any]) -> dict[str, float]:
    """Return a step of the history of a checkpoint."""
    due, reached = float(stored["due"]), float(stored["reached"])
    return {"epoch": int(stored["epoch"]), "due": due, "reached": reached}


def pruning_callbacks(trainer: Trainer) -> list[PruningCallback]:
    """Return the pruning callbacks of a run."""
    return [found for found in callbacks(trainer) if isinstance(found, PruningCallback)]
