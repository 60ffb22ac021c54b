"""Intervals of medians, and of the ratio of two runners that were timed in turn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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


def bootstrap(random: np.random.Generator, rounds: int) -> np.ndarray:
    """Draw bootstrap samples: indices of rounds, of shape (samples, rounds).

    Args:
        random: Generator for the samples.
        rounds: Number of rounds that were timed.
    """
    return random.integers(0, rounds, (DRAWS, rounds))


def median_interval(
    values: np.ndarray, draws: np.ndarray, confidence: float
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the median.

    Args:
        values: One value per round, of shape (rounds,).
        draws: Indices of the rounds in each bootstrap sample, of shape (samples, rounds).
        confidence: Confidence of the interval, in (0, 1).
    """
    medians = np.median(values[draws], axis=1)
    low, high = np.quantile(medians, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def speedup(over: str, ratios: np.ndarray, draws: np.ndarray, confidence: float) -> Speedup:
    """Return a speed-up from the ratios in each round, its interval widened by ``RESOLUTION``.

    Args:
        over: Name of the baseline.
        ratios: By round, baseline time / own time.
        draws: Indices of the rounds in each bootstrap sample, of shape (samples, rounds).
        confidence: Confidence of the interval, in (0, 1).
    """
    low, high = median_interval(ratios, draws, confidence)
    interval = (low / (1 + RESOLUTION), high * (1 + RESOLUTION))
    return Speedup(over, float(np.median(ratios)), interval, not interval[0] <= 1 <= interval[1])
