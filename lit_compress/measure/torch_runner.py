"""Call a module as it is timed: in eval mode, without gradients, with a number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lit_compress.measure.cost import evaluating
from lit_compress.timing.in_turn import Runner


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
