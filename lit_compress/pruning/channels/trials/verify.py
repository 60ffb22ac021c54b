"""Trials: compare a network without some channels with one that reads zeros in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import basename
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lit_compress.pruning.channels.graph import ChannelGraph, Group
from lit_compress.pruning.channels.plan import Plan, make_plan
from lit_compress.pruning.channels.surgery import cut_tensor, replaced
from lit_compress.pruning.channels.tracing.labels import Reason
from lit_compress.pruning.channels.tracing.trace import Trace, named_tensors
from lit_compress.pruning.channels.trials.calls import Calls, Expected
from lit_compress.pruning.channels.trials.zeroed import ZeroedInputs

Run = Callable[[], Any]

FIXED_WIDTH = "needs its present width"
DIFFERS = "the network computes something else without it"
#: Largest relative difference between the two networks, by type.
TOLERANCE = {torch.float64: 1e-6, torch.float16: 5e-2, torch.bfloat16: 1e-1}
#: Largest relative difference in single precision; a GPU may round to ten bits (TF32).
ON_CPU, ON_GPU = 1e-4, 1e-3


@dataclass(frozen=True)
class Failure:
    """A failed trial.

    Attributes:
        index: Number of the call that raised, from 0; -1 if only the result differs.
        place: Name, file and line of that call.
        reason: Why the trial failed.
    """

    index: int
    place: tuple[str, str, int]
    reason: Reason


def try_out(
    model: nn.Module,
    runs: Sequence[Run],
    graph: ChannelGraph,
    groups: Iterable[Group],
    seed: int,
    trace: Trace,
) -> Failure | None:
    """Try to remove a third of each group, then as many channels as possible.

    Args:
        model: The model; it is not changed.
        runs: Runs of the model.
        graph: Channels of the model.
        groups: Groups to remove channels from.
        seed: Random seed of the choice of channels.
        trace: The trace that the graph was built from.

    Returns:
        The first failure, or None if both trials succeed.
    """
    random, groups = np.random.default_rng(seed), tuple(groups)
    for divisor in (3, 1):  # code may branch on a width that only the second trial goes below
        removed: list[int] = []
        for group in groups:
            count = min(graph.removable(group), -(-len(group.channels) // divisor))
            removed += random.permutation(group.channels)[:count].tolist()
        if not removed:
            continue
        failure = try_plan(model, runs, make_plan(graph, removed), trace)
        if failure is not None:
            return failure
    return None


def _expected(trace: Trace, plan: Plan) -> Expected:
    """Return what the labels of a trace say of a network without a plan's channels."""
    removed = np.zeros(trace.labels.count, bool)
    for cut in plan.cuts:
        use = trace.recording.uses.get((cut.tensor, cut.dim))
        if use is not None:
            labels = use.labels.numpy()[np.setdiff1d(np.arange(cut.size), cut.keep)]
            removed[labels[labels >= 0]] = True
    roots = trace.labels.resolve()[0]
    whole = np.zeros(len(roots), bool)
    whole[roots[removed]] = True
    return Expected(trace.results, torch.from_numpy(whole[roots]), trace.made_by)


def try_plan(
    model: nn.Module,
    runs: Sequence[Run],
    plan: Plan,
    trace: Trace,
) -> Failure | None:
    """Compare the outputs of a model without a plan's channels with those where they read as zero.

    Parameters that could hide a difference, such as a scale of zero, are perturbed in both. An
    operation such as a sort gives the same in both if its inputs are the same up to rounding.

    Args:
        model: The model; it is not changed.
        runs: Runs of the model.
        plan: The channels to remove.
        trace: A trace of the runs: it knows what reads the channels.

    Returns:
        The failure, or None if the outputs agree.
    """
    own = named_tensors(model)
    perturbed = _perturbed(own)
    cut = perturbed | {
        name: cut_tensor(perturbed.get(name, own[name].detach()), dims)
        for name, dims in plan.by_tensor().items()
    }

    labels = _expected(trace, plan)

    def whole(calls: Calls) -> list[list[Tensor]]:
        zeroed = ZeroedInputs(trace.recording, labels.removed)
        with replaced(model, perturbed), zeroed, calls:
            return [outputs_of(run) for run in runs]

    def narrow(calls: Calls) -> list[list[Tensor]]:
        with replaced(model, cut, plan.widths), calls:
            return [outputs_of(run) for run in runs]

    before, calls = Calls(), Calls()
    try:
        expected = whole(before)
    except Exception as error:  # a call that cannot be made without some channels
        return _raised(error, before, replace(labels, twins=()))
    try:
        if all(map(agree, expected, narrow(calls))):
            return None
        before = Calls(_close)
        expected, calls = whole(before), Calls(_close, before)
        if all(map(agree, expected, narrow(calls))):  # but for operations that jump
            return None
    except Exception as error:  # whatever the model's own code raises
        return _raised(error, calls, labels)
    return _different(before, calls, labels)


