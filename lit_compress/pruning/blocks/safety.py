"""Why a module cannot be removed although it only adds branches: others need what is in it."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from lit_compress.pruning.blocks.flow import Flow
from lit_compress.pruning.channels.tracing.labels import Reason


def why_not(model: nn.Module, flow: Flow, names: Collection[str]) -> Reason | None:
    """Return why modules cannot be taken from a network; None if they can.

    Args:
        model: The network.
        flow: A run of it.
        names: Names of the modules, none of them within another.
    """
    parts = {part for name in names for part in model.get_submodule(name).modules()}
    return (
        _called_twice(flow, names)
        or _called_outside(flow, names, parts)
        or _shared(model, names, parts)
        or _read_outside(flow, names)
    )


def why_needed(flow: Flow, name: str) -> Reason | None:
    """Return why what a module computes on its way is needed elsewhere; None if it is not.

    Args:
        flow: A run of the network.
        name: Name of a module that is called once.
    """
    module = next(call for call in flow.modules if call.name == name)
    inside = {v for call in flow.calls[module.start : module.end] for v in call.outputs}
    inside.discard(module.made[0])
    for call in flow.calls[module.end :]:
        if inside.intersection(call.inputs):
            return call.reason("computes a tensor that is used outside of it", flow.owner(call))
    if inside.intersection(flow.outputs):
        return Reason("computes a tensor that the network returns")
    return None


def _called_twice(flow: Flow, names: Collection[str]) -> Reason | None:
    for name in names:
        count = sum(call.name == name for call in flow.modules)
        if count > 1:
            return Reason(f"is called {count} times, and can only go everywhere or nowhere")
    return None


def _called_outside(flow: Flow, names: Collection[str], parts: set[nn.Module]) -> Reason | None:
    """Return whether a part of a module is called while the module is not."""
    spans = [(call.start, call.end) for call in flow.modules if call.name in names]
    for call in flow.modules:
        inside = any(start <= call.start and call.end <= end for start, end in spans)
        if call.module in parts and not inside:
            return Reason(f"has a part that is called outside of it too ({call.name})")
    return None


def _shared(model: nn.Module, names: Collection[str], parts: set[nn.Module]) -> Reason | None:
    """Return whether tensors of a module are those of another module too."""
    own = {id(tensor): tensor for part in parts for tensor in _tensors(part)}
    for name, module in model.named_modules(remove_duplicate=False):
        inside = any(name == one or name.startswith(f"{one}.") for one in names)
        if inside:
            continue
        if module in parts:
            return Reason(f"is {name} too")
        if any(id(tensor) in own for tensor in _tensors(module)):
            return Reason(f"shares weights with {name or 'the network itself'}")
    return None


def _read_outside(flow: Flow, names: Collection[str]) -> Reason | None:
    """Return whether a call outside of a module reads its weights or buffers."""
    spans = [(call.start, call.end) for call in flow.modules if call.name in names]
    for number, call in enumerate(flow.calls):
        if any(start <= number < end for start, end in spans):
            continue
        for tensor in call.reads:
            if any(tensor.startswith(f"{name}.") for name in names):
                why = f"has {tensor}, which is read outside of it"
                return call.reason(why, flow.owner(call))
    return None


def _tensors(module: nn.Module) -> list[object]:
    return [t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]
