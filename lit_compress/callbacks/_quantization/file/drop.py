"""Search for the file that keeps a metric with the fewest layers in float."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lit_compress.artifact import Metric
from lit_compress.callbacks._quantization.settings import Settings
from lit_compress.errors import AccuracyError
from lit_compress.quantization.search import SearchResult, fewest_floats


@dataclass(frozen=True)
class FoundFile:
    """The file that was chosen.

    Attributes:
        floats: Names of its layers that are in float.
        metric: What was measured of it.
        evaluations: Number of files that were written and measured.
    """

    floats: frozenset[str]
    metric: Metric | None
    evaluations: int


@dataclass(frozen=True)
class DropSearch:
    """Writes files with more and more layers in float, until one keeps the metric.

    Attributes:
        settings: How the network is converted.
        reference: The metric of the float network.
        rises: Whether more of the metric is better.
        sets: By number of the file, the layers that are in float; the last has most.
        layers: Number of layers of the network.
        write: Writes a file with layers in float, and returns its metric.
    """

    settings: Settings
    reference: Metric
    rises: bool
    sets: Sequence[frozenset[str]]
    layers: int
    write: Callable[[Path, frozenset[str]], Metric | None]

    def run(self, path: Path, allowed: float) -> FoundFile:
        """Write the file that keeps the metric with the fewest layers in float.

        Args:
            path: Path of the file.
            allowed: How much of the metric it may lose.

        Raises:
            AccuracyError: If no file keeps the metric and ``on_drop`` is ``error``.
        """
        metrics = dict[int, Metric | None]()

        def drop(count: int) -> float:
            metrics[count] = None  # its file is removed also if the measurement fails
            metrics[count] = metric = self.write(_numbered(path, count), self.sets[count])
            lost = float("inf") if metric is None else lost_of(self.reference, metric, self.rises)
            rank_zero_info(
                f"{self.settings.monitor} {_change(lost)} with {len(self.sets[count])} of "
                f"{self.layers} layers in float"
            )
            return lost

        try:
            found = fewest_floats(len(self.sets), drop, allowed)
            if not found.holds:
                self._give_up(found, allowed)
            os.replace(_numbered(path, found.count), path)
        finally:
            for count in metrics:
                _numbered(path, count).unlink(missing_ok=True)
        return FoundFile(self.sets[found.count], metrics[found.count], found.evaluations)

    def _give_up(self, found: SearchResult, allowed: float) -> None:
        reference = self.reference
        message = (
            f"max_drop {allowed:g} cannot be kept: {reference.name} is {reference.value:.4f} in "
            f"float and drops by {found.drop:.4f} at best, over {found.evaluations} files, the "
            "last with all but one layer in float: allow a larger drop, or train longer"
        )
        if self.settings.on_drop == "error":
            raise AccuracyError(f"{message}; no artefact was written")
        rank_zero_warn(f"{message}; the file with the smallest drop was written")


def lost_of(reference: Metric, metric: Metric, rises: bool) -> float:
    """Return how much of a metric is lost; less than zero if it is better.

    Args:
        reference: The metric of the float network.
        metric: That of a file.
        rises: Whether more is better.
    """
    return (reference.value - metric.value) * (1 if rises else -1)


def _numbered(path: Path, count: int) -> Path:
    return path.with_name(f".{path.stem}-{count}{path.suffix}")


def _change(lost: float) -> str:
    """Return in words what int8 does to a metric."""
    return f"gets worse by {lost:.4f}" if lost > 0 else f"gets no worse ({-lost:.4f} better)"
