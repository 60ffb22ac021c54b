"""Channel analysis: what can go from a network, found by running it, and tried out before it is said.

The network runs once while labels follow its channels (:mod:`lit_compress.pruning.labels`). Then a
part of every group is removed on trial and the result compared with the network in which the layers
that read those channels see zeros: what raises, or differs, is frozen, and named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from os.path import basename
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.utils._pytree import tree_leaves

from lit_compress.errors import ChannelError
from lit_compress.measure.cost import attention_unfused, evaluating
from lit_compress.pruning.graph import ChannelGraph, Group, Key, build
from lit_compress.pruning.labels import Reason
from lit_compress.pruning.operations import RULES, unknown
from lit_compress.pruning.plan import Plan, make_plan
from lit_compress.pruning.surgery import cut_tensor, replaced
from lit_compress.pruning.trace import Count, Trace, named_tensors

Inputs = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]
Blocked = dict[int | tuple[str, str, int], Reason]
Run = Callable[[], Any]

#: Trials before what is left in doubt is frozen group by group.
RETRIES = 60
#: Relative difference above which removed and masked are called different.
TOLERANCE = {torch.float64: 1e-6, torch.float16: 5e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True)
class Failure:
    """A trial that went wrong: the call it ended at, or none if only the result differs."""

    index: int
    place: tuple[str, str, int]
    reason: Reason


def analyse(model: nn.Module, example_inputs: Inputs) -> ChannelGraph:
    """Find which channels of a network can be removed together, and which cannot and why.

    The model runs a few times in eval mode; its weights, buffers, mode and the random state are as
    before afterwards. Where layers are left out in eval mode (auxiliary heads), it runs in training
    mode too.

    Args:
        model: Any module. Its code is not traced: what matters is the torch calls it makes.
        example_inputs: What its forward takes: a tensor, a tuple of arguments, or a mapping of
            keyword arguments, on the model's device. Small ones do.

    Returns:
        The groups of channels that can go, and the others with the reason.

    Raises:
        ChannelError: If the forward fails on the example, or the model is lazy or quantised.
    """
    _refuse(model)
    args, kwargs = _arguments(example_inputs)
    with _undisturbed(model):
        runs: list[Run] = [lambda: model(*args, **kwargs)]
        trace = _traced(model, runs, {})
        if set(trace.tensors) - trace.recording.seen - _scalars(trace.tensors):
            runs += _training_run(model, args, kwargs)
        return _settled(model, runs, trace if len(runs) == 1 else _traced(model, runs, {}))


def _settled(model: nn.Module, runs: list[Run], trace: Trace) -> ChannelGraph:
    """Try the graph out, freezing what fails, until it holds."""
    blocked: Blocked = {}
    closed: dict[Key, Reason] = {}
    graph = build(trace, closed)
    for attempt in range(RETRIES):
        failure = _try_out(model, runs, graph, graph.groups, attempt)
        if failure is None:
            return graph
        before = len(graph.classes)
        if failure.index >= 0:
            _block(blocked, failure)
            graph = build(_traced(model, runs, blocked), closed)
        if len(graph.classes) == before:
            for group, reason in _guilty(model, runs, graph, graph.groups):
                closed.update(dict.fromkeys(group.keys, reason))
            graph = build(_traced(model, runs, blocked), closed)
    raise ChannelError(
        f"no sound way to remove channels was found in {RETRIES} trials; the last failed: "
        f"{failure.reason}"
    )


def _block(blocked: Blocked, failure: Failure) -> None:
    """Freeze what goes into the call that failed; where a line fails again, all that goes there."""
    again = [key for key, reason in blocked.items() if _same_line(reason, failure.place)]
    blocked[failure.place if again else failure.index] = failure.reason


def _same_line(reason: Reason, place: tuple[str, str, int]) -> bool:
    return (reason.op, reason.file, reason.line) == (place[0], basename(place[1]), place[2])


def _guilty(
    model: nn.Module, runs: list[Run], graph: ChannelGraph, groups: tuple[Group, ...]
) -> list[tuple[Group, Reason]]:
    """Return the groups whose removal fails, found by halves."""
    failure = _try_out(model, runs, graph, groups, 0)
    if failure is None:
        return []
    if len(groups) == 1:
        return [(groups[0], failure.reason)]
    half = len(groups) // 2
    found = _guilty(model, runs, graph, groups[:half])
    found += _guilty(model, runs, graph, groups[half:])
    return found or [(group, failure.reason) for group in groups[:half]]


# --- trials ------------------------------------------------------------------------------------


def _try_out(
    model: nn.Module, runs: list[Run], graph: ChannelGraph, groups: Iterable[Group], seed: int
) -> Failure | None:
    """Remove a third of each group on trial; return what went wrong."""
    random = np.random.default_rng(seed)
    gone: list[int] = []
    for group in groups:
        count = min(graph.removable(group), -(-len(group.classes) // 3))
        gone += random.permutation(group.classes)[:count].tolist()
    if not gone:
        return None
    return try_plan(model, runs, graph, make_plan(graph, gone))


def try_plan(
    model: nn.Module, runs: list[Run], graph: ChannelGraph, plan: Plan
) -> Failure | None:
    """Run a network with a plan's channels removed, and with them unread; return the difference.

    Small parameters are shaken in both, since a scale of zero would hide a difference.
    """
    own = named_tensors(model)
    shaken = _shaken(own)
    values = shaken | {
        name: _unread(shaken.get(name, own[name]), graph, plan, name) for name in plan.by_tensor()
    }
    with replaced(model, values):
        expected = [_outputs(run) for run in runs]
    values = shaken | {
        name: cut_tensor(shaken.get(name, own[name].detach()), dims)
        for name, dims in plan.by_tensor().items()
    }
    count = Count()
    try:
        with replaced(model, values, plan.norms), count:
            found = [_outputs(run) for run in runs]
    except Exception as error:  # whatever the model's own code raises
        op, file, line = count.place
        text = next(iter(str(error).splitlines()), type(error).__name__)
        why = f"needs the width it has: {type(error).__name__}: {text}"
        return Failure(count.calls - 1, count.place, Reason(why, op, "", basename(file), line))
    if not all(map(_agree, expected, found)):
        why = "the network computes something else without it"
        return Failure(-1, ("", "", 0), Reason(why))
    return None


def _unread(tensor: Tensor, graph: ChannelGraph, plan: Plan, name: str) -> Tensor:
    """Return a tensor with zeros where it reads removed channels."""
    for dim, cut in plan.by_tensor()[name].items():
        if graph.roles[name, dim] == "input":
            gone = np.setdiff1d(np.arange(cut.size), cut.keep)
            tensor = tensor.detach().index_fill(
                dim, torch.from_numpy(gone).to(tensor.device), 0
            )
    return tensor.detach()


def _shaken(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: tensor.detach()
        + 0.1 * torch.randn(tensor.shape, generator=generator).to(tensor.device, tensor.dtype)
        for name, tensor in tensors.items()
        if isinstance(tensor, nn.Parameter) and tensor.dim() == 1 and tensor.is_floating_point()
    }


def _outputs(run: Run) -> list[Tensor]:
    torch.manual_seed(0)
    return [tensor.detach() for tensor in tensors_in(run())]


def _agree(expected: list[Tensor], found: list[Tensor]) -> bool:
    if len(expected) != len(found):
        return False
    return all(_close(one, other) for one, other in zip(expected, found, strict=True))


def _close(expected: Tensor, found: Tensor) -> bool:
    if expected.shape != found.shape:
        return False
    if not expected.is_floating_point():
        return True  # indices may differ where values are near
    finite = expected.isfinite()
    if not torch.equal(finite, found.isfinite()):
        return False
    scale = expected[finite].abs().max().item() if finite.any() else 0.0
    apart = (expected - found)[finite].abs().max().item() if finite.any() else 0.0
    return apart <= TOLERANCE.get(expected.dtype, 1e-3) * scale


# --- runs --------------------------------------------------------------------------------------


def _traced(model: nn.Module, runs: list[Run], blocked: Blocked) -> Trace:
    trace = Trace(model, RULES, unknown, blocked)
    try:
        with trace.watching():
            outputs = [run() for run in runs]
    except Exception as error:
        raise ChannelError(
            f"the forward of {type(model).__name__} fails on the example inputs: "
            f"{type(error).__name__}: {error}"
        ) from error
    tensors = [tensor for output in outputs for tensor in tensors_in(output)]
    if not tensors:
        raise ChannelError(
            f"the forward of {type(model).__name__} returns no tensor, so what it computes cannot "
            "be followed: give a module that does"
        )
    for tensor in tensors:
        trace.freeze(tensor, Reason("is an output of the network"))
    return trace


def _training_run(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Run]:
    """Return a run with the model's own code in training mode, and torch's layers in eval mode."""

    def run() -> Any:
        with evaluating(model):
            for module in model.modules():
                module.training = not type(module).__module__.startswith("torch.nn.")
            return model(*args, **kwargs)

    try:
        run()
    except Exception:  # a forward that asks for targets in training: eval mode has to do
        return []
    return [run]


def _scalars(tensors: Mapping[str, Tensor]) -> set[str]:
    return {name for name, tensor in tensors.items() if tensor.numel() <= 1}


def _arguments(inputs: Inputs) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    if isinstance(inputs, Mapping):
        return (), inputs
    if isinstance(inputs, (tuple, list)):
        return tuple(inputs), {}
    return (inputs,), {}


def tensors_in(value: Any, depth: int = 3) -> list[Tensor]:
    """Return the tensors in nested containers, dataclasses and plain objects."""
    found: list[Tensor] = []
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif depth and not isinstance(leaf, nn.Module) and hasattr(leaf, "__dict__"):
            found += tensors_in(dict(vars(leaf)), depth - 1)
    return found


def _refuse(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.nn.quantized")):
            raise ChannelError(
                f"{name} is quantised ({type(module).__name__}), and channels are removed from float "
                "networks only: prune first, quantise after"
            )
    for name, parameter in model.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            raise ChannelError(
                f"{name} is lazy and has no shape yet: run one batch through the module first"
            )


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Run a model in eval mode without lasting effect on it or the random state."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    devices = [tensor.device for tensor in model.parameters() if tensor.is_cuda][:1]
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices))
        stack.enter_context(evaluating(model))
        stack.enter_context(attention_unfused())
        stack.enter_context(torch.no_grad())
        stack.enter_context(_eagerly())
        try:
            yield
        finally:
            for name, buffer in model.named_buffers():
                if name in buffers and not torch.equal(buffer, buffers[name]):
                    buffer.copy_(buffers[name])


@contextmanager
def _eagerly() -> Iterator[None]:
    """Let compiled modules run as they are written, where their calls can be seen."""
    stance = torch.compiler.set_stance("force_eager")
    with stance:
        yield
