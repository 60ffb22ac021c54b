"""Search for the file that keeps a metric with the fewest layers in float."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lit_compress.artifact import Metric, OnnxModel
from lit_compress.callbacks._quantization.settings import Settings
from lit_compress.errors import AccuracyError
from lit_compress.quantization.search import SearchResult, fewest_floats


@dataclass(frozen=True)
class MeasuredFile:
    """A file that was written and measured.

    Attributes:
        model: The file, in a runtime.
        metric: What was measured of it.
    """

    model: OnnxModel
    metric: Metric | None


@dataclass(frozen=True)
class FoundFile:
    """The file that was chosen.

    Attributes:
        floats: Names of its layers that are in float.
        file: What was measured of it.
        evaluations: Number of files that were written and measured.
    """

    floats: frozenset[str]
    file: MeasuredFile
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
        write: Writes a file with layers in float, and measures it.
    """

    settings: Settings
    reference: Metric
    rises: bool
    sets: Sequence[frozenset[str]]
    layers: int
    write: Callable[[Path, frozenset[str]], MeasuredFile]

    def run(self, path: Path, allowed: float) -> FoundFile:
        """Write the file that keeps the metric with the fewest layers in float.

        Args:
            path: Path of the file.
            allowed: How much of the metric it may lose.

        Raises:
            AccuracyError: If no file keeps the metric and ``on_drop`` is ``error``.
        """
        drops, opened = dict[int, float](), dict[int, MeasuredFile]()

        def drop(count: int) -> float:
            drops[count] = float("inf")  # its file is removed also if the measurement fails
            opened[count] = file = self.write(_numbered(path, count), self.sets[count])
            drops[count] = lost = self._lost(file)
            for other in [other for other in opened if other != _best(drops, allowed)]:
                del opened[other]  # it holds the weights in memory
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
            for count in drops:
                _numbered(path, count).unlink(missing_ok=True)
        return FoundFile(self.sets[found.count], opened[found.count], found.evaluations)

    def _lost(self, file: MeasuredFile) -> float:
        if file.metric is None:
            return float("inf")
        return lost_of(self.reference, file.metric, self.rises)

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


def _best(drops: Mapping[int, float], allowed: float) -> int:
    """Return the file that the search would choose now: the first whose drop is allowed."""
    holding = [count for count, drop in drops.items() if drop <= allowed]
    return min(holding) if holding else min(drops, key=lambda count: (drops[count], count))


def _numbered(path: Path, count: int) -> Path:
    return path.with_name(f".{path.stem}-{count}{path.suffix}")


def _change(lost: float) -> str:
    """Return in words what int8 does to a metric."""
    return f"gets worse by {lost:.4f}" if lost > 0 else f"gets no worse ({-lost:.4f} better)"