def _raised(error: Exception, calls: Calls, labels: Expected) -> Failure:
    """Return the failure of a run that raised."""
    text = next(iter(f"{type(error).__name__}: {error}".splitlines())).rstrip(": ")
    last = len(calls.places) - 1
    index = labels.first_other_width(calls)
    if index is None or index == last:
        failure = _failure(calls, last, f"{FIXED_WIDTH}: {text}", labels)
        if calls.latest == failure.place:
            return failure
        op, file, line = calls.latest  # it raised at a question behind that call
        return replace(failure, reason=Reason(failure.reason.why, op, "", basename(file), line))
    return _failure(calls, index, FIXED_WIDTH, labels)


def _different(before: Calls, calls: Calls, labels: Expected) -> Failure:
    """Return the failure of a run whose outputs differ."""
    index, why = labels.first_other_width(calls), FIXED_WIDTH
    if index is None:
        index, why = labels.first_other_value(before, calls, _close), DIFFERS
    return _failure(calls, -1 if index is None else index, why, labels)


def _failure(calls: Calls, index: int, why: str, labels: Expected) -> Failure:
    """Return a failure at a call; -1 if no call is known."""
    op, file, line = place = calls.places[index] if index >= 0 else ("", "", 0)
    module = labels.made_by[index] if 0 <= index < len(labels.made_by) else ""
    return Failure(index, place, Reason(why, op, module, basename(file), line))


def _perturbed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return noisy copies of the parameters that could hide a difference."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: tensor.detach() + _noise(tensor.shape, generator).to(tensor.device, tensor.dtype)
        for name, tensor in tensors.items()
        if isinstance(tensor, nn.Parameter)
        and tensor.is_floating_point()
        and _can_hide_channels(tensor)
    }


def _can_hide_channels(tensor: Tensor) -> bool:
    """Tell whether a tensor is a vector, or constant: a head of zeros, a layer scale of 1e-6."""
    if tensor.numel() <= max(tensor.shape, default=1):
        return True
    first = tensor[(0,) * tensor.dim()]
    return bool((tensor[0] == first).all()) and bool((tensor == first).all())


def _noise(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Return noise: positive for vectors, since some are under a root; of norm 1 by filter."""
    if shape.numel() <= max(shape, default=1):
        return 0.1 * torch.rand(shape, generator=generator)
    width: float = (shape[0] / shape.numel()) ** 0.5
    return width * torch.randn(shape, generator=generator)


def outputs_of(run: Run) -> list[Tensor]:
    """Return the tensors that a run returns."""
    result = run()
    with torch._C.DisableTorchFunction():  # this is not a call of the model
        return [tensor.detach() for tensor in tensors_in(result)]


def agree(expected: list[Tensor], actual: list[Tensor]) -> bool:
    """Tell whether the outputs of two networks are equal up to rounding."""
    if len(expected) != len(actual):
        return False
    return all(_close(one, other) for one, other in zip(expected, actual, strict=True))


def _close(expected: Tensor, actual: Tensor) -> bool:
    if expected.shape != actual.shape:
        return False
    if not expected.is_floating_point() and not expected.is_complex():
        # Integers may be indices (argmax, sort), and some differ where values are almost equal.
        return not expected.numel() or (expected != actual).double().mean().item() <= 0.5
    finite = expected.isfinite()
    if not torch.equal(finite, actual.isfinite()):
        return False
    scale = expected[finite].abs().max().item() if finite.any() else 0.0
    difference = (expected - actual)[finite].abs().max().item() if finite.any() else 0.0
    single = ON_CPU if expected.device.type == "cpu" else ON_GPU
    return difference <= TOLERANCE.get(expected.dtype, single) * scale


def tensors_in(value: Any, depth: int = 3) -> list[Tensor]:
    """Return the tensors in nested containers, dataclasses and plain objects.

    Args:
        value: Any value.
        depth: Number of levels of plain objects to look into.
    """
    tensors: list[Tensor] = []
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            tensors.append(leaf)
        elif depth and not isinstance(leaf, (nn.Module, type)):
            names = {*getattr(leaf, "__dict__", ()), *getattr(type(leaf), "__slots__", ())}
            attributes = {name: getattr(leaf, name, None) for name in sorted(names)}
            tensors += tensors_in(attributes, depth - 1) if attributes else []
    return tensors
