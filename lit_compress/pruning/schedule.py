"""When to prune, and which share of the target is due at each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, get_args

from lit_compress.errors import ScheduleError

Shape = Literal["cubic", "linear", "one_shot"]


@dataclass(frozen=True)
class Schedule:
    """The epochs of the pruning steps, and the share of the target due at each.

    With ``N`` pruning steps, the share due at step ``i`` (from 1) is ``i / N`` (linear) or
    ``1 - (1 - i / N)**3`` (cubic: Zhu & Gupta 2017, arXiv 1710.01878, equation 1). The last step
    always reaches the whole target.

    Attributes:
        first: Epoch of the first pruning step, from 0; the network trains unpruned until then.
        last: Latest epoch at which to prune; at least one epoch must follow it. None: two thirds
            of ``max_epochs``.
        every: Epochs from one pruning step to the next, at least 1.
        shape: ``cubic`` prunes much early and little late, ``linear`` the same amount at each step,
            ``one_shot`` everything at ``first``.

    Raises:
        ScheduleError: If an argument is out of range, or ``last`` comes before ``first``.

    Example:
        >>> schedule = Schedule(first=1, every=2, shape="linear").resolve(max_epochs=10)
        >>> list(schedule.events())
        [1, 3, 5]
        >>> [float(schedule.share(epoch)) for epoch in (0, 5)]
        [0.0, 1.0]
    """

    first: int = 0
    last: int | None = None
    every: int = 1
    shape: Shape = "cubic"

    def __post_init__(self) -> None:
        for name, low in (("first", 0), ("last", 0), ("every", 1)):
            value = getattr(self, name)
            if value is None and name == "last":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ScheduleError(
                    f"schedule.{name} must be a whole number of at least {low}, got {value!r}"
                )
        if self.shape not in get_args(Shape):
            raise ScheduleError(
                f"schedule.shape must be one of {', '.join(get_args(Shape))}, got {self.shape!r}"
            )
        if self.last is not None and self.last < self.first:
            raise ScheduleError(
                f"schedule.last ({self.last}) comes before schedule.first ({self.first}): "
                "raise last or lower first"
            )

    def resolve(self, max_epochs: int | None) -> Schedule:
        """Return this schedule with ``last`` set for a run of ``max_epochs`` epochs.

        Args:
            max_epochs: Number of epochs of the run; ``None`` or ``-1`` means no limit.

        Raises:
            ScheduleError: If the run is too short, or has no limit while ``last`` is None.
        """
        if max_epochs is None or max_epochs < 0:
            if self.last is None and self.shape != "one_shot":
                raise ScheduleError(
                    "schedule.last must be given when the run has no max_epochs: "
                    "set schedule.last, or trainer.max_epochs"
                )
            return self if self.last is not None else replace(self, last=self.first)
        if self.first >= max_epochs:
            raise ScheduleError(
                f"schedule.first is {self.first}, but the run has {max_epochs} "
                f"{'epoch' if max_epochs == 1 else 'epochs'} (0 to {max_epochs - 1}): lower "
                "schedule.first or raise trainer.max_epochs"
            )
        if self.last is None:
            default = min(max_epochs * 2 // 3, max_epochs - 2)
            return replace(self, last=max(self.first, default))
        if self.last > max_epochs - 2:
            raise ScheduleError(
                f"schedule.last is {self.last}, but a run of {max_epochs} epochs "
                f"(0 to {max_epochs - 1}) must train at least one epoch after the last pruning "
                f"step: set schedule.last to {max_epochs - 2} at most, or trainer.max_epochs to at "
                f"least {self.last + 2}"
                if max_epochs > 1
                else f"schedule.last is {self.last}, but a run of 1 epoch has no epoch after it: "
                f"set trainer.max_epochs to at least {self.last + 2}, or remove schedule.last"
            )
        return self

    def earlier(self, epochs: int) -> Schedule:
        """Return this schedule moved ``epochs`` earlier; no pruning step comes before epoch 0."""
        last = None if self.last is None else max(0, self.last - epochs)
        return replace(self, first=max(0, self.first - epochs), last=last)

    def events(self) -> Sequence[int]:
        """Return the epochs of the pruning steps, in rising order.

        Raises:
            ScheduleError: If ``last`` is not set: call :meth:`resolve` first.
        """
        if self.shape == "one_shot":
            return range(self.first, self.first + 1)
        if self.last is None:
            raise ScheduleError("schedule.last is not set: call resolve(max_epochs) first")
        return range(self.first, self.last + 1, self.every)

    def share(self, epoch: int) -> Fraction:
        """Return the exact share of the target, in [0, 1], that is due at the start of ``epoch``.

        Raises:
            ScheduleError: If ``last`` is not set: call :meth:`resolve` first.
        """
        events = self.events()
        done = sum(event <= epoch for event in events)
        if self.shape == "cubic":
            return 1 - (1 - Fraction(done, len(events))) ** 3
        return Fraction(done, len(events))
