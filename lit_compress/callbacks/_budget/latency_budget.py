"""How much to prune so that the int8 file takes a given share of the dense one's time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_compress.artifact.runtime import OnnxModel
from lit_compress.callbacks._budget.byte_budget import MOST, writer_of
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.example_inputs import ExampleInputs
from lit_compress.evaluation.run_view.copies import clone
from lit_compress.layer_times import LayerTimes, layers_of
from lit_compress.pruning import apply
from lit_compress.pruning.selection.state import PruningState
from lit_compress.pruning.selection.uniform import UniformSelector
from lit_compress.timing.in_turn import interleaved_times, warm_up
from lit_compress.timing.intervals import bootstrap, median_interval

#: The file takes at least this share of the time that it may take.
USED = 0.95
#: Share of the time that the search aims at.
AIM = 0.98
#: Files that are written at most, the dense one and the smallest one apart.
TRIES = 8
#: Halvings of the interval in which a share is searched by the times of layers.
HALVINGS = 14
#: Rounds in which two files are timed, and the seconds of a time slice.
ROUNDS, SLICE = 60, 0.01


class TimesInt8(Callback):
    """A callback that may time the final int8 file."""

    def time_again(self, file: Path) -> None:
        """Time the file that the run ends with.

        Args:
            file: The file.
        """


@dataclass(frozen=True)
class Timed:
    """The time of an int8 file, as a share of that of the dense network's int8 file.

    Attributes:
        ratio: The median over rounds in which both ran in turn.
        interval: Bootstrap interval of that median at 95 %.

    Example:
        >>> print(Timed(0.51, (0.5, 0.52)))
        51.0 % (50.0 to 52.0 %)
    """

    ratio: float
    interval: tuple[float, float]

    def __str__(self) -> str:
        low, high = (100 * end for end in self.interval)
        return f"{100 * self.ratio:.1f} % ({low:.1f} to {high:.1f} %)"


@dataclass(frozen=True)
class LatencyBudget:
    """What was found for a share of the time.

    Attributes:
        share: Share of the MACs to remove, as the selector is given it.
        timed: The time of the int8 file without them.
        tries: Number of files that were written to find it.
    """

    share: Fraction
    timed: Timed
    tries: int


class Stopwatch:
    """Times int8 files against that of the dense network, on one thread.

    Args:
        dense: The int8 file of the dense network.
        batch: Batch size.
    """

    def __init__(self, dense: bytes, batch: int) -> None:
        self._dense, self._batch = dense, batch

    def time(self, file: bytes) -> Timed:
        """Return the time of a file.

        Args:
            file: The content of the file.
        """
        runners = {"dense": self._runner(self._dense), "pruned": self._runner(file)}
        calls = {name: warm_up(run, 0.1, SLICE) for name, run in runners.items()}
        random = np.random.default_rng(0)
        times = interleaved_times(runners, calls, ROUNDS, random)
        ratios = times["pruned"] / times["dense"]
        interval = median_interval(ratios, bootstrap(random, ROUNDS), 0.95)
        return Timed(float(np.median(ratios)), interval)

    def _runner(self, content: bytes) -> Callable[[], object]:
        model = OnnxModel(Path("model.onnx"), threads=1, content=content)
        arrays = [
            np.zeros((self._batch, *one.shape) if one.batched else one.shape, one.dtype)
            for one in model.inputs
        ]
        return lambda: model.all_outputs(*arrays)


def share_of_time(
    trainer: Trainer,
    module: LightningModule,
    selector: Callable[[Fraction], UniformSelector],
    state: PruningState,
    example: ExampleInputs,
    allowed: float,
    batch: int,
    watch: Stopwatch | None = None,
) -> tuple[LatencyBudget, Stopwatch]:
    """Find the share of the MACs to remove for a file that takes at most a share of the time.

    The times of the layers on this machine tell which share to try; each one that is tried is
    written as a file, and timed against that of the dense network.

    Args:
        trainer: The run.
        module: The user's module; it does not change.
        selector: Returns what selects the channels, for a share of the MACs.
        state: The pruning state of the network.
        example: Example inputs of one batch for the part that is pruned.
        allowed: The share of the time, in (0, 1).
        batch: Batch size that the files are timed with.
        watch: What times files against the dense network, if that has lost blocks since. Default:
            the network is the dense one, and its file is written.

    Returns:
        What was found, and what times files against the dense one.

    Raises:
        InvalidArgumentError: If the smallest network takes longer.
    """
    writer, times = writer_of(trainer), LayerTimes(batch)

    def pruned(share: Fraction) -> LightningModule:
        copy = clone(trainer, module)
        apply(state.plan(selector(share).select(module, state).selected), copy)
        return copy

    @cache
    def seconds(share: Fraction) -> float:
        part = pruned(share).get_submodule(example.submodule).eval()
        return sum(times.seconds(layers_of(part, example.inputs)))

    whole = writer.int8_file(trainer, clone(trainer, module))
    against = Stopwatch(whole, batch) if watch is None else watch
    start = 1.0 if watch is None else against.time(whole).ratio

    def timed(share: Fraction) -> Timed:
        return against.time(writer.int8_file(trainer, pruned(share)))

    return _search(seconds, timed, allowed, start), against


def _search(
    seconds: Callable[[Fraction], float],
    timed: Callable[[Fraction], Timed],
    allowed: float,
    start: float = 1.0,
) -> LatencyBudget:
    """Return the share at which a time that falls with the share is just within a budget.

    Args:
        seconds: Returns the summed time of the layers for a share.
        timed: Returns the time of the file for a share.
        allowed: The share of the time.
        start: What the file takes if nothing is removed, as a share of the time.
    """
    if start <= allowed:
        return LatencyBudget(Fraction(0), timed(Fraction(0)), 1)
    most = _fraction(MOST)
    floor = timed(most)
    if floor.ratio > allowed:
        reachable = int(100 * (1 - floor.ratio)) / 100
        raise InvalidArgumentError(
            f"the int8 file cannot take {100 * allowed:.1f} % of the dense one's time: the "
            f"smallest network that was found takes {floor}. Set target to at most "
            f"{reachable:.2f}, or let more layers lose channels (include, exclude, "
            "min_channels, round_to)"
        )
    known = {seconds(Fraction(0)): start, seconds(most): floor.ratio}
    best = LatencyBudget(most, floor, 1)
    for tries in range(2, TRIES + 2):
        wanted = _time_for(known, AIM * allowed)
        share = _share_for(seconds, wanted)
        if share == best.share:
            break
        found = timed(share)
        known[seconds(share)] = found.ratio
        if best.timed.ratio < found.ratio <= allowed:
            best = LatencyBudget(share, found, tries)
        if USED * allowed <= best.timed.ratio:
            break
    return best


def _time_for(known: dict[float, float], ratio: float) -> float:
    """Return the summed time of layers at which a file should take a share of the time.

    Args:
        known: Shares of the time that were measured, by the summed time of layers.
        ratio: The share.
    """
    times = np.array(sorted(known))
    ratios = np.maximum.accumulate([known[time] for time in times])
    known_logs, time_logs = (np.log(np.maximum(values, 1e-12)) for values in (ratios, times))
    return float(np.exp(np.interp(np.log(ratio), known_logs, time_logs)))


def _share_for(seconds: Callable[[Fraction], float], wanted: float) -> Fraction:
    """Return the smallest share at which the layers take at most a time."""
    low, high = 0.0, MOST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if seconds(_fraction(middle)) > wanted:
            low = middle
        else:
            high = middle
    return _fraction(high)


def _fraction(share: float) -> Fraction:
    return Fraction(share).limit_denominator(1_000_000)
