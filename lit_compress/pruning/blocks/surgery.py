"""Put stand-ins in the place of modules, and the modules back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from lit_compress.errors import PlanError
from lit_compress.pruning.blocks.stand_in import StandIn


def remove_blocks(module: nn.Module, kinds: Mapping[str, str], *optimizers: Optimizer) -> None:
    """Replace modules by stand-ins, and drop their parameters from optimizers.

    Parameters that remain keep their identity and the state of the optimizers.

    Args:
        module: The module that they are parts of; changed in place.
        kinds: By name, what stands in the place of a module, see
            :class:`~lit_compress.pruning.blocks.stand_in.StandIn`. A name within another one, and
            one that has its stand-in already, are passed over.
        optimizers: Optimizers of the module.

    Raises:
        PlanError: If the module has no part of a name, or there is no such kind; nothing is changed
            then.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> remove_blocks(net, {"1": "identity"})
        >>> net
        Sequential(
          (0): Linear(in_features=2, out_features=2, bias=True)
          (1): StandIn(identity, in place of Linear)
        )
    """
    parts = dict(module.named_modules())
    kinds = {name: kind for name, kind in outermost(kinds).items() if not _is_in(parts, name)}
    made: dict[str, StandIn] = {}
    for name, kind in kinds.items():
        if not name or name not in parts:
            raise PlanError(
                f"{type(module).__name__} has no part {name!r:.80} to remove: the record of "
                "removed blocks is damaged, or of another network"
            )
        if not isinstance(part := parts[name], StandIn) or part.kind != kind:
            made[name] = StandIn(kind, part)
    # Nothing can fail from here on.
    for name, stand_in in made.items():
        for parameter in parts[name].parameters():
            parameter.grad = None
        parts[name].cpu()
        _set(module, name, stand_in)
    _drop(optimizers, module)


def _is_in(parts: Mapping[str, nn.Module], name: str) -> bool:
    """Tell whether a name is within a part that was removed."""
    ends = [at for at, letter in enumerate(name) if letter == "."]
    return name not in parts and any(isinstance(parts.get(name[:end]), StandIn) for end in ends)


def outermost(kinds: Mapping[str, str]) -> dict[str, str]:
    """Return the entries whose name is not within another one.

    Example:
        >>> outermost({"a.b": "identity", "a": "relu", "ab": "zero"})
        {'a': 'relu', 'ab': 'zero'}
    """
    return {
        name: kind
        for name, kind in kinds.items()
        if not any(name.startswith(f"{other}.") for other in kinds)
    }


def stand_ins(module: nn.Module) -> dict[str, StandIn]:
    """Return the stand-ins in a module by name."""
    return {name: part for name, part in module.named_modules() if isinstance(part, StandIn)}


def removed_kinds(module: nn.Module) -> dict[str, str]:
    """Return what stands in the place of removed modules, by name."""
    return {name: part.kind for name, part in stand_ins(module).items()}


def take_blocks_of(
    module: nn.Module, state: Mapping[str, Any], kinds: Mapping[str, str] | None = None
) -> list[tuple[str, nn.Module]]:
    """Give a module the blocks of a state dict that it is about to load.

    Args:
        module: The module; changed in place. Modules that were removed come back if the state has
            tensors of them.
        state: The state dict.
        kinds: What stands in the place of the modules that were removed from the network of the
            state. One that the state has tensors of stays.

    Returns:
        The names of the parts that were replaced, and what stood there, for :func:`put_back`.

    Raises:
        PlanError: If the module has no part that was removed.
    """
    before: list[tuple[str, nn.Module]] = []
    while found := {n: s for n, s in stand_ins(module).items() if s.removed and _has(state, n)}:
        for name, stand_in in found.items():
            if stand_in.removed is not None:
                before.append((name, stand_in))
                put_back(module, [(name, stand_in.removed)])
    kinds = {n: k for n, k in (kinds or {}).items() if not _has(state, n)}
    parts = dict(module.named_modules())
    try:
        remove_blocks(module, kinds)
    except PlanError:
        put_back(module, before)
        raise
    now = stand_ins(module)
    return [*before, *((name, parts[name]) for name in now if parts[name] is not now[name])]


def put_back(module: nn.Module, parts: Iterable[tuple[str, nn.Module]]) -> None:
    """Put parts of a module back that were replaced.

    Args:
        module: The module.
        parts: Their names, and the parts, in the order in which they were replaced.
    """
    for name, part in reversed(list(parts)):
        like = next(iter(module.parameters()), None)
        kinds = {tensor.dtype for tensor in module.parameters() if tensor.is_floating_point()}
        if like is not None:
            part.to(like.device)
        if len(kinds) == 1:  # a copy may be in single precision, and what was removed is not
            part.to(kinds.pop())
        part.train(module.get_submodule(name).training)
        _set(module, name, part)


@contextmanager
def without(module: nn.Module, kinds: Mapping[str, str]) -> Iterator[None]:
    """Replace modules by stand-ins until the end of the block.

    Args:
        module: The module that they are parts of.
        kinds: By name, what stands in the place of a module.
    """
    parts = dict(module.named_modules())
    try:
        for name, kind in outermost(kinds).items():
            _set(module, name, StandIn(kind, parts[name]))
        yield
    finally:
        for name in outermost(kinds):
            _set(module, name, parts[name])


def forget_removed(module: nn.Module) -> None:
    """Drop the modules that stand-ins keep aside."""
    for stand_in in stand_ins(module).values():
        stand_in.forget()


def _set(module: nn.Module, name: str, part: nn.Module) -> None:
    path, _, leaf = name.rpartition(".")
    parent = module.get_submodule(path)
    parent._modules[leaf] = part
    if isinstance(parent, nn.TransformerEncoderLayer):
        parent.activation_relu_or_gelu = _fused_activation(parent)


def _fused_activation(layer: nn.TransformerEncoderLayer) -> int:
    """Return the number of a layer's activation for torch's fused path, which needs all parts.

    As in the constructor of the layer; 0 switches the path off.
    """
    activation = layer.activation
    if any(isinstance(part, StandIn) for part in layer.children()):
        return 0
    if activation is functional.relu or isinstance(activation, nn.ReLU):
        return 1
    return 2 if activation is functional.gelu or isinstance(activation, nn.GELU) else 0


def _has(state: Mapping[str, Any], name: str) -> bool:
    return any(key.startswith(f"{name}.") for key in state)


def _drop(optimizers: Iterable[Optimizer], module: nn.Module) -> None:
    """Drop the parameters of removed modules from optimizers."""
    gone: dict[int, Tensor] = {}
    for stand_in in stand_ins(module).values():
        if stand_in.removed is not None:
            gone.update((id(parameter), parameter) for parameter in stand_in.removed.parameters())
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            kept = [parameter for parameter in group["params"] if id(parameter) not in gone]
            if names := group.get("param_names"):
                pairs = zip(names, group["params"], strict=True)
                group["param_names"] = [name for name, p in pairs if id(p) not in gone]
            group["params"] = kept
        for parameter in gone.values():
            optimizer.state.pop(parameter, None)
