"""How far apart a network's training and validation accuracy are, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class StepAccuracy:
    """What a network reached at one step of a run.

    Attributes:
        step: Name of the step, such as ``reference``, ``overfitted`` or ``pruned``.
        epoch: Epochs trained by then.
        train: The metric on the training data, in eval mode and without augmentation.
        val: The metric on the validation data; None if there are none.
    """

    step: str
    epoch: int
    train: float
    val: float | None

    @property
    def gap(self) -> float | None:
        """Training minus validation metric."""
        return None if self.val is None else self.train - self.val


def gap_table(steps: Sequence[StepAccuracy], metric: str) -> str:
    """Return steps as a table: metric on training and validation data, and the gap.

    Args:
        steps: In order.
        metric: Name of the metric.
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
