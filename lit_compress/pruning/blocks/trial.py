"""Trials: a network without a block, against the network with zeros in place of its branch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lit_compress.pruning.blocks.surgery import without
from lit_compress.pruning.blocks.zeroed import ZeroedBranches
from lit_compress.pruning.channels.trials.outputs import Run, agree, outputs_of


def failure_without(
    model: nn.Module, runs: Sequence[Run], kinds: Mapping[str, str], cuts: Mapping[int, int]
) -> str | None:
    """Return how a network without a block differs from one whose branch is zero.

    Args:
        model: The network, in eval mode and without gradients; it is not changed.
        runs: Runs of it.
        kinds: By name of a module, what stands in its place.
        cuts: By number of a sum in the run, the position of the summand that is the branch.

    Returns:
        The difference in words; None if there is none.
    """
    try:
        expected = [_zeroed(run, cuts) for run in runs]
        with without(model, kinds):
            outputs = [outputs_of(run) for run in runs]
            if any(isinstance(part, nn.MultiheadAttention) for part in model.modules()):
                with _attention_fused():
                    outputs_of(runs[-1])
    except Exception as error:  # whatever the model's own code raises
        first = next(iter(str(error).splitlines()), "")
        return f"the forward fails without it ({type(error).__name__}: {first})"
    if all(map(agree, expected, outputs)):
        return None
    return "the network without it computes something else than with zeros for its branch"


def _zeroed(run: Run, cuts: Mapping[int, int]) -> list[Tensor]:
    with ZeroedBranches(cuts):
        return outputs_of(run)


@contextmanager
def _attention_fused() -> Iterator[None]:
    """Let torch's attention take its fused path, as in a validation, until the end of the block."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(True)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
