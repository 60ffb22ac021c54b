"""The metric of a scan, and how much of it a trial loses."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from lightning.pytorch.utilities import rank_zero_info

from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.metric import accuracy_interval, check_monitor
from lit_compress.measure.metric_names import higher_is_better
from lit_compress.sensitivity.options import ScanOptions
from lit_compress.sensitivity.table import Row


class MetricDrop:
    """Computes how much worse the metric of a row is than that of the unpruned network.

    Args:
        monitor: Key of the metric.
        options: The options of the scan.
        baseline: The metric of the unpruned network.

    Attributes:
        sign: 1 if a larger metric is better, -1 if a smaller one is.
        limit: The metric at which the tolerance ends.
    """

    def __init__(self, monitor: str, options: ScanOptions, baseline: float) -> None:
        self.monitor = monitor
        rises = higher_is_better(monitor) if options.mode == "auto" else options.mode == "max"
        if rises is None:
            raise InvalidArgumentError(
                f"mode: auto cannot tell whether more or less of {monitor} is better: set mode: "
                "max if more is better, mode: min if less is"
            )
        self.sign = 1 if rises else -1
        self.baseline = baseline
        self.limit = baseline - self.sign * options.tolerance

    def drop(self, row: Row) -> float:
        """Return the drop of a row's metric: positive if it is worse, infinity if it is NaN."""
        value = row.scores.get(self.monitor, float("nan"))
        drop = self.sign * (self.baseline - value)
        # Metrics are float32, of 7 digits. Rounding makes 0.93 - 0.92 equal to a tolerance of 0.01.
        return round(drop, 6) if drop == drop else float("inf")


def metric_of_scan(given: str | None, baseline: Mapping[str, float]) -> str:
    """Return the key of the metric: the given one, or the first that looks like a metric.

    Args:
        given: The key that the user gave.
        baseline: The metrics of the unpruned network, by key.

    Raises:
        InvalidArgumentError: If the given key is not logged, or none looks like a metric.
    """
    if given is not None:
        check_monitor(given, baseline)
        return given
    for word in ("acc", "f1", "auroc", "iou", "loss"):
        for name in baseline:
            if word in name.lower():
                rank_zero_info(f"scan: the metric is {name}, the first key that looks like one")
                return name
    raise InvalidArgumentError(
        "give a monitor: none of the keys that validation_step logs looks like a metric "
        f"({', '.join(baseline) or 'it logs nothing'})"
    )


def tell_coarse_steps(monitor: str, value: float, size: int, tolerance: float) -> None:
    """Say it if one example changes an accuracy by more than the tolerance.

    Args:
        monitor: Key of the metric.
        value: The metric of the unpruned network.
        size: Number of examples that it is measured on.
        tolerance: How much of it may be lost.
    """
    if accuracy_interval(monitor, value, size) is not None and 0 < tolerance < 1 / size:
        rank_zero_info(
            f"scan: one of the {size} examples changes {monitor} by {1 / size:.2g}, more than the "
            f"tolerance of {tolerance:g}, so no single error is tolerated: measure on at least "
            f"{ceil(1 / tolerance)} examples (images, and as much validation data), or raise "
            "tolerance"
        )
