"""Channel analysis: run a network to find the channels that can be removed, and try to remove them.

The network runs once while labels follow its channels. Then a part of each group is removed on
trial, and the outputs are compared with those of the network that reads zeros in these channels.
Channels whose removal raises an error or changes the outputs are frozen, with the reason.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from os.path import basename
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from lit_compress.errors import ChannelError
from lit_compress.measure.cost import (
    Inputs,
    attention_unfused,
    batch_size,
    evaluating,
    forward_arguments,
    one_example,
)
from lit_compress.pruning.channels.build import build
from lit_compress.pruning.channels.checks import check_module
from lit_compress.pruning.channels.graph import ChannelGraph, Group, Key
from lit_compress.pruning.channels.operations import HANDLERS, own, settle, unknown
from lit_compress.pruning.channels.plan import Plan
from lit_compress.pruning.channels.tracing.followers import tie_followers
from lit_compress.pruning.channels.tracing.labels import Reason
from lit_compress.pruning.channels.tracing.trace import Trace
from lit_compress.pruning.channels.trials.verify import Failure, Run, tensors_in, try_out, try_plan
from lit_compress.pruning.heads import attending_by_head

Blocked = dict[int | tuple[str, str, int], Reason]

#: Where the modules of quantised networks are defined.
QUANTISED = ("torch.ao.nn.quantized", "torch.nn.quantized", "torch.ao.nn.intrinsic.quantized")
#: What the names of operations begin with that apply the weights of a layer.
LAYERS = ("conv", "linear", "bilinear", "batch_norm", "instance_norm", "group_norm", "layer_norm")
#: Largest number of trials for one network.
RETRIES = 60


def analyse(
    model: nn.Module,
    example_inputs: Inputs,
    submodule: str = "",
    followers: Mapping[str, str] | None = None,
) -> ChannelGraph:
    """Find the channels of a network that can be removed, and why the others cannot.

    The model runs a few times in eval mode, without gradients. Its weights, buffers and mode, and
    the random state, are restored. If layers are not used in eval mode (auxiliary heads), the model
    also runs in training mode.

    Args:
        model: Any module. Its code is not parsed: the analysis follows the torch calls of the run.
        example_inputs: Arguments of the forward: a tensor, a tuple of arguments, or a mapping of
            keyword arguments, on the model's device. Small inputs are enough: a batch of one image.
        submodule: Name of the part of the model that takes the inputs. Default: the model itself.
        followers: By name, averages and momentum copies of parts of the model, with the names of
            the parts that they follow; both lose the same channels.

    Returns:
        The channels that can be removed in groups, and the frozen channels with the reason.

    Raises:
        ChannelError: If the forward fails on the example inputs, or the model is lazy, quantised,
            exported or on the meta device.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3))
        >>> graph = analyse(net, torch.ones(1, 3, 8, 8))
        >>> for group in graph.groups:
        ...     print(group.name, group.channels)
        0 (0, 1, 2, 3)
        >>> for part in graph.frozen:
        ...     print(f"{part.tensor}: {part.reason}")
        2.weight: is an output of the network
    """
    _refuse(model, submodule)
    args, kwargs = forward_arguments(example_inputs)
    with undisturbed(model):
        called = model.get_submodule(submodule) if submodule else model
        runs = [_run(model, called, args, kwargs)]
        followers = followers or {}
        trace = _traced(model, runs, {}, followers)
        found = trace.recording.positions  # of eval mode alone
        if set(trace.tensors) - trace.recording.seen - _scalars(trace.tensors):
            runs += _training_run(model, called, args, kwargs)
        trace = trace if len(runs) == 1 else _traced(model, runs, {}, followers)
        graph = _verified_graph(model, runs, trace, followers)
        return replace(graph, positions=_positions(model, called, example_inputs, found))


def verify(
    model: nn.Module,
    example_inputs: Inputs,
    graph: ChannelGraph,
    plan: Plan,
    submodule: str = "",
) -> None:
    """Check that a network without a plan's channels computes the same as one that ignores them.

    Args:
        model: The module; it is not changed.
        example_inputs: As for :func:`analyse`.
        graph: Channels of the module as it is now.
        plan: The channels to remove.
        submodule: As for :func:`analyse`.

    Raises:
        ChannelError: If the outputs differ, or the forward fails without the channels.
    """
    args, kwargs = forward_arguments(example_inputs)
    called = model.get_submodule(submodule) if submodule else model
    with undisturbed(model):
        runs = [_run(model, called, args, kwargs)]
        failure = try_plan(model, runs, plan, _traced(model, runs, {}))
    if failure is not None:
        raise ChannelError(
            f"removing channels of {type(model).__name__} would break it, so nothing was removed: "
            f"{failure.reason}; exclude these layers"
        )


def _verified_graph(
    model: nn.Module, runs: list[Run], trace: Trace, followers: Mapping[str, str]
) -> ChannelGraph:
    """Freeze the channels whose removal fails, until the trials of all others succeed."""
    blocked: Blocked = {}
    closed: dict[Key, Reason] = {}
    graph = build(trace, closed)
    for attempt in range(RETRIES):
        if (failure := try_out(model, runs, graph, graph.groups, attempt, trace)) is None:
            return graph
        before = len(graph.channels)
        if failure.index >= 0:
            _block(blocked, failure)
            trace = _traced(model, runs, blocked, followers)
            graph = build(trace, closed)
        if len(graph.channels) == before:
            for group, reason in _failing_groups(model, runs, graph, graph.groups, trace):
                closed.update(dict.fromkeys(group.keys, reason))
            trace = _traced(model, runs, blocked, followers)
            graph = build(trace, closed)
    raise ChannelError(
        f"removing channels from {type(model).__name__} still failed after {RETRIES} trials: prune "
        "single weights instead"
    )


def _block(blocked: Blocked, failure: Failure) -> None:
    """Freeze the tensors of the call that failed; if its line failed before, of all its calls.

    A line that applies a layer is shared by all layers of a kind, and says nothing of the others.
    """
    repeated = any(_same_line(reason, failure.place) for reason in blocked.values())
    repeated &= not failure.place[0].startswith(LAYERS)
    blocked[failure.place if repeated else failure.index] = failure.reason


def _same_line(reason: Reason, place: tuple[str, str, int]) -> bool:
    return (reason.op, reason.file, reason.line) == (place[0], basename(place[1]), place[2])


def _failing_groups(
    model: nn.Module,
    runs: list[Run],
    graph: ChannelGraph,
    groups: tuple[Group, ...],
    trace: Trace,
) -> list[tuple[Group, Reason]]:
    """Return the groups whose removal fails, by bisection."""
    failure = try_out(model, runs, graph, groups, 0, trace)
    if failure is None:
        return []
    if len(groups) == 1:
        return [(groups[0], failure.reason)]
    half = len(groups) // 2
    failing = _failing_groups(model, runs, graph, groups[:half], trace)
    failing += _failing_groups(model, runs, graph, groups[half:], trace)
    return failing or [(group, failure.reason) for group in groups[:half]]


# --- runs --------------------------------------------------------------------------------------


def _traced(
    model: nn.Module,
    runs: list[Run],
    blocked: Blocked,
    followers: Mapping[str, str] | None = None,
) -> Trace:
    trace = Trace(model, HANDLERS, unknown, blocked, own)
    try:
        with trace.watching():
            outputs = [run() for run in runs]
    except Exception as error:
        raise ChannelError(
            f"the forward of {type(model).__name__} fails on the example inputs: "
            f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        ) from error
    for name in _unsaved(model):
        reason = Reason(f"depends on {name}, which checkpoints do not store (persistent=False)")
        trace.recording.opaque.setdefault(name, reason)
    tensors = [tensor for output in outputs for tensor in tensors_in(output)]
    if not tensors:
        raise ChannelError(
            f"the forward of {type(model).__name__} returns no tensor, so its outputs cannot be "
            "compared: give a module whose forward returns tensors"
        )
    for tensor in tensors:
        if tensor.numel() and not tensor.isfinite().any():
            raise ChannelError(
                f"an output of {type(model).__name__} on the example inputs has no finite value, "
                "so a removal cannot be tried: check the weights for NaN and infinity, or give "
                "other example inputs"
            )
        trace.freeze(tensor, Reason("is an output of the network"))
    trace.close()
    tie_followers(trace, model, followers or {})
    settle(trace)
    return trace


def _positions(
    model: nn.Module, called: nn.Module, inputs: Inputs, found: Mapping[str, int]
) -> dict[str, int]:
    """Return the positions of each weight for one example, given those of a run in eval mode."""
    rows = batch_size(inputs)
    if rows <= 1:
        return dict(found)
    one, rows = one_example(called, inputs)
    if rows == 1 and one is not inputs:
        args, kwargs = forward_arguments(one)
        return _traced(model, [_run(model, called, args, kwargs)], {}).recording.positions
    return {name: round(count / rows) or 1 for name, count in found.items()}


def _run(
    model: nn.Module, called: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Run:
    """Return a run of the model that restores its attributes and buffers each time."""

    def run() -> Any:
        with _restored(model, model.buffers()):
            return called(*args, **kwargs)

    return run


def _training_run(
    model: nn.Module, called: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[Run]:
    """Return a run with the model's own code in training mode, and torch's layers in eval mode.

    The list is empty if the forward fails in training mode.
    """

    def run() -> Any:
        with _restored(model, model.buffers()), evaluating(called):
            for module in called.modules():
                module.training = not type(module).__module__.startswith("torch.nn.")
            return called(*args, **kwargs)

    try:
        run()
    except Exception:  # for example, the forward needs targets in training mode
        return []
    return [run]


def _scalars(tensors: Mapping[str, Tensor]) -> set[str]:
    return {name for name, tensor in tensors.items() if tensor.numel() <= 1}


def _unsaved(model: nn.Module) -> set[str]:
    """Return the names of the buffers that checkpoints do not store."""
    return {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        for name in getattr(module, "_non_persistent_buffers_set", ())
    }


def _refuse(model: nn.Module, submodule: str) -> None:
    check_module(model)
    if submodule not in dict(model.named_modules()):
        raise ChannelError(
            f"submodule: {type(model).__name__} has no module {submodule!r}: give a name from "
            "named_modules()"
        )
    for name, module in model.named_modules():
        if type(module).__module__.startswith(QUANTISED):
            raise ChannelError(
                f"{name} is quantised ({type(module).__name__}), and channels can be removed from "
                "float networks only: prune first, then quantise"
            )
        if "eval" in vars(module):
            raise ChannelError(
                f"{name or 'the model'} is an exported program, whose shapes are fixed: remove "
                "channels from the module that it was exported from"
            )
    for name, parameter in model.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            raise ChannelError(
                f"{name} is lazy and has no shape yet: run one batch through the module first"
            )
        if parameter.is_meta:
            raise ChannelError(
                f"{name} is on the meta device, where a removal cannot be tried: load its values "
                "first"
            )


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Set a model to eval mode without gradients; restore it and the random state at the end."""
    devices = [tensor.device for tensor in model.parameters() if tensor.is_cuda][:1]
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices))
        stack.enter_context(evaluating(model))
        stack.enter_context(attention_unfused())
        stack.enter_context(attending_by_head(model))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_uncompiled())
        stack.enter_context(_restored(model, (*model.parameters(), *model.buffers())))
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())
        yield


