"""Call functions in turn and time them, so that every one sees the same state of the machine.

It needs numpy alone: an artefact is timed where torch is not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter

import numpy as np

#: A function without arguments that runs one batch.
Runner = Callable[[], object]
#: Fewest rounds: of fewer, an interval of medians says nothing.
FEWEST = 10


def warm_up(run: Runner, seconds: float, slice_seconds: float) -> int:
    """Call a runner until it is warm, and return how many calls fill one time slice.

    Args:
        run: The runner; it is called at least twice.
        seconds: Time to warm up.
        slice_seconds: Length of one time slice in seconds.

    Returns:
        The number of calls, at least 1, from the fastest call of the warm-up.
    """
    start, count, best = perf_counter(), 0, float("inf")
    while count < 2 or perf_counter() - start < seconds:
        before = perf_counter()
        run()
        best = min(best, perf_counter() - before)
        count += 1
    return max(1, round(slice_seconds / max(best, 1e-7)))


def interleaved_times(
    runners: Mapping[str, Runner],
    calls: Mapping[str, int],
    rounds: int,
    random: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Time runners in turn: in each round every runner once, in random order.

    Args:
        runners: The runners by name.
        calls: Number of calls in one time slice, by name.
        rounds: Number of rounds.
        random: Generator for the orders.

    Returns:
        By name, the mean seconds per call in each round, of shape (rounds,).
    """
    names = list(runners)
    times = {name: np.empty(rounds) for name in names}
    for index in range(rounds):
        for position in random.permutation(len(names)):
            name = names[position]
            times[name][index] = _seconds_per_call(runners[name], calls[name])
    return times


def affordable_rounds(seconds_per_round: float, seconds: float, rounds: int) -> int:
    """Return how many rounds a time allows: at most ``rounds``, and at least 10.

    Args:
        seconds_per_round: Time of one round in seconds.
        seconds: Time for all rounds in seconds.
        rounds: The wanted number of rounds.

    Example:
        >>> [affordable_rounds(each, seconds=10.0, rounds=60) for each in (0.01, 0.5, 8.0)]
        [60, 20, 10]
    """
    return max(FEWEST, min(rounds, int(seconds / max(seconds_per_round, 1e-9))))


def _seconds_per_call(run: Runner, count: int) -> float:
    run()  # not timed: loads the data into the cache again, after the other runners
    start = perf_counter()
    for _ in range(count):
        run()
    return (perf_counter() - start) / count
