"""Time rows in turn: all networks and runtimes of one batch and one number of threads."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from lit_compress.benchmark.measured import Measured
from lit_compress.benchmark.options import Options
from lit_compress.benchmark.subjects.subject import Subject
from lit_compress.timing.in_turn import Runner, affordable_rounds, interleaved_times, warm_up
from lit_compress.timing.intervals import Speedup, bootstrap, median_interval, speedup

#: Confidence of the interval of a median, and of a ratio.
MEDIAN, RATIO = 0.95, 0.99
#: Seconds that each runner runs before it is timed, and the length of a time slice.
WARM_UP, SLICE = 0.2, 0.004
#: Random seed of the orders and of the bootstrap.
SEED = 0


@dataclass(frozen=True)
class Row:
    """A row before it is measured.

    Attributes:
        place: 0 for the first network, 1 for the second.
        subject: The network.
        runtime: The runtime.
        threads: Number of threads.
        batch: Number of examples in a call.
    """

    place: int
    subject: Subject
    runtime: str
    threads: int
    batch: int

    def runner(self) -> Runner:
        """Return a function that runs one batch."""
        return self.subject.runner(self.runtime, self.threads, self.batch)


def time_rows(rows: Sequence[Row], options: Options) -> list[Measured]:
    """Time rows in turn, and compare those of the first network with those of the second.

    Args:
        rows: Rows of one batch and one number of threads.
        options: How to measure.
    """
    runners = {str(index): row.runner() for index, row in enumerate(rows)}
    random = np.random.default_rng(SEED)
    with ExitStack() as blocks:
        for row in rows:
            blocks.enter_context(row.subject.with_threads(row.threads))
        warm = min(WARM_UP, options.seconds)
        calls = {name: warm_up(run, warm, SLICE) for name, run in runners.items()}
        rounds = _rounds(runners, calls, options)
        times = interleaved_times(runners, calls, rounds, random)
    draws = bootstrap(random, rounds)
    return [
        _measured(row, times[str(index)], draws, _speedups(rows, index, times, draws))
        for index, row in enumerate(rows)
    ]


def _rounds(runners: dict[str, Runner], calls: dict[str, int], options: Options) -> int:
    """Return how many rounds the time limit allows, from the time of one call of each."""
    seconds = 0.0
    for name, run in runners.items():
        start = perf_counter()
        run()
        seconds += (perf_counter() - start) * (calls[name] + 1)
    return affordable_rounds(seconds, options.seconds, options.rounds)


def _speedups(
    rows: Sequence[Row], index: int, times: dict[str, np.ndarray], draws: np.ndarray
) -> tuple[Speedup, ...]:
    """Compare a row of the first network with the second's in the same runtime, or in any."""
    if rows[index].place:
        return ()
    others = [place for place, row in enumerate(rows) if row.place]
    same = [place for place in others if rows[place].runtime == rows[index].runtime]
    return tuple(
        speedup(rows[place].runtime, times[str(place)] / times[str(index)], draws, RATIO)
        for place in same or others
    )


def _measured(
    row: Row, times: np.ndarray, draws: np.ndarray, speedups: tuple[Speedup, ...]
) -> Measured:
    seconds = float(np.median(times))
    return Measured(
        file=row.subject.name,
        kind=row.subject.kind,
        runtime=row.runtime,
        batch=row.batch,
        threads=row.threads,
        rounds=len(times),
        seconds=seconds,
        interval=median_interval(times, draws, MEDIAN),
        examples_per_second=row.batch / seconds,
        inputs=row.subject.inputs_text(row.batch),
        speedups=speedups,
    )
