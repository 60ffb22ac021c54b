"""Cut channels out of a module and its optimizers, in place, all or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate
from operator import mul
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel
from torch.utils.weak import WeakTensorKeyDictionary

from lit_compress.errors import PlanError
from lit_compress.pruning.channels.checks import (
    check_owned,
    check_tensors,
    check_types,
    check_widths,
)
from lit_compress.pruning.channels.plan import Cut, Plan
from lit_compress.pruning.channels.spectral import settle_spectral_norms
from lit_compress.pruning.channels.tracing.modules import named_modules, named_tensors
from lit_compress.pruning.channels.widths import Attribute, set_widths

#: Names of parameters that were cut, so that an optimizer can be cut after its module.
_NAMES: Any = WeakTensorKeyDictionary()

#: Optimizers that do not keep a state for each parameter.
WHOLE = ("LBFGS", "ZeroRedundancyOptimizer")


def apply(plan: Plan, target: nn.Module | Optimizer, *optimizers: Optimizer) -> None:
    """Remove a plan's channels from a module and its optimizers; in place, all or nothing.

    Parameters keep their identity, so optimizers, schedulers and hooks stay valid. The gradients of
    parameters that are cut are dropped. Module attributes such as ``out_channels`` are updated.

    Args:
        plan: The channels to remove, from :func:`lit_compress.pruning.make_plan`.
        target: A module, or an optimizer of a module that this plan was applied to before. Of an
            ``AveragedModel``, the averaged module is cut.
        optimizers: Optimizers of the module; their state is cut together with it.

    Raises:
        PlanError: If the plan is for other shapes, or the state of an optimizer cannot be cut;
            nothing is changed then.

    Example:
        >>> from lit_compress.pruning import analyse, make_plan
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        >>> graph = analyse(net, torch.ones(1, 3))
        >>> apply(make_plan(graph, removed=[0, 2]), net, optimizer)
        >>> net
        Sequential(
          (0): Linear(in_features=3, out_features=2, bias=True)
          (1): ReLU()
          (2): Linear(in_features=2, out_features=2, bias=True)
        )
    """
    check_types(plan, target, optimizers)
    if isinstance(target, Optimizer):
        names = _known_names(target)
        cuts = plan.by_tensor()
        _write(_cut_states((target,), {id(p): cuts[n] for p, n in names if n in cuts}))
        return
    module = target.module if isinstance(target, AveragedModel) else target
    tensors = named_tensors(module)
    cuts = plan.by_tensor()
    check_tensors(plan, tensors)
    check_widths(plan, module)
    check_owned(optimizers if plan.cuts else (), tensors)
    by_id = {id(tensors[name]): dims for name, dims in cuts.items()}
    states = _cut_states(optimizers, by_id)
    new = {name: cut_tensor(tensors[name].detach(), dims) for name, dims in cuts.items()}
    # Nothing can fail from here on.
    _write(states)
    for name, tensor in tensors.items():
        if isinstance(tensor, nn.Parameter):
            _NAMES[tensor] = name
        if name in new:
            swap_data(tensor, new[name])
    set_widths(module, set(by_id), plan.widths)
    settle_spectral_norms(module, set(by_id))


def swap_data(tensor: Tensor, value: Tensor) -> None:
    """Replace the data of a tensor by data of another shape, and drop its gradient."""
    tensor.grad = None
    # While the graph of an earlier loss exists, autograd keeps the old shape. A change of type in
    # between makes it drop that shape.
    other = torch.float32 if tensor.dtype == torch.float16 else torch.float16
    tensor.data = value.new_empty(0, dtype=other)
    tensor.data = value


def cut_tensor(tensor: Tensor, dims: Mapping[int, Cut]) -> Tensor:
    """Return the part of a tensor that cuts keep, in the tensor's memory format.

    Args:
        tensor: The tensor; it is not changed.
        dims: Cuts by dimension.
    """
    kept = tensor
    for dim, cut in sorted(dims.items()):  # whole rows first: the rest has less to copy
        kept = kept.index_select(dim, torch.from_numpy(cut.indices).to(tensor.device))
    return in_layout_of(tensor, kept)


def in_layout_of(tensor: Tensor, value: Tensor) -> Tensor:
    """Return a value in the memory format of another tensor.

    The strides decide, even if both formats have the same bytes (a 1 x 1 convolution): torch uses
    them to select the format in which a layer computes.
    """
    if tensor.dim() == 4 and tensor.stride() != _contiguous_strides(tensor.shape):
        return torch.empty_like(value, memory_format=torch.channels_last).copy_(value)
    return value.contiguous()


def _contiguous_strides(shape: torch.Size) -> tuple[int, ...]:
    """Return the strides of a contiguous tensor; a dimension of size 0 counts as size 1."""
    sizes = [max(1, size) for size in shape[:0:-1]]
    return tuple(accumulate(sizes, mul, initial=1))[::-1]


# --- optimizers --------------------------------------------------------------------------------


def _known_names(optimizer: Optimizer) -> list[tuple[Tensor, str]]:
    """Return the parameters of an optimizer with their names; a name may be empty."""
    pairs = []
    for group in optimizer.param_groups:
        own = group.get("param_names") or [""] * len(group["params"])
        # A name in _NAMES is the plan's name; the optimizer's own name may have a wrapper's prefix.
        pairs += [(p, _NAMES.get(p, name)) for p, name in zip(group["params"], own, strict=True)]
    if not any(name for _, name in pairs):
        raise PlanError(
            "the optimizer's parameters have no known names: apply the plan to its module first, "
            "or to both together: apply(plan, module, optimizer)"
        )
    return pairs


def _cut_states(
    optimizers: Iterable[Optimizer], cuts: Mapping[int, Mapping[int, Cut]]
) -> list[tuple[dict[Any, Any], Any, Tensor]]:
    """Return the cut state of the optimizers, as (state, key, new value); nothing is written."""
    optimizers = tuple(optimizers)
    for optimizer in optimizers:
        if optimizer.state and type(optimizer).__name__ in WHOLE:
            raise PlanError(
                f"{type(optimizer).__name__} keeps one joint state for all parameters, which "
                "cannot be cut: use SGD, Adam, AdamW, RMSprop or Adagrad, or remove channels at "
                "the end of the fit"
            )
    return [
        (state, key, cut_tensor(value, matching))
        for optimizer in optimizers
        for parameter, state in optimizer.state.items()
        if id(parameter) in cuts
        for key, value in state.items()
        if (matching := _matching_cuts(optimizer, key, value, cuts[id(parameter)]))
    ]


def _matching_cuts(
    optimizer: Optimizer, key: Any, value: Any, cuts: Mapping[int, Cut]
) -> dict[int, Cut]:
    """Return the cuts that apply to a value of an optimizer's state.

    A value of the parameter's shape is cut like the parameter. A dimension of size 1 (a factored
    moment) and a single number are not cut.
    """
    if isinstance(value, (list, tuple, dict)) and value:
        raise PlanError(_unknown_state(optimizer, key, "a collection"))
    if not isinstance(value, Tensor) or value.numel() <= 1:
        return {}
    matching = {}
    for dim, cut in cuts.items():
        size = value.shape[dim] if dim < value.dim() else None
        if size == cut.size:
            matching[dim] = cut
        elif size == len(cut.keep):
            raise PlanError(
                f"the state {key!r} of {type(optimizer).__name__} has {size} of {cut.size} indices "
                f"of {cut.tensor}: the plan was applied to the optimizer already"
            )
        elif size != 1:
            raise PlanError(_unknown_state(optimizer, key, f"of shape {tuple(value.shape)}"))
    return matching


def _unknown_state(optimizer: Optimizer, key: Any, what: str) -> str:
    return (
        f"the state {key!r} of {type(optimizer).__name__} is {what}, which does not follow its "
        "parameter's shape, so it cannot be cut: use SGD, Adam, AdamW, RMSprop or Adagrad, or "
        "remove channels at the end of the fit"
    )


def _write(states: Iterable[tuple[dict[Any, Any], Any, Tensor]]) -> None:
    for state, key, value in states:
        old = state[key]
        if old.shape != value.shape:
            state[key] = value


# --- replacement for a while --------------------------------------------------------------------


def tensor_at(module: nn.Module, name: str) -> Tensor | None:
    """Return a parameter or buffer by its name, without listing those of all modules."""
    *path, leaf = name.split(".")
    layer = module
    for part in path:
        layer = layer._modules[part]  # type: ignore[assignment]
    return layer._parameters[leaf] if leaf in layer._parameters else layer._buffers[leaf]


@contextmanager
def replaced(
    module: nn.Module, values: Mapping[str, Tensor], widths: Mapping[str, int] | None = None
) -> Iterator[None]:
    """Replace tensors of a module until the end of the block.

    Args:
        module: The module; its own tensors are not changed, and are restored at the end.
        values: New tensors by name; a tensor with several names is replaced under all of them.
        widths: By name, the widths that no tensor tells. Default: none.
    """
    new = {id(tensor_at(module, name)): (name, value) for name, value in values.items()}
    made: dict[str, Tensor] = {}
    replaced_tensors: list[tuple[dict[str, Any], str, Tensor]] = []
    changed: set[int] = set()
    before: list[Attribute] = []
    try:
        for _, layer in named_modules(module):
            tables: list[dict[str, Any]] = [layer._parameters, layer._buffers]
            for table in tables:
                for name, tensor in list(table.items()):
                    if id(tensor) not in new:
                        continue
                    first, value = new[id(tensor)]
                    if first not in made:
                        is_parameter = isinstance(tensor, nn.Parameter)
                        made[first] = nn.Parameter(value, False) if is_parameter else value
                    replaced_tensors.append((table, name, tensor))
                    table[name] = made[first]
                    if value.shape != tensor.shape:
                        changed.add(id(made[first]))
        before = set_widths(module, changed, widths) if changed or widths else []
        yield
    finally:
        for table, name, tensor in replaced_tensors:
            table[name] = tensor
        for layer, attribute, value in before:
            setattr(layer, attribute, value)
