"""Table of the gap between training and validation accuracy, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class StepAccuracy:
    """Accuracy of a network at one step of a run.

    Attributes:
        step: Name of the step, such as ``reference``, ``overfitted`` or ``pruned``.
        epoch: Number of epochs trained before the step.
        train: Metric on the training data, in eval mode and without augmentation.
        val: Metric on the validation data; None if there is no validation data.

    Example:
        >>> StepAccuracy("pruned", epoch=3, train=1.0, val=0.75).gap
        0.25
    """

    step: str
    epoch: int
    train: float
    val: float | None

    @property
    def gap(self) -> float | None:
        """Training metric minus validation metric; None if there is no validation data."""
        return None if self.val is None else self.train - self.val


def gap_table(steps: Sequence[StepAccuracy], metric: str) -> str:
    """Return a table with a row per step: metric on training and validation data, and the gap.

    Args:
        steps: The steps, in order.
        metric: Name of the metric, for the header.

    Example:
        >>> print(gap_table([StepAccuracy("pruned", 3, 1.0, 0.75)], "acc"))
        acc     epochs  training  validation      gap
        ------  ------  --------  ----------  -------
        pruned       3    1.0000      0.7500  +0.2500
    """
    rows = [(metric, "epochs", "training", "validation", "gap")]
    rows += [
        (r.step, str(r.epoch), _share(r.train), _share(r.val), _share(r.gap, "+")) for r in steps
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _share(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.4f}"
