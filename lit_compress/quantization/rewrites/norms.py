"""Fold batch norms into the layers before them, where that changes nothing else.

torchao folds a batch norm into the convolution or linear layer before it, even if the output or the
weight of that layer is used elsewhere, which then gives wrong results
(https://github.com/pytorch/ao/pull/2795 is the case of a shared weight; a shared convolution
without a bias ends with a bias of zero). Of a transposed convolution it takes the second axis of
the weight for the channels, which with groups are fewer. So norms are folded here, and a copy in
front of the others prevents torchao from folding them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from lit_compress.quantization.operations import (
    NORMS,
    WEIGHTED,
    aten,
    is_parameter,
    module_path,
)

TRANSPOSED = {aten.conv_transpose1d.default, aten.conv_transpose2d.input}
#: Position of a transposed convolution's number of groups among its arguments.
GROUPS = 6


@dataclass(frozen=True)
class FoldedNorm:
    """A norm that was folded into the layer before it, by the names of their tensors.

    Attributes:
        weight: Name of the layer's weight.
        bias: Name of the layer's bias; None if it had none.
        new_bias: Name of the bias after the folding.
        scale: Name of the norm's weight; None if it has none.
        shift: Name of the norm's bias; None if it has none.
        mean: Name of the running mean.
        variance: Name of the running variance.
        epsilon: What the norm adds to the variance.
        momentum: How fast the running statistics follow those of a batch.
        axis: Axis of the layer's weight that holds the output channels.
        path: Name of the module that calls the norm.
    """

    weight: str
    bias: str | None
    new_bias: str
    scale: str | None
    shift: str | None
    mean: str
    variance: str
    epsilon: float
    momentum: float
    axis: int
    path: str = ""

    def tensors(self, tensor: Callable[[str], Tensor]) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the layer and its norm together; gradients pass through.

        Args:
            tensor: Returns a tensor of the network by its name.
        """
        weight, mean = tensor(self.weight), tensor(self.mean)
        factor = torch.rsqrt(tensor(self.variance) + self.epsilon)
        bias = -mean if self.bias is None else tensor(self.bias) - mean
        if self.scale is not None:
            factor = factor * tensor(self.scale)
        shape = [1] * weight.dim()
        shape[self.axis] = -1
        bias = bias * factor
        if self.shift is not None:
            bias = bias + tensor(self.shift)
        return weight * factor.view(shape), bias


def block_norm_folding(program: ExportedProgram) -> int:
    """Insert a copy between a norm and its layer where the norm must not be folded.

    torchao does not fold a norm behind a copy.

    Args:
        program: The captured graph; changed in place.

    Returns:
        The number of inserted copies.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.conv, self.norm = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)
        ...     def forward(self, x):
        ...         x = self.conv(x)
        ...         return x + self.norm(x)
        >>> program = torch.export.export(Net().eval(), (torch.zeros(1, 1, 4, 4),))
        >>> block_norm_folding(program)
        1
    """
    graph = program.graph_module.graph
    norms = [n for n in graph.nodes if n.target in NORMS and not _may_be_folded(n)]
    for norm in norms:
        with graph.inserting_before(norm):
            copy = graph.call_function(aten.clone.default, (norm.args[0],))
        copy.meta = dict(norm.args[0].meta)
        norm.replace_input_with(norm.args[0], copy)
    program.graph_module.recompile()
    return len(norms)


def fold_norms(graph: GraphModule) -> list[FoldedNorm]:
    """Fold the norms that follow a layer with a weight, copies of :func:`block_norm_folding` apart.

    Args:
        graph: The captured graph, with its tensors as attributes; changed in place. Tensors that it
            shares with another are replaced, not changed.

    Returns:
        What was folded: one entry for each weight.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).eval()
        >>> graph = torch.export.export(net, (torch.zeros(1, 3),)).module(check_guards=False)
        >>> [norm.weight for norm in fold_norms(graph)]
        ['0.weight']
        >>> [node.name for node in graph.graph.nodes if node.op == "call_function"]
        ['linear']
    """
    folded: dict[str, FoldedNorm] = {}
    for norm in [node for node in graph.graph.nodes if node.target in NORMS]:
        layer: Any = norm.args[0]
        if layer.target not in WEIGHTED or not is_parameter(layer.args[1]):
            continue
        weight = str(layer.args[1].target)
        if weight not in folded:  # a layer that is called again has the same norm, see above
            folded[weight] = _fold(graph, layer, norm)
        with graph.graph.inserting_before(layer):
            bias = graph.graph.get_attr(folded[weight].new_bias)
        if "val" in layer.meta:
            mode = layer.meta["val"].fake_mode
            tensor = attrgetter(folded[weight].new_bias)(graph)
            bias.meta["val"] = mode.from_tensor(tensor, static_shapes=True)
        layer.args = (*layer.args[:2], bias, *layer.args[3:])
        norm.replace_all_uses_with(layer)
        graph.graph.erase_node(norm)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return list(folded.values())


def _fold(graph: GraphModule, layer: Node, norm: Node) -> FoldedNorm:
    """Give a layer the weight and the bias of it and a norm."""

    def name(node: Any) -> Any:
        return None if node is None else str(node.target)

    weight, bias = map(name, [*layer.args[1:3], None][:2])
    scale, shift, mean, variance = map(name, norm.args[1:5])
    new_bias = f"{weight}_bias" if bias is None else bias
    momentum, epsilon = [float(value) for value in norm.args[6:8]]  # type: ignore[arg-type]
    axis = WEIGHTED[layer.target]
    path = module_path(norm)
    folded = FoldedNorm(
        weight, bias, new_bias, scale, shift, mean, variance, epsilon, momentum, axis, path
    )
    values = folded.tensors(lambda tensor: attrgetter(tensor)(graph).detach())
    for target, value in zip((weight, new_bias), values, strict=True):
        _set_parameter(graph, target, value)
    return folded


def _set_parameter(graph: GraphModule, name: str, value: Tensor) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(graph.get_submodule(owner), attribute, nn.Parameter(value.detach(), False))


def _may_be_folded(norm: Node) -> bool:
    """Tell whether a norm follows no layer with a weight, or a layer that is used only with it.

    Grouped transposed convolutions are not folded, nor layers whose channels are not those of the
    norm (a linear layer's are in the last axis).
    """
    layer = norm.args[0]
    if not isinstance(layer, Node) or layer.target not in WEIGHTED:
        return True
    if layer.target == aten.matmul.default:
        return False
    if layer.target == aten.linear.default and layer.meta["val"].dim() > 2:
        return False
    if any(isinstance(source, Node) and source.op != "placeholder" for source in layer.args[1:3]):
        return False  # it is computed
    if layer.target in TRANSPOSED and len(layer.args) > GROUPS and layer.args[GROUPS] != 1:
        return False
    shared = [
        user for source in layer.args[1:3] if isinstance(source, Node) for user in source.users
    ]
    return all(
        user.args[1:3] == layer.args[1:3] and _is_followed_by(user, norm)
        for user in (layer, *shared)
    )


def _is_followed_by(layer: Node, norm: Node) -> bool:
    """Tell whether the only user of a layer is a norm that does the same as ``norm``."""
    users = list(layer.users)
    return len(users) == 1 and users[0].target in NORMS and users[0].args[1:] == norm.args[1:]
