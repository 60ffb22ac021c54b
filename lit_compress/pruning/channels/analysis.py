"""Channel analysis: run a network to find the channels that can be removed, and try to remove them.

The network runs once while labels follow its channels. Then a part of each group is removed on
trial, and the outputs are compared with those of the network that reads zeros in these channels.
Channels whose removal raises an error or changes the outputs are frozen, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from os.path import basename
from typing import Literal

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from lit_compress.errors import ChannelError
from lit_compress.measure.cost import Inputs, batch_size, forward_arguments, macs_of, one_example
from lit_compress.pruning.channels.build import build
from lit_compress.pruning.channels.checks import check_module
from lit_compress.pruning.channels.graph import ChannelGraph, Group, Key
from lit_compress.pruning.channels.operations import HANDLERS, own, settle, unknown
from lit_compress.pruning.channels.plan import Plan
from lit_compress.pruning.channels.products import products_of
from lit_compress.pruning.channels.runs import run_of, training_run, undisturbed
from lit_compress.pruning.channels.tracing.followers import tie_followers
from lit_compress.pruning.channels.tracing.labels import Reason
from lit_compress.pruning.channels.tracing.modules import named_modules
from lit_compress.pruning.channels.tracing.trace import Trace
from lit_compress.pruning.channels.trials.outputs import Run, tensors_in
from lit_compress.pruning.channels.trials.pair import Pair
from lit_compress.pruning.channels.trials.verify import Failure, try_out, try_plan

Blocked = dict[int | tuple[str, str, int], Reason]
Norm = Literal["exact", "approximate"]

#: Where the modules of quantised networks are defined.
QUANTISED = ("torch.ao.nn.quantized", "torch.nn.quantized", "torch.ao.nn.intrinsic.quantized")
#: What the names of operations begin with that apply the weights of a layer.
LAYERS = ("conv", "linear", "bilinear", "batch_norm", "instance_norm", "group_norm", "layer_norm")
#: Largest number of trials for one network.
RETRIES = 60


@dataclass(frozen=True)
class _How:
    """How channels are followed: which parts follow others, and whether norms let channels go."""

    followers: Mapping[str, str] = field(default_factory=dict)
    approximate: bool = False


def analyse(
    model: nn.Module,
    example_inputs: Inputs,
    submodule: str = "",
    followers: Mapping[str, str] | None = None,
    norm: Norm = "exact",
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
        norm: ``exact`` keeps all channels that a norm over all channels reads (layer norm, RMS
            norm, a mean or variance of channels), since its statistics would be others without
            some of them. ``approximate`` lets them go: the norm is then one of those that are left,
            and the network computes something else than with zeros in their place.

    Returns:
        The channels that can be removed in groups, and the frozen channels with the reason.

    Raises:
        ChannelError: If the forward fails on the example inputs, or the model is lazy, quantised,
            exported or on the meta device.

    Example:
        >>> import torch
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
    with undisturbed(model):
        return _analysed(
            model, example_inputs, submodule, _How(followers or {}, norm == "approximate")
        )


def analyse_and_count(
    model: nn.Module,
    example_inputs: Inputs,
    submodule: str = "",
    followers: Mapping[str, str] | None = None,
    norm: Norm = "exact",
) -> tuple[ChannelGraph, int, tuple[str, ...]]:
    """Do as :func:`analyse` does, and count the MACs of one example.

    Returns:
        The channels, the MACs, and the names of the operators whose MACs are not known.
    """
    _refuse(model, submodule)
    with undisturbed(model):
        how = _How(followers or {}, norm == "approximate")
        graph = _analysed(model, example_inputs, submodule, how)
        return graph, *macs_of(model.get_submodule(submodule), example_inputs)


def _analysed(model: nn.Module, inputs: Inputs, submodule: str, how: _How) -> ChannelGraph:
    """Return the channels of a model that is undisturbed."""
    args, kwargs = forward_arguments(inputs)
    called = model.get_submodule(submodule)
    runs = [run_of(model, called, args, kwargs)]
    first = trace = _traced(model, runs, {}, how)  # of eval mode alone
    if set(trace.tensors) - trace.recording.seen - _scalars(trace.tensors):
        runs += training_run(model, called, args, kwargs)
    trace = trace if len(runs) == 1 else _traced(model, runs, {}, how)
    graph = _verified_graph(model, runs, trace, how)
    normed = bool(trace.recording.mixed) and not how.approximate
    counted, rows = _one_example(model, called, inputs, first, how)
    return replace(
        graph,
        approximate=how.approximate,
        normed=normed,
        positions=_positions(counted, rows),
        products=products_of(counted, graph.channel_of, rows),
    )


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
        runs = [run_of(model, called, args, kwargs)]
        # Most networks need no trace: only what depends on all channels, and what has failed.
        known = not graph.approximate and not graph.normed
        if known and Pair.of(model, plan).agrees(runs, graph.roles):
            return
        how = _How(approximate=graph.approximate)
        failure = try_plan(model, runs, plan, _traced(model, runs, {}, how))
    if failure is not None:
        raise ChannelError(
            f"removing channels of {type(model).__name__} would break it, so nothing was removed: "
            f"{failure.reason}; exclude these layers"
        )


def _verified_graph(model: nn.Module, runs: list[Run], trace: Trace, how: _How) -> ChannelGraph:
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
            trace = _traced(model, runs, blocked, how)
            graph = build(trace, closed)
        if len(graph.channels) == before:
            for group, reason in _failing_groups(model, runs, graph, graph.groups, trace):
                closed.update(dict.fromkeys(group.keys, reason))
            trace = _traced(model, runs, blocked, how)
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
    how: _How | None = None,
) -> Trace:
    how = how or _How()
    trace = Trace(model, HANDLERS, unknown, blocked, own, how.approximate)
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
    tie_followers(trace, model, how.followers)
    settle(trace)
    return trace


def _one_example(
    model: nn.Module, called: nn.Module, inputs: Inputs, first: Trace, how: _How
) -> tuple[Trace, int]:
    """Return a trace in eval mode, of one example if possible, and the number of its examples."""
    rows = batch_size(inputs)
    if rows <= 1:
        return first, 1
    one, rows = one_example(called, inputs)
    if rows == 1 and one is not inputs:
        args, kwargs = forward_arguments(one)
        return _traced(model, [run_of(model, called, args, kwargs)], {}, how), 1
    return first, rows


def _positions(trace: Trace, rows: int) -> dict[str, Fraction]:
    """Return the positions of each weight for one example.

    A weight that is applied to fewer positions than there are examples counts as applied to one.
    """
    found = trace.recording.positions
    return {
        name: count / rows if rows == 1 or count >= rows else Fraction(1)
        for name, count in found.items()
    }


def _scalars(tensors: Mapping[str, Tensor]) -> set[str]:
    return {name for name, tensor in tensors.items() if tensor.numel() <= 1}


def _unsaved(model: nn.Module) -> set[str]:
    """Return the names of the buffers that checkpoints do not store."""
    return {
        f"{path}.{name}" if path else name
        for path, module in named_modules(model)
        for name in getattr(module, "_non_persistent_buffers_set", ())
    }


def _refuse(model: nn.Module, submodule: str) -> None:
    check_module(model)
    modules = dict(named_modules(model))
    if submodule not in modules:
        raise ChannelError(
            f"submodule: {type(model).__name__} has no module {submodule!r}: give a name from "
            "named_modules()"
        )
    for name, module in modules.items():
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
