"""Pruning steps that wait for the metric, and a run that goes back to what kept it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from typing_extensions import override

from lit_compress.callbacks._budget.contract import Contract, FixesShapes, StepsBack
from lit_compress.callbacks._run.resuming import restoring
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.distributed import on_rank_zero, rewrap
from lit_compress.evaluation.trainer_access import callbacks
from lit_compress.pruning.channels.resize import resize_to
from lit_compress.pruning.channels.unpruned import UnprunedShapes, carried
from lit_compress.pruning.schedule import Schedule


class KeepsContract(StepsBack, ABC):
    """A pruning callback that may lose a part of a metric.

    Attributes:
        contract: How much it may lose.
        history: Its pruning steps so far.
        reached: Share that is pruned.
    """

    contract: Contract
    history: list[dict[str, float]]
    reached: float

    @property
    @abstractmethod
    def schedule_now(self) -> Schedule:
        """The schedule of this run, with all its epochs."""

    @abstractmethod
    def own_state(self) -> dict[str, Any]:
        """Return the state for a checkpoint, without the network that is kept."""

    @abstractmethod
    def unpruned_shapes(self) -> UnprunedShapes | None:
        """Return the shapes before channels were removed, None if none were."""

    @override
    def kept_state(self) -> dict[str, Any]:
        return self.own_state()

    @override
    def go_back(self, trainer: Trainer, pl_module: LightningModule, state: dict[str, Any]) -> None:
        self.load_state_dict(state)
        self.after_step_back(trainer, pl_module)

    def after_step_back(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called after the run went back, with the state of then loaded."""

    def check_contract(self, trainer: Trainer) -> None:
        """Check that no other callback may bring the network back.

        Args:
            trainer: The run.

        Raises:
            InvalidArgumentError: If another pruning callback has ``max_drop`` too.
        """
        others = [one for one in callbacks(trainer) if isinstance(one, KeepsContract)]
        if self.contract and any(one.contract for one in others if one is not self):
            raise InvalidArgumentError(
                "two pruning callbacks have max_drop, and the network can go back by one of them "
                "only: leave it out of the others, which go back together with the network"
            )

    def begin_contract(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure what may be lost a part of, just before the first pruning step.

        Args:
            trainer: The run.
            pl_module: The user's module.
        """
        contract = self.contract
        contract.baseline, own = on_rank_zero(
            trainer,
            lambda: contract.measure_baseline(trainer, pl_module),
            f"it measures {contract.monitor} of the dense network",
        )
        contract.keep(trainer, pl_module, self, contract.baseline)
        what = "trained on its own" if own else "as it is before its first pruning step"
        rank_zero_info(
            f"{type(self).__name__}: {contract.monitor} of the dense network, {what}, is "
            f"{contract.baseline:.4f}; pruning may cost {contract.max_drop:g} of it"
        )

    def next_event(self, trainer: Trainer) -> int:
        """Return the epoch of the schedule whose step is due; the last one taken if none is.

        A step waits until the metric is within ``max_drop`` again, so it may be taken after its
        epoch.

        Args:
            trainer: The run.
        """
        events, done, epoch = self.schedule_now.events(), len(self.history), trainer.current_epoch
        taken = events[min(done, len(events)) - 1] if done else events[0] - 1
        if done >= len(events) or epoch < events[done]:
            return taken
        if not done:
            return events[0]
        if any(epoch >= end for end in _ends(trainer)):
            return taken
        if self.contract.holds(self.contract.last):
            return events[done]
        last = self.contract.last
        rank_zero_info(
            f"{type(self).__name__}: epoch {epoch}, a pruning step waits: {self.contract.monitor} "
            f"is {'not measured yet' if last is None else f'{last:.4f}'} ({self.contract})"
        )
        return taken

    def step_back(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the network back to the last one that kept the contract.

        Args:
            trainer: The run.
            pl_module: The user's module.
        """
        kept, last = self.contract.kept, self.contract.last
        if kept is None:
            return
        value = "was not measured since its last step" if last is None else f"is {last:.4f}"
        reached, pruned = self.reached, bool(kept.pruner.get("history"))
        own, whole = self.unpruned_shapes(), carried(pl_module)
        before = whole.before(own) if whole and own else own
        with restoring(trainer.ckpt_path) if self.contract.is_restored else nullcontext():
            if resize_to(pl_module, kept.weights, before):
                for optimizer in trainer.optimizers:
                    optimizer.state.clear()  # of tensors with other shapes
                rewrap(trainer)
            pl_module.load_state_dict(kept.weights)
            self.go_back(trainer, pl_module, kept.pruner)
            self.contract.restore_others(trainer, pl_module, self)
        self.contract.last = kept.value
        then = f"after epoch {kept.epoch}" if pruned else "before it was pruned"
        rank_zero_warn(
            f"{type(self).__name__}: {self.contract.monitor} of the network with {reached:.1%} "
            f"pruned {value}, which breaks {self.contract}: the run goes back to the network "
            f"{then}, with {self.reached:.1%} pruned and {kept.value:.4f}. Checkpoints that were "
            "saved later are not of this network"
        )


def _ends(trainer: Trainer) -> list[int]:
    """Return the epochs from which no step is taken: one epoch at least must follow it."""
    ends = [one.fixed_from(trainer) for one in callbacks(trainer) if isinstance(one, FixesShapes)]
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        ends.append(trainer.max_epochs - 1)
    return [end for end in ends if end is not None]
