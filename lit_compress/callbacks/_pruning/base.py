"""The common part of the pruning callbacks: target, schedule, progress."""

from __future__ import annotations

from abc import ABC, abstractmethod
from fractions import Fraction
from math import nan
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from typing_extensions import override

from lit_compress.callbacks._pruning.rewind import Rewind
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.validate import check_monitor
from lit_compress.pruning.channels.resize import UnprunedShapes
from lit_compress.pruning.masks import exact_share
from lit_compress.pruning.schedule import Schedule

#: Strategies that keep a weight in pieces on several devices, so that none can rank them all.
SHARDED = ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy")


class BeforePruning(ABC):
    """A callback that wants to see the network while it is still dense."""

    @abstractmethod
    def before_pruning(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the network, at the start of the epoch that prunes it for the first time."""


class PruningCallback(Callback, ABC):
    """Prunes at the start of the epochs of a schedule, towards a share of the original.

    Args:
        target: Share to remove in the end, in [0, 1).
        schedule: Epochs at which to prune.
        monitor: Key that ``validation_step`` logs, to be logged again once the target is reached.
        rewind: ``init`` or ``epoch k``: what the weights that stay are set back to after an event.
    """

    def __init__(
        self,
        target: float,
        schedule: Schedule,
        monitor: str | None = None,
        rewind: str | None = None,
    ) -> None:
        self._target = exact_share(target)
        if not isinstance(schedule, Schedule):
            raise InvalidArgumentError(
                f"schedule must be a Schedule, such as Schedule(first=2), got {schedule!r}"
            )
        self.monitor = monitor
        self.target = target
        self.schedule = schedule
        self.reached = 0.0
        self.history: list[dict[str, float]] = []
        self._resolved_schedule = schedule
        self._epochs_earlier = 0
        self._done = Fraction(0)
        self._rewind = Rewind(rewind)

    @abstractmethod
    def prune(self, trainer: Trainer, pl_module: LightningModule, share: Fraction) -> float:
        """Bring the share removed of the original up to ``share``; return what it then is."""

    def after_pruning_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do what is to follow an event, after which weights may have been set back."""

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments as plain values, for the card and the state's key."""

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(**self.arguments())

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self.reached, self.history, self._done = 0.0, [], Fraction(0)
        self._epochs_earlier = 0
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._resolved_schedule = Schedule(shape="one_shot")
        else:
            self._resolved_schedule = self.schedule.resolve(trainer.max_epochs)
            self._rewind.check(self._resolved_schedule.first)
        self._rewind.clear()
        strategy = type(trainer.strategy).__name__
        if strategy in SHARDED:
            raise InvalidArgumentError(
                f"{type(self).__name__} cannot run under {strategy}, which keeps each weight in "
                "pieces: use strategy ddp"
            )
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, (WeightAveraging, StochasticWeightAveraging)):
                raise InvalidArgumentError(
                    f"{type(self).__name__} cannot run beside {type(callback).__name__}: the "
                    "average of weights from before and after pruning is not a pruned network; "
                    "average in a later fit that starts from the pruned checkpoint, or leave it out"
                )

    @override
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on from the state of a callback of this kind whose arguments were other ones."""
        states = checkpoint.get("callbacks", {})
        kind = f"{type(self).__qualname__}{{"
        ours = [key for key in states if key.startswith(kind)]
        alone = sum(type(c) is type(self) for c in trainer.callbacks) == 1  # type: ignore[attr-defined]
        if self.state_key not in states and len(ours) == 1 and alone:
            self.load_state_dict(states[ours[0]])
            if trainer.state.fn != TrainerFn.FITTING:
                return
            rank_zero_info(
                f"{type(self).__name__}: going on from the checkpoint's, whose arguments differ: "
                "shares are still of the network that it began with"
            )

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        due = self._target * self._resolved_schedule.share(trainer.current_epoch)
        if due < self._target or due > self._done:
            self._rewind.observe(pl_module, trainer.current_epoch)
        if due > self._done:
            if not self.history:
                self._notify_before_pruning(trainer, pl_module)
            self.reached = self.prune(trainer, pl_module, due)
            self._rewind.apply(pl_module, trainer.optimizers)
            self.after_pruning_step(trainer, pl_module)
            self._done = due
            self.history.append(
                {"epoch": trainer.current_epoch, "due": float(due), "reached": self.reached}
            )
            rank_zero_info(
                f"{type(self).__name__}: epoch {trainer.current_epoch}, {self.reached:.1%} removed "
                f"(target {self.goal:.1%})"
            )
            if due == self._target:
                self._rewind.clear()  # it is not needed any more, and makes checkpoints larger
        pl_module.log(
            self._tag(trainer), self.reached, on_step=False, on_epoch=True, sync_dist=True
        )

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.monitor is None or trainer.sanity_checking:
            return
        check_monitor(self.monitor, trainer.callback_metrics)
        value = float(trainer.callback_metrics[self.monitor])
        reached = value if self._done >= self._target else nan
        pl_module.log(f"pruned/{self.monitor}", reached, sync_dist=False)

    @property
    def first_epoch(self) -> int:
        """Epoch of the first event."""
        return self._resolved_schedule.first

    def earliest(self, epoch: int) -> int:
        """Return the first epoch, from the start of ``epoch`` on, at which pruning could begin."""
        return max(epoch, self._rewind.epoch or 0)

    def move_earlier(self, epochs: int) -> None:
        """Have the whole schedule come this many epochs earlier."""
        self._resolved_schedule = self._resolved_schedule.earlier(epochs)
        self._epochs_earlier += epochs

    def original(self) -> UnprunedShapes | None:
        """Return what the network was like before channels were removed from it, if any were."""
        return None

    def prune_to_final(self, module: LightningModule) -> None:
        """Bring a copy that was loaded from one of the run's checkpoints to its final form."""

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._say_if_short()

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if isinstance(exception, KeyboardInterrupt):
            self._say_if_short()

    @override
    def state_dict(self) -> dict[str, Any]:
        history = [dict(event) for event in self.history]
        state = {
            "reached": self.reached,
            "history": history,
            "done": str(self._done),
            "ahead": self._epochs_earlier,
        }
        kept = self._rewind.state()
        return {**state, "rewind": kept} if kept else state

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.reached = float(state_dict["reached"])
        self.history = [dict(event) for event in state_dict["history"]]
        self._done = Fraction(state_dict["done"])
        self._rewind.restore(state_dict.get("rewind", {}))
        self.move_earlier(int(state_dict.get("ahead", 0)) - self._epochs_earlier)

    @property
    def goal(self) -> float:
        """Share that will have been removed in the end."""
        return float(self._target)

    def progress(self) -> dict[str, Any]:
        """Return target and share reached, for the card."""
        return {
            "callback": type(self).__name__,
            "target": self.goal,
            "reached": self.reached,
            "epochs": [int(event["epoch"]) for event in self.history],
        }

    def _notify_before_pruning(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pruners = [c for c in trainer.callbacks if isinstance(c, PruningCallback)]  # type: ignore[attr-defined]
        if any(pruner.history for pruner in pruners):
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, BeforePruning):
                callback.before_pruning(trainer, pl_module)

    def _tag(self, trainer: Trainer) -> str:
        pruners = [c for c in trainer.callbacks if isinstance(c, PruningCallback)]  # type: ignore[attr-defined]
        return "sparsity/total" if len(pruners) == 1 else f"sparsity/{pruners.index(self)}"

    def _say_if_short(self) -> None:
        if self._done < self._target:
            rank_zero_warn(
                f"{type(self).__name__} reached {self.reached:.2f} of {self.goal:.2f}: "
                "the run ended before its schedule did"
            )
