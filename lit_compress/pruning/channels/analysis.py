"""Channel analysis: what can go from a network, found by running it, and tried out first.

The network runs once while labels follow its channels. Then a part of every group is removed on
trial, and the result compared with the network in which the layers that read those channels see
zeros: what raises, or differs, is frozen, and named.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from os.path import basename
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from lit_compress.errors import ChannelError
from lit_compress.measure.cost import Inputs, attention_unfused, evaluating, forward_arguments
from lit_compress.pruning.channels.build import build
from lit_compress.pruning.channels.checks import check_module
from lit_compress.pruning.channels.graph import ChannelGraph, Group, Key
from lit_compress.pruning.channels.labels import Reason
from lit_compress.pruning.channels.operations import HANDLERS, unknown
from lit_compress.pruning.channels.plan import Plan
from lit_compress.pruning.channels.trace import Trace
from lit_compress.pruning.channels.verify import Failure, Run, tensors_in, try_out, try_plan

Blocked = dict[int | tuple[str, str, int], Reason]

#: Where the modules of quantised networks are defined.
QUANTISED = ("torch.ao.nn.quantized", "torch.nn.quantized", "torch.ao.nn.intrinsic.quantized")
#: Trials before what is left in doubt is frozen group by group.
RETRIES = 60


def analyse(model: nn.Module, example_inputs: Inputs, submodule: str = "") -> ChannelGraph:
    """Find which channels of a network can be removed together, and which cannot and why.

    The model runs a few times in eval mode; its weights, buffers, mode and the random state are as
    before afterwards. Where layers are left out in eval mode (auxiliary heads), it runs in training
    mode too.

    Args:
        model: Any module. Its code is not traced: what matters is the torch calls it makes.
        example_inputs: What its forward takes: a tensor, a tuple of arguments, or a mapping of
            keyword arguments, on the model's device. Small ones do.
        submodule: Name of the part of the model that takes them; the model itself by default.

    Returns:
        The groups of channels that can go, and the others with the reason.

    Raises:
        ChannelError: If the forward fails on the example, or the model is lazy or quantised.
    """
    _refuse(model, submodule)
    args, kwargs = forward_arguments(example_inputs)
    with undisturbed(model):
        called = model.get_submodule(submodule) if submodule else model
        runs = [_run(model, called, args, kwargs)]
        trace = _traced(model, runs, {})
        if set(trace.tensors) - trace.recording.seen - _scalars(trace.tensors):
            runs += _training_run(model, called, args, kwargs)
        return _settled(model, runs, trace if len(runs) == 1 else _traced(model, runs, {}))


def verify(
    model: nn.Module,
    example_inputs: Inputs,
    graph: ChannelGraph,
    plan: Plan,
    submodule: str = "",
) -> None:
    """Make sure that a network without a plan's channels computes what it does with them unread.

    Args:
        model: The module; nothing is changed in it.
        example_inputs: As for :func:`analyse`.
        graph: Its channels, as they are now.
        plan: What is to go.
        submodule: As for :func:`analyse`.

    Raises:
        ChannelError: If it does not.
    """
    args, kwargs = forward_arguments(example_inputs)
    called = model.get_submodule(submodule) if submodule else model
    with undisturbed(model):
        failure = try_plan(model, [_run(model, called, args, kwargs)], graph, plan)
    if failure is not None:
        raise ChannelError(
            f"removing channels of {type(model).__name__} would break it, so nothing was removed: "
            f"{failure.reason}; exclude the layers concerned"
        )


def _settled(model: nn.Module, runs: list[Run], trace: Trace) -> ChannelGraph:
    """Try the graph out, freezing what fails, until it holds."""
    blocked: Blocked = {}
    closed: dict[Key, Reason] = {}
    graph = build(trace, closed)
    for attempt in range(RETRIES):
        if (failure := try_out(model, runs, graph, graph.groups, attempt)) is None:
            return graph
        before = len(graph.channels)
        if failure.index >= 0:
            _block(blocked, failure)
            graph = build(_traced(model, runs, blocked), closed)
        if len(graph.channels) == before:
            for group, reason in _failing_groups(model, runs, graph, graph.groups):
                closed.update(dict.fromkeys(group.keys, reason))
            graph = build(_traced(model, runs, blocked), closed)
    raise ChannelError(
        f"no sound way to remove channels from {type(model).__name__} was found in {RETRIES} trials"
    )


def _block(blocked: Blocked, failure: Failure) -> None:
    """Freeze what goes into the call that failed; where a line fails again, all that goes there."""
    again = [key for key, reason in blocked.items() if _same_line(reason, failure.place)]
    blocked[failure.place if again else failure.index] = failure.reason


def _same_line(reason: Reason, place: tuple[str, str, int]) -> bool:
    return (reason.op, reason.file, reason.line) == (place[0], basename(place[1]), place[2])


def _failing_groups(
    model: nn.Module, runs: list[Run], graph: ChannelGraph, groups: tuple[Group, ...]
) -> list[tuple[Group, Reason]]:
    """Return the groups whose removal fails, found by halves."""
    failure = try_out(model, runs, graph, groups, 0)
    if failure is None:
        return []
    if len(groups) == 1:
        return [(groups[0], failure.reason)]
    half = len(groups) // 2
    found = _failing_groups(model, runs, graph, groups[:half])
    found += _failing_groups(model, runs, graph, groups[half:])
    return found or [(group, failure.reason) for group in groups[:half]]


# --- runs --------------------------------------------------------------------------------------


def _traced(model: nn.Module, runs: list[Run], blocked: Blocked) -> Trace:
    trace = Trace(model, HANDLERS, unknown, blocked)
    try:
        with trace.watching():
            outputs = [run() for run in runs]
    except Exception as error:
        raise ChannelError(
            f"the forward of {type(model).__name__} fails on the example inputs: "
            f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        ) from error
    for name in _unsaved(model):
        reason = Reason(f"goes with {name}, which checkpoints do not hold (persistent=False)")
        trace.recording.opaque.setdefault(name, reason)
    tensors = [tensor for output in outputs for tensor in tensors_in(output)]
    if not tensors:
        raise ChannelError(
            f"the forward of {type(model).__name__} returns no tensor, so what it computes cannot "
            "be followed: give a module that does"
        )
    for tensor in tensors:
        if tensor.numel() and not tensor.isfinite().any():
            raise ChannelError(
                f"an output of {type(model).__name__} on the example inputs has no finite value, "
                "so a removal cannot be tried: look for NaN or infinity in the weights, or give "
                "other example inputs"
            )
        trace.freeze(tensor, Reason("is an output of the network"))
    return trace


def _run(
    model: nn.Module, called: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Run:
    """Return a run that starts from the same attributes and buffers each time."""

    def run() -> Any:
        with _kept(model, model.buffers()):
            return called(*args, **kwargs)

    return run


def _training_run(
    model: nn.Module, called: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[Run]:
    """Return a run with the model's own code in training mode, and torch's layers in eval mode."""

    def run() -> Any:
        with _kept(model, model.buffers()), evaluating(called):
            for module in called.modules():
                module.training = not type(module).__module__.startswith("torch.nn.")
            return called(*args, **kwargs)

    try:
        run()
    except Exception:  # a forward that asks for targets in training: eval mode has to do
        return []
    return [run]


def _scalars(tensors: Mapping[str, Tensor]) -> set[str]:
    return {name for name, tensor in tensors.items() if tensor.numel() <= 1}


def _unsaved(model: nn.Module) -> set[str]:
    """Return the names of buffers whose shape no checkpoint could tell."""
    return {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        for name in getattr(module, "_non_persistent_buffers_set", ())
    }


def _refuse(model: nn.Module, submodule: str) -> None:
    check_module(model)
    if submodule not in dict(model.named_modules()):
        raise ChannelError(f"submodule: {type(model).__name__} has no module {submodule!r}")
    for name, module in model.named_modules():
        if type(module).__module__.startswith(QUANTISED):
            raise ChannelError(
                f"{name} is quantised ({type(module).__name__}), and channels are removed from "
                "float networks only: prune first, quantise after"
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
                f"{name} is on the meta device, where nothing is computed that a removal could be "
                "tried on: give it values first"
            )


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Run a model in eval mode without lasting effect on it or the random state."""
    devices = [tensor.device for tensor in model.parameters() if tensor.is_cuda][:1]
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices))
        stack.enter_context(evaluating(model))
        stack.enter_context(attention_unfused())
        stack.enter_context(torch.no_grad())
        stack.enter_context(_eagerly())
        stack.enter_context(_kept(model, (*model.parameters(), *model.buffers())))
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())
        yield


@contextmanager
def _kept(model: nn.Module, tensors: Iterable[Tensor]) -> Iterator[None]:
    """Put back what a forward does to its modules' attributes and to these tensors."""
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
        with torch._C.DisableTorchFunction():  # none of the model's calls, which are watched
            for tensor, value in values:
                if tensor.shape != value.shape:
                    tensor.data = value
                elif not torch.equal(tensor, value):
                    tensor.copy_(value)


def _tables(module: nn.Module) -> list[dict[str, Any]]:
    own = vars(module)
    nested = [own.get(name) for name in ("_parameters", "_buffers", "_modules")]
    return [own, *(table for table in nested if isinstance(table, dict))]


def _ids(table: Mapping[str, Any]) -> list[int]:
    return list(map(id, table.values()))


@contextmanager
def _eagerly() -> Iterator[None]:
    """Let compiled modules run as they are written, where their calls can be seen."""
    stance = torch.compiler.set_stance("force_eager")
    with stance:
        yield
