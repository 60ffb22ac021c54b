"""The monitored metric of a network, or of a file that takes its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import isfinite, sqrt
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from lit_compress.artifact import Metric
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.last_validation.input_sums import InputSums
from lit_compress.evaluation.loaders import validation_loaders
from lit_compress.evaluation.ranks.validation import Task, validate_shared
from lit_compress.evaluation.run_view.copies import clone
from lit_compress.evaluation.validate import Position, validate
from lit_compress.measure.metric_names import higher_is_better

#: Quantile of the normal distribution for a two-sided interval of 95 %.
Z_95 = 1.959964


def measure_metric(
    trainer: Trainer,
    module: LightningModule,
    loaders: list[Any],
    monitor: str,
    target: nn.Module,
    runner: Callable[..., Any] | None = None,
    limit: int | None = None,
    inputs: InputSums | None = None,
    source: Callable[[Trainer], list[Any]] = validation_loaders,
) -> Metric | None:
    """Measure the monitored metric of a network by the user's validation.

    The processes of a run share it, while the first one works alone.

    Args:
        trainer: The run in progress.
        module: A copy of the user's module.
        loaders: Loaders to validate on.
        monitor: Key that the module's ``validation_step`` logs.
        target: The network in ``module`` that is measured.
        runner: Takes the place of the network's forward; None measures the network itself.
        limit: Largest number of batches of each loader. Default: as in the run.
        inputs: What the network takes is added to it.
        source: Returns the loaders in another process of the run: a function of a module.

    Returns:
        The metric, or None (with a warning) if it is not a finite number.

    Raises:
        InvalidArgumentError: If the key is not logged, or validation never calls the network.
    """
    name = next(name for name, child in module.named_modules() if child is target)
    task = Task(source, limit, name, runner)
    found = validate_shared(
        trainer, module, loaders, task, bar=f"measuring {monitor}", inputs=inputs
    )
    metrics, seen, at = found.metrics, found.counts.images, found.position
    check_monitor(monitor, metrics)
    if not seen:
        raise InvalidArgumentError(
            f"validation_step of {type(module).__name__} never calls the network that is exported: "
            "name the part that it calls by submodule"
        )
    count = _count(seen, at, monitor)
    value = metrics[monitor]
    if not isfinite(value):
        rank_zero_warn(f"{monitor} is {value}, so the card has none")
        return None
    table = found.counts.confusion.table if len({loader for loader, _ in seen}) == 1 else None
    return Metric(monitor, value, "val", count, accuracy_interval(monitor, value, count), table)


def _count(seen: dict[tuple[int, int], int], at: Position, monitor: str) -> int:
    """Return how many images a metric is of: those of the batches that logged it.

    A metric that no batch logged, but the end of the epoch, is of all images.
    """
    name, _, number = monitor.partition("/dataloader_idx_")
    batches = {batch for batch in at.logged.get(name, seen) if number in ("", str(batch[0]))}
    return sum(count for batch, count in seen.items() if batch in batches)


def check_monitor(monitor: str, metrics: Iterable[str]) -> None:
    """Check that a key is among the logged ones.

    Args:
        monitor: The key.
        metrics: The keys that were logged.

    Raises:
        InvalidArgumentError: If it is not.
    """
    names = sorted(metrics)
    if monitor not in names:
        raise InvalidArgumentError(
            f"monitor {monitor!r} is not logged by the validation; it logs: "
            f"{', '.join(names) or 'nothing'}"
        )


def check_logged(trainer: Trainer, module: LightningModule, monitor: str) -> None:
    """Check that the validation of a run logs a key, by a validation of one batch on a copy.

    Args:
        trainer: The run in progress.
        module: The user's module; it does not change.
        monitor: The key.

    Raises:
        InvalidArgumentError: If it is not logged, or there is no validation data.
    """
    loaders = validation_loaders(trainer)
    if not loaders:
        raise InvalidArgumentError(
            f"monitor is {monitor!r}, but the fit has no validation data to measure it on: add "
            "validation data, or leave monitor out"
        )
    with isolate_rng():
        check_monitor(monitor, validate(trainer, clone(trainer, module), loaders, 1))


def metric_rises(
    trainer: Trainer, module: LightningModule, loaders: list[Any], monitor: str
) -> bool:
    """Tell whether more of a metric is better: by its name, or by the metric object that is logged.

    Args:
        trainer: The run in progress.
        module: A copy of the user's module.
        loaders: Loaders to validate on, if the name does not say it.
        monitor: Key that the module's ``validation_step`` logs.

    Raises:
        InvalidArgumentError: If neither says it.
    """
    rises = higher_is_better(monitor)
    if rises is None and loaders:
        at = Position()
        validate(trainer, module, loaders, 1, position=at)
        rises = at.higher_is_better.get(monitor)
    if rises is None:
        raise InvalidArgumentError(
            f"mode: auto cannot tell whether more or less of {monitor} is better: set mode: max if "
            "more is better, mode: min if less is"
        )
    return rises


def accuracy_interval(name: str, value: float, n: int) -> tuple[float, float] | None:
    """Return the 95 % interval of an accuracy (Wilson 1927), None for any other metric.

    Args:
        name: Name of the metric; that of an accuracy contains ``acc``.
        value: Its value; an accuracy is a whole number of hits divided by ``n``.
        n: Number of images.

    Example:
        >>> tuple(round(bound, 3) for bound in accuracy_interval("val_acc", 0.9, 100))
        (0.826, 0.945)
    """
    hits = value * n
    if "acc" not in name.lower() or not 0 <= value <= 1 or abs(hits - round(hits)) > 0.02:
        return None
    z = Z_95
    centre = (value + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(value * (1 - value) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
