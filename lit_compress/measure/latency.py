"""Measure how much faster one function is than another: timed in turn, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lit_compress.errors import InvalidArgumentError
from lit_compress.measure.torch_runner import torch_threads
from lit_compress.timing.in_turn import FEWEST, Runner, interleaved_times, warm_up
from lit_compress.timing.intervals import Speedup, bootstrap, median_interval, speedup


@dataclass(frozen=True)
class Latency:
    """Time of one call of a runner.

    Attributes:
        seconds: Median over the rounds, in seconds.
        interval: Bootstrap interval of that median as (low, high), in seconds.
        batch: Number of images per call.
        threads: Number of threads.
        rounds: Number of rounds.
        confidence: Confidence of all intervals, in (0, 1).
        speedups: Comparison with each baseline.
    """

    seconds: float
    interval: tuple[float, float]
    batch: int
    threads: int
    rounds: int
    confidence: float
    speedups: tuple[Speedup, ...] = ()


def compare(
    runners: Mapping[str, Runner],
    *,
    baselines: Mapping[str, tuple[str, ...]] | None = None,
    batch: int = 1,
    threads: int = 1,
    rounds: int = 60,
    warmup: float = 0.2,
    slice_seconds: float = 0.004,
    confidence: float = 0.99,
    seed: int = 0,
) -> dict[str, Latency]:
    """Time several runners in turn, and compare each one with its baselines.

    After the warm-up, each round calls every runner for one time slice, in a new random order, so
    that a drift of the machine affects all alike. The ratio of two runners is the median of their
    ratios in each round. Its interval is a percentile bootstrap over the rounds (Efron and
    Tibshirani 1993, An Introduction to the Bootstrap), widened by ``RESOLUTION`` (0.5 %): repeated
    rounds do not average out where the data lie in memory.

    Args:
        runners: The functions to time, by name. Each takes no argument and runs one batch.
        baselines: By name of a runner, the names of the runners to compare it with. Default: every
            runner with the first one.
        batch: Number of images per call, only stored in the result.
        threads: Number of PyTorch threads during the measurement, at least 1. Other runtimes have
            their own setting.
        rounds: Number of rounds, at least 10.
        warmup: Seconds that each runner runs before it is timed.
        slice_seconds: Length of a time slice in seconds; a fast runner is called several times.
        confidence: Confidence of the intervals, in (0, 1). At 0.99, a comparison of a function with
            itself gives "no difference" in at least 95 of 100 runs on a noisy machine.
        seed: Random seed of the orders and the bootstrap.

    Returns:
        The latency of each runner by name, with its comparisons in ``speedups``.

    Raises:
        InvalidArgumentError: If there is no runner, a baseline is unknown, or a number is out of
            its range.

    Example:
        >>> from lit_compress.measure import compare
        >>> runners = {"small": lambda: sum(range(100)), "large": lambda: sum(range(2000))}
        >>> times = compare(runners, rounds=10, warmup=0, slice_seconds=0.0005)
        >>> times["large"].speedups[0].over, times["large"].rounds
        ('small', 10)
    """
    _check_numbers(rounds, threads, batch, confidence)
    names = list(runners)
    baselines = _checked_baselines(names, baselines)
    random = np.random.default_rng(seed)
    with torch_threads(threads):
        calls = {name: warm_up(run, warmup, slice_seconds) for name, run in runners.items()}
        times = interleaved_times(runners, calls, rounds, random)
    draws = bootstrap(random, rounds)
    return {
        name: Latency(
            seconds=float(np.median(times[name])),
            interval=median_interval(times[name], draws, confidence),
            batch=batch,
            threads=threads,
            rounds=rounds,
            confidence=confidence,
            speedups=tuple(
                speedup(over, times[over] / times[name], draws, confidence)
                for over in baselines.get(name, ())
            ),
        )
        for name in names
    }


def _check_numbers(rounds: int, threads: int, batch: int, confidence: float) -> None:
    if rounds < FEWEST or threads < 1 or batch < 1:
        raise InvalidArgumentError(
            f"compare() needs rounds of at least {FEWEST}, threads and batch of at least 1, got "
            f"rounds={rounds}, threads={threads}, batch={batch}"
        )
    if not 0 < confidence < 1:
        raise InvalidArgumentError(f"confidence must be between 0 and 1, got {confidence}")


def _checked_baselines(
    names: list[str], baselines: Mapping[str, tuple[str, ...]] | None
) -> Mapping[str, tuple[str, ...]]:
    """Return the baselines of each runner, after a check of the names."""
    if not names:
        raise InvalidArgumentError("compare() needs at least one runner, got none")
    if baselines is None:
        return dict.fromkeys(names[1:], (names[0],))
    unknown = {name for pair in baselines.items() for name in (pair[0], *pair[1])} - set(names)
    if unknown:
        raise InvalidArgumentError(f"compare() has no runner named {sorted(unknown)}, only {names}")
    return baselines