@contextmanager
def _restored(model: nn.Module, tensors: Iterable[Tensor]) -> Iterator[None]:
    """Restore the attributes of all modules, and the given tensors, at the end of the block."""
    tables = [table for module in model.modules() for table in _tables(module)]
    attributes = [(table, dict(table)) for table in tables]
    with torch._C.DisableTorchFunction():
        values = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        for table, before in attributes:
            if table.keys() != before.keys() or _ids(table) != _ids(before):
                table.clear()
                table.update(before)
        with torch._C.DisableTorchFunction():  # these calls are not the model's, so not traced
            for tensor, value in values:
                if tensor.shape != value.shape:
                    tensor.data = value
                elif not torch.equal(tensor, value):
                    tensor.copy_(value)


def _tables(module: nn.Module) -> list[dict[str, Any]]:
    """Return the dictionaries that store the attributes of a module."""
    own = vars(module)
    nested = [own.get(name) for name in ("_parameters", "_buffers", "_modules")]
    return [own, *(table for table in nested if isinstance(table, dict))]


def _ids(table: Mapping[str, Any]) -> list[int]:
    return list(map(id, table.values()))


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Run compiled modules uncompiled, so that their calls can be traced."""
    stance = torch.compiler.set_stance("force_eager")
    with stance:
        yield
