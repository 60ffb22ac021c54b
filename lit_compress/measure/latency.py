"""Measure how much faster one function is than another: timed in turn, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lit_compress.errors import InvalidArgumentError
from lit_compress.measure.timing import (
    Runner,
    interleaved_times,
    module_runner,
    torch_threads,
    warm_up,
)

__all__ = ["RESOLUTION", "Latency", "Runner", "Speedup", "compare", "module_runner"]

#: Relative difference in time that the place in memory alone causes between identical networks.
RESOLUTION = 0.005
#: Number of bootstrap samples.
DRAWS = 2000


@dataclass(frozen=True)
class Speedup:
    """How many times faster a runner is than a baseline.

    Attributes:
        over: Name of the baseline.
        ratio: Median over the rounds of baseline time / own time; above 1 is faster.
        interval: Interval of that median as (low, high).
        significant: Whether the interval excludes 1; only then is it a speed-up or a slow-down.

    Example:
        >>> print(Speedup("dense", ratio=2.5, interval=(2.4, 2.6), significant=True))
        2.50x
        >>> print(Speedup("dense", ratio=1.01, interval=(0.98, 1.04), significant=False))
        no difference
    """

    over: str
    ratio: float
    interval: tuple[float, float]
    significant: bool

    def __str__(self) -> str:
        if not self.significant:
            return "no difference"
        digits = 1 if self.ratio >= 10 else 2
        return f"{self.ratio:.{digits}f}x"


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
    draws = random.integers(0, rounds, (DRAWS, rounds))
    return {
        name: Latency(
            seconds=float(np.median(times[name])),
            interval=_interval(times[name], draws, confidence),
            batch=batch,
            threads=threads,
            rounds=rounds,
            confidence=confidence,
            speedups=tuple(
                _speedup(over, times[over] / times[name], draws, confidence)
                for over in baselines.get(name, ())
            ),
        )
        for name in names
    }


def _check_numbers(rounds: int, threads: int, batch: int, confidence: float) -> None:
    if rounds < 10 or threads < 1 or batch < 1:
        raise InvalidArgumentError(
            "compare() needs rounds of at least 10, threads and batch of at least 1, got "
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


def _interval(values: np.ndarray, draws: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the median.

    Args:
        values: One value per round, of shape (rounds,).
        draws: Indices of the rounds in each bootstrap sample, of shape (samples, rounds).
        confidence: Confidence of the interval, in (0, 1).
    """
    medians = np.median(values[draws], axis=1)
    low, high = np.quantile(medians, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _speedup(over: str, ratios: np.ndarray, draws: np.ndarray, confidence: float) -> Speedup:
    low, high = _interval(ratios, draws, confidence)
    interval = (low / (1 + RESOLUTION), high * (1 + RESOLUTION))
    return Speedup(over, float(np.median(ratios)), interval, not interval[0] <= 1 <= interval[1])
