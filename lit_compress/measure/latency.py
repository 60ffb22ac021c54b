"""How much faster one thing is than another, measured in turn, with an interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn

from lit_compress.errors import InvalidArgumentError
from lit_compress.measure.cost import evaluating

Runner = Callable[[], object]

RESOLUTION = 0.005
"""Relative difference of two identical networks that their place in memory alone can make."""


@dataclass(frozen=True)
class Speedup:
    """How many times faster than the baseline.

    Attributes:
        over: Name of the baseline.
        ratio: Median over the rounds of baseline time / own time.
        interval: Bootstrap interval of that median.
        significant: Whether the interval excludes 1; only then is it a speed-up or slow-down.
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
    """The time of one call.

    Attributes:
        seconds: Median over the rounds.
        interval: Bootstrap interval of that median.
        batch: Images a call.
        threads: Threads it ran on.
        rounds: How often it was timed.
        confidence: Confidence of the intervals.
        speedups: Against each baseline that was asked for.
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
    """Time several runners in turn, and each against its baselines.

    All are warmed up; then, in each round, every runner is called for one time slice, in an order
    drawn anew, so that drift of the machine falls on all alike. Ratios are taken within a round;
    the figure is their median, its interval a percentile bootstrap over the rounds, widened by
    ``RESOLUTION`` for what no repetition averages out (where the data happen to lie in memory).

    Args:
        runners: What to time, by name; each takes no argument and runs one batch.
        baselines: For each name the runners it is compared with. Default: all with the first.
        batch: Images a call: said in the result, the runners decide it.
        threads: Threads for PyTorch while this runs; put back afterwards. Other runtimes have
            their own setting.
        rounds: Number of rounds, at least 10.
        warmup: Seconds each runner runs before it is timed.
        slice_seconds: Least time of one slice: fast runners are called several times in it.
        confidence: Of the intervals; at 0.99 a comparison of a thing with itself says "no
            difference" at least 95 times of 100 on a noisy machine.
        seed: Of the order and the bootstrap.

    Raises:
        InvalidArgumentError: If there is no runner, a baseline is unknown, or a number is too low.
    """
    _check_numbers(rounds, threads, batch, confidence)
    names = list(runners)
    baselines = _checked(names, baselines)
    random = np.random.default_rng(seed)
    with torch_threads(threads):
        calls = {name: _warm(run, warmup, slice_seconds) for name, run in runners.items()}
        times = _interleaved(runners, calls, rounds, random)
    draws = random.integers(0, rounds, (2000, rounds))
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


def _checked(
    names: list[str], baselines: Mapping[str, tuple[str, ...]] | None
) -> Mapping[str, tuple[str, ...]]:
    """Return what each runner is compared with."""
    if not names:
        raise InvalidArgumentError("compare() needs at least one runner, got none")
    if baselines is None:
        return dict.fromkeys(names[1:], (names[0],))
    unknown = {name for pair in baselines.items() for name in (pair[0], *pair[1])} - set(names)
    if unknown:
        raise InvalidArgumentError(f"compare() has no runner named {sorted(unknown)}, only {names}")
    return baselines


def module_runner(module: nn.Module, inputs: Tensor) -> Runner:
    """Return a runner that calls a module on ``inputs``, in eval mode and without gradients."""

    def run() -> object:
        with evaluating(module), torch.inference_mode():
            return module(inputs)

    # Switching modes costs as much as a small net: it is done once if the module is in eval mode.
    if any(child.training for child in module.modules()):
        return run

    def run_in_eval() -> object:
        with torch.inference_mode():
            return module(inputs)

    return run_in_eval


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Run PyTorch on a number of threads, and put the number back."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _warm(run: Runner, seconds: float, slice_seconds: float) -> int:
    """Run until warm; return how many calls fill one time slice."""
    start, count, best = perf_counter(), 0, float("inf")
    while count < 2 or perf_counter() - start < seconds:
        before = perf_counter()
        run()
        best = min(best, perf_counter() - before)
        count += 1
    return max(1, round(slice_seconds / max(best, 1e-7)))


def _interleaved(
    runners: Mapping[str, Runner],
    calls: Mapping[str, int],
    rounds: int,
    random: np.random.Generator,
) -> dict[str, np.ndarray]:
    names = list(runners)
    times = {name: np.empty(rounds) for name in names}
    for index in range(rounds):
        for position in random.permutation(len(names)):
            name = names[position]
            run, count = runners[name], calls[name]
            run()  # brings its data back into the cache after the others
            start = perf_counter()
            for _ in range(count):
                run()
            times[name][index] = (perf_counter() - start) / count
    return times


def _interval(values: np.ndarray, draws: np.ndarray, confidence: float) -> tuple[float, float]:
    medians = np.median(values[draws], axis=1)
    low, high = np.quantile(medians, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _speedup(over: str, ratios: np.ndarray, draws: np.ndarray, confidence: float) -> Speedup:
    low, high = _interval(ratios, draws, confidence)
    interval = (low / (1 + RESOLUTION), high * (1 + RESOLUTION))
    return Speedup(over, float(np.median(ratios)), interval, not interval[0] <= 1 <= interval[1])
