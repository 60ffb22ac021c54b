"""When fake quantisation is on, and when its ranges and norms stay."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from lightning.pytorch import Trainer

from lit_compress.callbacks._pruning.arguments import check_counts
from lit_compress.callbacks._pruning.base import pruning_callbacks
from lit_compress.errors import InvalidArgumentError, ScheduleError
from lit_compress.evaluation.trainer_access import is_fast_dev_run


@dataclass(frozen=True)
class Span:
    """The part of a run with fake quantisation: its begin, and where its ranges and norms stay.

    Attributes:
        first: Its first epoch, from 0; None if it begins at a step, or is not resolved yet.
        freeze: Epoch from which ranges and norms stay; None likewise.
        first_step: The training step at which it begins.
        freeze_step: The training step from which ranges and norms stay.

    Raises:
        InvalidArgumentError: If both an epoch and a step are given, or one is below 0.
    """

    first: int | None = None
    freeze: int | None = None
    first_step: int | None = None
    freeze_step: int | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in asdict(self).items() if value is not None}
        check_counts(**{name: (value, 0) for name, value in given.items()})
        for name in ("first", "freeze"):
            if {name, f"{name}_step"} <= given.keys():
                raise InvalidArgumentError(
                    f"{name} is an epoch and {name}_step a training step: give one of them"
                )
        for kind in ("", "_step"):
            first, freeze = given.get(f"first{kind}"), given.get(f"freeze{kind}")
            if first is not None and freeze is not None and freeze < first:
                raise InvalidArgumentError(
                    f"freeze{kind} ({freeze}) comes before first{kind} ({first}): raise it"
                )

    def __str__(self) -> str:
        return f"step {self.first_step}" if self.first is None else f"epoch {self.first}"

    def resolve(self, trainer: Trainer) -> Span:
        """Return this span for a run, with its defaults.

        Args:
            trainer: The run; its pruning callbacks know their schedules.

        Raises:
            ScheduleError: If it does not fit the run, or begins before the last pruning step.
        """
        if is_fast_dev_run(trainer):
            return Span(first=0, freeze=0)
        pruned = [pruner.last_epoch for pruner in pruning_callbacks(trainer)]
        start = max(pruned, default=-1) + 1
        end = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        steps = trainer.estimated_stepping_batches / end if end else 0.0  # of an epoch
        self._check(trainer, start, end, steps)
        first = self.first
        if first is None and self.first_step is None:
            if end is None:
                raise ScheduleError(
                    "QuantizationAwareTraining needs first or first_step in a run without "
                    "max_epochs: set one, or trainer.max_epochs"
                )
            first = min(end - 1, start + (end - start) // 2)
        freeze = self.freeze
        if freeze is None and self.freeze_step is None:
            begin = int(self.first_step / steps) if self.first_step and steps else first or start
            freeze = begin + 1 if end is None else begin - (-2 * (end - begin) // 3)
        return replace(self, first=first, freeze=freeze)

    def _check(self, trainer: Trainer, start: int, end: int | None, steps: float) -> None:
        if self.first is not None and self.first < start:
            raise ScheduleError(
                f"QuantizationAwareTraining begins at epoch {self.first}, and the last pruning "
                f"step of the run is at epoch {start - 1}: a graph that is trained cannot be "
                f"pruned. Set first to {start} or more, or schedule.last of the pruning callback "
                "to less"
            )
        if self.first is not None and end is not None and self.first >= end:
            raise ScheduleError(
                f"QuantizationAwareTraining.first is {self.first}, but the run has {end} epochs "
                f"(0 to {end - 1}): lower first or raise trainer.max_epochs"
            )
        total = trainer.estimated_stepping_batches
        if self.first_step is not None and self.first_step >= total:
            raise ScheduleError(
                f"QuantizationAwareTraining.first_step is {self.first_step}, but the run has "
                f"{total:g} training steps: lower it"
            )
        if self.first_step is not None and self.first_step < start * steps:
            raise ScheduleError(
                f"QuantizationAwareTraining begins at training step {self.first_step}, and the "
                f"epoch of the last pruning step of the run ends at step {start * steps:g}: raise "
                "first_step"
            )

    def has_begun(self, trainer: Trainer) -> bool:
        """Tell whether fake quantisation is on at this point of a run."""
        if self.first_step is not None:
            return trainer.global_step >= self.first_step
        return self.first is not None and trainer.current_epoch >= self.first

    def is_frozen(self, trainer: Trainer) -> bool:
        """Tell whether the ranges and norms stay at this point of a run."""
        if self.freeze_step is not None:
            return trainer.global_step >= self.freeze_step
        return self.freeze is not None and trainer.current_epoch >= self.freeze

    def plain(self) -> dict[str, Any]:
        """Return what is set as plain values, for the card."""
        return {name: value for name, value in asdict(self).items() if value is not None}
