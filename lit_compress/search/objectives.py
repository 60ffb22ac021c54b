"""What a search makes large or small: a metric, and what the network costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from lightning.pytorch import Trainer

from lit_compress.artifact.card import Card
from lit_compress.callbacks import Compress, CompressionReport, PostTrainingQuantization
from lit_compress.errors import SearchError
from lit_compress.evaluation.trainer_access import callbacks_of_type
from lit_compress.measure.metric_names import higher_is_better

#: What a network costs; each is to be small.
COSTS = ("bytes", "macs", "parameters", "latency")
HOW = f"name a metric that validation_step logs, or one of {', '.join(COSTS)}"
CARD = "a callback that writes a card: CompressionReport, PostTrainingQuantization or Compress"


@dataclass(frozen=True)
class Objective:
    """One figure of a trial that is made large or small.

    It is read from the card of the trial, and is that of the network that is deployed: of the int8
    file where the fit writes one, otherwise of the trained network.

    Attributes:
        name: A metric that ``validation_step`` logs, or one of ``COSTS``.
        maximize: Whether more is better.

    Example:
        >>> Objective("bytes", maximize=False).is_cost
        True
    """

    name: str
    maximize: bool

    @property
    def is_cost(self) -> bool:
        """Whether it is what the network costs, and no metric."""
        return self.name in COSTS

    @property
    def direction(self) -> str:
        """The direction, in Optuna's words."""
        return "maximize" if self.maximize else "minimize"

    def value(self, card: Card) -> float:
        """Return the figure of a finished fit.

        Args:
            card: The card of the fit.

        Raises:
            SearchError: If the card does not have it.
        """
        variant = card.variants[-1]
        if self.name == "latency":
            found = None if variant.latency is None else variant.latency.seconds
        elif self.is_cost:
            found = getattr(variant, self.name)
        else:
            metric = variant.metric
            found = metric.value if metric is not None and metric.name == self.name else None
        if found is None or not isfinite(found):
            reason = f"; {variant.note}" if variant.note else ""
            raise SearchError(f"the card has {found} for {self.name} of {variant.name}{reason}")
        return float(found)


def read_objectives(given: Any) -> tuple[Objective, ...]:
    """Return the objectives of a search file.

    Args:
        given: A list of names, or of ``{metric: name, mode: max}`` for a metric whose name does not
            say whether more is better.

    Raises:
        SearchError: If one of them is none.

    Example:
        >>> [objective.direction for objective in read_objectives(["val_acc", "bytes"])]
        ['maximize', 'minimize']
    """
    if not isinstance(given, list) or not given:
        raise SearchError(f"objectives: expected a list, got {given!r}: {HOW}")
    found = tuple(map(_read, given))
    names = [objective.name for objective in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise SearchError(f"objectives: {twice[0]} is given twice")
    if len(metrics := [one.name for one in found if not one.is_cost]) > 1:
        raise SearchError(
            f"objectives: a card has one metric, and {' and '.join(metrics)} are two: log one that "
            "combines them"
        )
    return found


def _read(given: Any) -> Objective:
    entry = {"metric": given} if isinstance(given, str) else given
    if not isinstance(entry, Mapping) or not {"metric"} <= entry.keys() <= {"metric", "mode"}:
        raise SearchError(f"objectives: {given!r} is none: {HOW}")
    name, mode = entry["metric"], entry.get("mode", "auto")
    if not isinstance(name, str) or mode not in ("auto", "max", "min"):
        raise SearchError(f"objectives: {given!r}: metric is a name, and mode is max or min")
    if name in COSTS:
        if mode == "max":
            raise SearchError(f"objectives: {name} is what a network costs: leave mode: max out")
        return Objective(name, maximize=False)
    better = higher_is_better(name) if mode == "auto" else mode == "max"
    if better is None:
        raise SearchError(
            f"objectives: the name {name!r} does not say whether more is better: write "
            f"{{metric: {name}, mode: max}} or mode: min"
        )
    return Objective(name, better)


def check_objectives(objectives: Sequence[Objective], trainer: Trainer) -> None:
    """Check that the callbacks of a fit measure what a search compares.

    Args:
        objectives: The objectives.
        trainer: The Trainer of the fit; it has not run.

    Raises:
        SearchError: If a callback is missing, or watches another metric.
    """
    reports, recipes = (callbacks_of_type(trainer, k) for k in (CompressionReport, Compress))
    quantizers = callbacks_of_type(trainer, PostTrainingQuantization)
    owners: list[Any] = [
        *quantizers[:1],
        *recipes[:1],
        *reports[:1],
    ]  # the first one names the metric
    if not owners:
        raise SearchError(f"objectives are read from the card of a fit: add {CARD}")
    if len(quantizers) > 1:
        raise SearchError(
            f"the fit writes {len(quantizers)} int8 files, and a search compares one: remove "
            f"{type(quantizers[1]).__name__}"
        )
    for objective in objectives:
        if objective.name == "latency" and not reports and not recipes:
            raise SearchError("objectives: latency is measured by CompressionReport: add it")
        monitor = owners[0].monitor
        if not objective.is_cost and monitor != objective.name:
            raise SearchError(
                f"objectives: {type(owners[0]).__name__} measures {monitor}, not "
                f"{objective.name}: set its monitor to {objective.name}"
            )
