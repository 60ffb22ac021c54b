"""Widths that modules keep as attributes: they must follow the shapes of the tensors."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import is_parametrized

from lit_compress.pruning.channels.tracing.counts import count_at
from lit_compress.pruning.channels.tracing.modules import module_at, named_modules
from lit_compress.pruning.heads import HeadwiseAttention, headwise

#: A layer, the name of one of its attributes, and the value of it.
Attribute = tuple[nn.Module, str, Any]
#: Names of the parameters from which torch's older functions compute a weight.
_COMPUTED = ("weight_v", "weight_orig")


def _weight(layer: nn.Module) -> Tensor | None:
    """Return a tensor of the shape of a layer's weight."""
    if is_parametrized(layer, "weight"):
        with torch.no_grad():
            computed = layer.weight
        return computed if isinstance(computed, Tensor) else None
    own = layer._parameters
    return next((own[name] for name in ("weight", *_COMPUTED) if own.get(name) is not None), None)


@singledispatch
def layer_widths(layer: nn.Module) -> dict[str, Any]:
    """Return the attributes of a layer that state its width, from the shapes of its tensors."""
    weight = layer._parameters.get("weight")
    # Hugging Face's Conv1D is a linear layer of a transposed weight, with names of its own.
    if type(layer).__name__ != "Conv1D" or weight is None or weight.dim() != 2:
        return {}
    named = {"nx": weight.shape[0], "nf": weight.shape[1]}
    return {name: size for name, size in named.items() if isinstance(vars(layer).get(name), int)}


@layer_widths.register
def _(layer: _ConvNd) -> dict[str, Any]:
    weight = _weight(layer)
    if weight is None:
        return {}
    transposed = isinstance(layer, _ConvTransposeNd)
    groups = layer.groups
    # One input for each group: the layer is depthwise, and loses a group with each channel.
    if groups > 1 and not transposed and weight.shape[1] == 1:
        groups = weight.shape[0] * groups // layer.out_channels
    elif groups > 1 and transposed and layer.in_channels == groups:
        groups = weight.shape[0]
    first, second = weight.shape[0], weight.shape[1] * groups
    inputs, outputs = (first, second) if transposed else (second, first)
    return {"in_channels": inputs, "out_channels": outputs, "groups": groups}


@layer_widths.register
def _(layer: nn.Linear) -> dict[str, Any]:
    weight = _weight(layer)
    if weight is None:
        return {}
    return {"out_features": weight.shape[0], "in_features": weight.shape[1]}


@layer_widths.register
def _(layer: _NormBase) -> dict[str, Any]:
    for tensor in (layer.weight, layer.running_mean):
        if tensor is not None:
            return {"num_features": tensor.shape[0]}
    return {}


@layer_widths.register
def _(layer: nn.GroupNorm) -> dict[str, Any]:
    return {} if layer.weight is None else _group_norm(layer, layer.weight.shape[0])


def _group_norm(layer: nn.GroupNorm, channels: int) -> dict[str, Any]:
    each = layer.num_channels // layer.num_groups
    return {"num_channels": channels, "num_groups": max(1, channels // each)}


@layer_widths.register(nn.LayerNorm)
@layer_widths.register(nn.RMSNorm)
def _(layer: nn.LayerNorm | nn.RMSNorm) -> dict[str, Any]:
    return {} if layer.weight is None else {"normalized_shape": tuple(layer.weight.shape)}


@layer_widths.register
def _(layer: nn.Embedding) -> dict[str, Any]:
    return {"embedding_dim": layer.weight.shape[1]}


@layer_widths.register
def _(layer: nn.PReLU) -> dict[str, Any]:
    return {"num_parameters": layer.weight.shape[0]}


@layer_widths.register
def _(layer: nn.MultiheadAttention) -> dict[str, Any]:
    return headwise(layer)


def named_width(module: nn.Module, name: str) -> int | None:
    """Return a width that no tensor tells.

    Args:
        module: The module.
        name: Name of a norm layer without parameters and buffers, or of a whole number among the
            attributes of a module.

    Returns:
        The width; None if there is no such layer or attribute.
    """
    layer = module_at(module, name)
    if isinstance(layer, nn.GroupNorm):
        return layer.num_channels
    if isinstance(layer, _NormBase):
        return layer.num_features
    if isinstance(layer, (nn.LayerNorm, nn.RMSNorm)):
        return layer.normalized_shape[0]
    found = count_at(module, name)
    return None if found is None else found[2]


def set_widths(
    module: nn.Module, changed: Container[int], widths: Mapping[str, int] | None = None
) -> list[Attribute]:
    """Set the attributes that state the width of layers, from the shapes of their tensors.

    Args:
        module: The module.
        changed: ``id`` of the tensors that changed; other layers keep their attributes.
        widths: By name, the widths that no tensor tells, see :func:`named_width`. Default: none.

    Returns:
        The former values, in the order in which they are to be set again.
    """
    before: list[Attribute] = []
    for layer, attributes in list(_new_widths(module, changed, widths or {})):
        for attribute, value in attributes.items():
            old = getattr(layer, attribute)
            if old != value:
                before.append((layer, attribute, old))
                setattr(layer, attribute, value)
    return before[::-1]


def _new_widths(
    module: nn.Module, changed: Container[int], widths: Mapping[str, int]
) -> Iterator[tuple[nn.Module, dict[str, Any]]]:
    """Yield each layer whose width changed, with its new attributes."""
    for name, layer in named_modules(module):
        if name in widths:
            yield layer, _norm_width(layer, widths[name])
        elif any(id(tensor) in changed for tensor in _tensors(layer)):
            yield layer, layer_widths(layer)
        elif isinstance(layer, nn.TransformerEncoder) and _lost_heads(layer):
            yield layer, {"use_nested_tensor": False}  # its fused path takes all heads
    for owner, width in widths.items():
        found = count_at(module, owner)
        if found is not None:
            yield found[0], {found[1]: width}


def _lost_heads(encoder: nn.TransformerEncoder) -> bool:
    """Tell whether an attention of an encoder has fewer heads than it was built with."""
    attentions = [part for part in encoder.modules() if isinstance(part, nn.MultiheadAttention)]
    return any(headwise(part).get("__class__") is HeadwiseAttention for part in attentions)


def _norm_width(layer: nn.Module, width: int) -> dict[str, Any]:
    if isinstance(layer, nn.GroupNorm):
        return _group_norm(layer, width)
    if isinstance(layer, (nn.LayerNorm, nn.RMSNorm)):
        return {"normalized_shape": (width,)}
    return {"num_features": width}


def _tensors(layer: nn.Module) -> list[Tensor | None]:
    """Return the tensors of a layer, with those that its weight is computed from."""
    own = [*layer._parameters.values(), *layer._buffers.values()]
    if not layer._modules:
        return own
    behind = layer._modules.get("parametrizations")
    if behind is not None:
        own += [*behind.parameters(), *behind.buffers()]
    if isinstance(layer, nn.MultiheadAttention):
        own += [*layer.out_proj.parameters()]
    return own
