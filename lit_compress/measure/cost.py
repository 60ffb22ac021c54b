"""Count the parameters, non-zeros and multiply-accumulates of a module, in total and per layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_leaves, tree_map

from lit_compress.measure.operators import ProductCounter


@dataclass(frozen=True)
class LayerCost:
    """Cost of one layer of a module.

    Attributes:
        name: Name of the layer in the module.
        kind: Name of the layer's class.
        parameters: Number of elements of the layer's own parameters.
        nonzero: Number of those elements that are not zero.
        macs: Multiply-accumulates of one forward of one example, children included.
    """

    name: str
    kind: str
    parameters: int
    nonzero: int
    macs: int


@dataclass(frozen=True)
class Cost:
    """Cost of a module.

    Attributes:
        parameters: Number of elements of all parameters; a shared tensor counts once.
        nonzero: Number of those elements that are not zero.
        macs: Multiply-accumulates of one forward of one example, without those of ``uncounted``.
        layers: Cost of each module that has parameters or computes, in order.
        uncounted: Names of operators that multiply, or may, and whose MACs are not known.
    """

    parameters: int
    nonzero: int
    macs: int
    layers: tuple[LayerCost, ...]
    uncounted: tuple[str, ...] = ()


Inputs = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]


def forward_arguments(inputs: Inputs) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Return the positional and keyword arguments of a forward call.

    Args:
        inputs: One tensor, a tuple or list of positional arguments, or a mapping of keywords.

    Example:
        >>> forward_arguments({"x": 1})
        ((), {'x': 1})
        >>> forward_arguments((1, 2))
        ((1, 2), {})
    """
    if isinstance(inputs, Mapping):
        return (), inputs
    return (tuple(inputs), {}) if isinstance(inputs, (tuple, list)) else ((inputs,), {})


def cost(module: nn.Module, example: Inputs) -> Cost:
    """Count the parameters, non-zeros and MACs of a module; MACs are those of one example.

    Counted are convolutions, matrix products, attention and recurrent layers. Biases, norms,
    activations, and weights that a parametrization computes are not. Of a mask of an attention, no
    product is taken off.

    Args:
        module: Any module. Its training modes are restored afterwards.
        example: Input of the forward: a tensor, a tuple of arguments, or a mapping of keywords.
            However large the batch, MACs are those of one example in it.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 6 * 6, 10))
        >>> total = cost(net, torch.zeros(2, 3, 8, 8))
        >>> total.parameters, total.macs
        (3114, 10656)
        >>> total.layers[0]
        LayerCost(name='0', kind='Conv2d', parameters=224, nonzero=224, macs=7776)
    """
    counter = ProductCounter()
    rows = _count(module, example, counter)
    flops = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    # FlopCounterMode names the root module by its class, and its children "Class.name".
    root = type(module).__name__
    layers = []
    for name, child in module.named_modules():
        key = f"{root}.{name}" if name else root
        if child._parameters or (key in flops and next(child.children(), None) is None):
            macs = round(flops.get(key, 0) / (2 * rows))
            layers.append(LayerCost(name, type(child).__name__, *_own_counts(child), macs))
    parameters = list(module.parameters())
    return Cost(
        parameters=sum(p.numel() for p in parameters),
        nonzero=sum(int(torch.count_nonzero(p)) for p in parameters),
        macs=round(counter.get_total_flops() / (2 * rows)),
        layers=tuple(layers),
        uncounted=tuple(counter.uncounted),
    )


def macs_of(module: nn.Module, example: Inputs) -> tuple[int, tuple[str, ...]]:
    """Count the MACs of a module alone; that takes less time than :func:`cost`.

    Args:
        module: Any module. Its training modes are restored afterwards.
        example: Input of the forward, as for :func:`cost`.

    Returns:
        The MACs of one example, and the names of the operators whose MACs are not known.

    Example:
        >>> import torch
        >>> macs_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), torch.zeros(2, 3, 8, 8))
        (7776, ())
    """
    counter = ProductCounter()
    rows = _count(module, example, counter, counter.in_total())
    return round(counter.get_total_flops() / (2 * rows)), tuple(counter.uncounted)


def _count(
    module: nn.Module,
    example: Inputs,
    counter: ProductCounter,
    counting: AbstractContextManager[object] | None = None,
) -> int:
    """Count the products of a forward; return the number of examples in it."""
    one, rows = one_example(module, example)
    args, kwargs = forward_arguments(one)
    with _ready(module), parametrize.cached():
        _compute_weights(module)
        with counting or counter:
            module(*args, **kwargs)
    return rows


def one_example(module: nn.Module, inputs: Inputs) -> tuple[Inputs, int]:
    """Return the first example of a batch, and how many examples are in what is returned.

    That is one, or as many as the batch has if the forward takes no batch of one. Inputs that no
    batch of another size can be made of are one example.

    Args:
        module: The module.
        inputs: Inputs of its forward.
    """
    rows = batch_size(inputs)
    if rows <= 1:
        return inputs, 1
    if _runs(module, one := _map_batch(inputs, rows, lambda tensor: tensor[:1])):
        return one, 1
    twice = _map_batch(inputs, rows, lambda tensor: torch.cat([tensor, tensor]))
    return inputs, rows if _runs(module, twice) else 1


def batch_size(inputs: Inputs) -> int:
    """Return the length of the first tensor among the inputs of a forward, 1 if there is none."""
    tensors = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.dim()]
    return len(tensors[0]) if tensors else 1


def _map_batch(inputs: Inputs, rows: int, change: Any) -> Inputs:
    """Change each tensor that is as long as the batch."""
    changed: Inputs = tree_map(
        lambda v: change(v) if isinstance(v, Tensor) and v.dim() and len(v) == rows else v, inputs
    )
    return changed


def _runs(module: nn.Module, inputs: Inputs) -> bool:
    args, kwargs = forward_arguments(inputs)
    try:
        with _ready(module):
            module(*args, **kwargs)
    except Exception:  # whatever the module's own code raises
        return False
    return True


@contextmanager
def _ready(module: nn.Module) -> Iterator[None]:
    """Let a module run without effects on it, and in a way that its operations can be counted."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    # FlopCounterMode fails on a view of a trained parameter (a learned token that is expanded) when
    # gradients are off, see https://github.com/pytorch/pytorch/pull/134467
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with evaluating(module), torch.no_grad(), attention_unfused():
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _compute_weights(module: nn.Module) -> None:
    """Compute all weights that have a parametrization: they are constants of a trained network."""
    for child in module.modules():
        computed = child._modules.get("parametrizations")
        if isinstance(computed, nn.ModuleDict):
            for name in computed:
                getattr(child, name)


def _own_counts(module: nn.Module) -> tuple[int, int]:
    """Return the number of elements and of non-zeros of a module's own parameters."""
    own = [p for p in module._parameters.values() if p is not None]
    return sum(p.numel() for p in own), sum(int(torch.count_nonzero(p)) for p in own)


@contextmanager
def attention_unfused() -> Iterator[None]:
    """Disable the fused path of nn.MultiheadAttention, so that each of its layers is seen."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode, and restore the mode of every child afterwards."""
    modes = {child: child.training for child in module.modules()}
    if any(modes.values()):
        module.eval()
    try:
        yield
    finally:
        for child, training in modes.items():
            if child.training is not training:
                child.training = training
