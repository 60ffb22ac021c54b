"""Call functions in turn and time them, so that every one sees the same state of the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn

from lit_compress.measure.cost import evaluating

#: A function without arguments that runs one batch.
Runner = Callable[[], object]


def module_runner(module: nn.Module, inputs: Tensor) -> Runner:
    """Return a function that calls a module in eval mode and without gradients.

    Args:
        module: The module. Its training modes are restored after each call.
        inputs: The batch that it is called with.

    Example:
        >>> import torch
        >>> run = module_runner(torch.nn.Dropout(), torch.ones(2))
        >>> run()
        tensor([1., 1.])
    """

    def run() -> object:
        with evaluating(module), torch.inference_mode():
            return module(inputs)

    # Switching modes takes as long as a small network, so skip it if the module is in eval mode.
    if any(child.training for child in module.modules()):
        return run

    def run_in_eval() -> object:
        with torch.inference_mode():
            return module(inputs)

    return run_in_eval


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Set PyTorch's number of threads, and restore it afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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


def _seconds_per_call(run: Runner, count: int) -> float:
    run()  # not timed: loads the data into the cache again, after the other runners
    start = perf_counter()
    for _ in range(count):
        run()
    return (perf_counter() - start) / count
