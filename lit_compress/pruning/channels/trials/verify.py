"""Trials: compare a network without some channels with one that reads zeros in their place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from os.path import basename

import numpy as np
import torch
from torch import nn

from lit_compress.pruning.channels.graph import ChannelGraph, Group
from lit_compress.pruning.channels.plan import Plan, make_plan
from lit_compress.pruning.channels.tracing.labels import Reason
from lit_compress.pruning.channels.tracing.trace import Trace
from lit_compress.pruning.channels.trials.calls import Calls, Expected
from lit_compress.pruning.channels.trials.outputs import Run, agree, close
from lit_compress.pruning.channels.trials.pair import NoisyTensors, Outputs, Pair, noisy_tensors
from lit_compress.pruning.channels.trials.zeroed import ZeroedInputs

FIXED_WIDTH = "needs its present width"
DIFFERS = "the network computes something else without it"


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
    tensors = noisy_tensors(model)
    for divisor in (3, 1):  # code may branch on a width that only the second trial goes below
        removed: list[int] = []
        for group in groups:
            count = min(graph.removable(group), -(-len(group.channels) // divisor))
            removed += random.permutation(group.channels)[:count].tolist()
        if not removed:
            continue
        failure = try_plan(model, runs, make_plan(graph, removed), trace, tensors)
        if failure is not None:
            return failure
    return None


def _expected(trace: Trace, plan: Plan) -> Expected:
    """Return what the labels of a trace say of a network without a plan's channels."""
    removed = np.zeros(trace.labels.count, bool)
    for cut in plan.cuts:
        use = trace.recording.uses.get((cut.tensor, cut.dim))
        if use is not None:
            gone = np.ones(cut.size, bool)
            gone[cut.indices] = False
            labels = use.labels.numpy()[gone]
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
    tensors: NoisyTensors | None = None,
) -> Failure | None:
    """Compare the outputs of a model without a plan's channels with those where they read as zero.

    Parameters that could hide a difference, such as a scale of zero, are perturbed in both. An
    operation such as a sort gives the same in both if its inputs are the same up to rounding.

    Args:
        model: The model; it is not changed.
        runs: Runs of the model.
        plan: The channels to remove.
        trace: A trace of the runs: it knows what reads the channels.
        tensors: The tensors of the model, if they are known already.

    Returns:
        The failure, or None if the outputs agree.
    """
    pair = Pair.of(model, plan, tensors)
    roles = {key: use.role for key, use in trace.recording.uses.items()}
    # What depends on all channels is computed from those that are left, and needs the trace.
    if not trace.recording.mixed and pair.agrees(runs, roles, trace.recording.names):
        return None
    labels = _expected(trace, plan)

    def whole(calls: Calls) -> Outputs:
        return pair.whole(runs, ZeroedInputs(trace.recording, labels.removed), calls)

    before, calls = Calls(), Calls()
    try:
        expected = whole(before)
    except Exception as error:  # a call that cannot be made without some channels
        return _raised(error, before, replace(labels, twins=()))
    try:
        if all(map(agree, expected, pair.narrow(runs, calls))):
            return None
        before = Calls(close)
        expected, calls = whole(before), Calls(close, before)
        if all(map(agree, expected, pair.narrow(runs, calls))):  # but for operations that jump
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
        index, why = labels.first_other_value(before, calls, close), DIFFERS
    return _failure(calls, -1 if index is None else index, why, labels)


def _failure(calls: Calls, index: int, why: str, labels: Expected) -> Failure:
    """Return a failure at a call; -1 if no call is known."""
    op, file, line = place = calls.places[index] if index >= 0 else ("", "", 0)
    module = labels.made_by[index] if 0 <= index < len(labels.made_by) else ""
    return Failure(index, place, Reason(why, op, module, basename(file), line))
