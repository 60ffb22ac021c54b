"""What each layer of a network loses when channels are removed, and why others are kept."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import torch
from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd

from lit_compress.pruning.channels.graph import ChannelGraph
from lit_compress.pruning.channels.tracing.trace import named_tensors
from lit_compress.pruning.layers import PRUNABLE, layer_name, owner_of
from lit_compress.pruning.selection.analysis import parameter_names
from lit_compress.pruning.selection.budget import Budget
from lit_compress.pruning.selection.preview import LayerPreview, PruningPreview
from lit_compress.pruning.selection.state import PruningState

COMPUTED = "its weight is computed in a way that cannot be followed, or its forward was not called"


def preview_layers(
    module: nn.Module,
    state: PruningState,
    selected: frozenset[int],
    excluded: Mapping[str, str],
) -> PruningPreview:
    """Return what each layer of a network loses when channels are removed.

    Args:
        module: The unpruned network.
        state: Its pruning state.
        selected: Numbers of the channels to remove.
        excluded: By name, the layers that keep all their channels although some could be removed,
            with the reason.
    """
    graph, budget = state.graph, state.budget
    parameters = parameter_names(module, state.submodule)
    after = Budget(
        budget.parameters - state.saved("parameters", parameters, selected),
        budget.macs - state.saved("macs", parameters, selected),
        budget.filters - state.saved("filters", parameters, selected),
    )
    tensors = named_tensors(module)
    layers = tuple(
        _layer(
            graph,
            name,
            layer,
            weight=weight,
            shape=tensors[weight].shape if weight in tensors else torch.Size(),
            selected=selected,
            excluded=excluded,
        )
        for weight, name, layer in _weights(module, graph)
    )
    return PruningPreview(layers, budget, after, part=state.submodule)


def _weights(module: nn.Module, graph: ChannelGraph) -> Iterator[tuple[str, str, nn.Module | None]]:
    """Yield the name of each weight, the name of its layer, and the layer.

    The layer is None where it is of another kind: torch's attention, layers of other libraries.
    """
    names = {id(tensor): name for name, tensor in named_tensors(module).items()}
    makers = dict.fromkeys(
        [name for (name, _), role in graph.roles.items() if role in ("filter", "depthwise")]
        + [frozen.tensor for frozen in graph.frozen]
    )
    behind = {owner_of(name): name for name in reversed(makers)}
    for name, layer in module.named_modules():
        if isinstance(layer, PRUNABLE):
            plain = layer._parameters.get("weight")
            weight = behind.get(name, "") if plain is None else names[id(plain)]
            yield weight, name, layer
        else:
            own = [maker for maker in makers if owner_of(maker) == name]
            yield from ((maker, layer_name(maker), None) for maker in own)


def _layer(
    graph: ChannelGraph,
    name: str,
    layer: nn.Module | None,
    weight: str,
    shape: torch.Size,
    selected: Collection[int],
    excluded: Mapping[str, str],
) -> LayerPreview:
    dim = next((d for d in (0, 1) if _makes(graph, weight, d)), 0)
    makes = _makes(graph, weight, dim)
    if not makes and graph.roles.get((weight, dim)) == "copy":
        dim, makes = int(isinstance(layer, _ConvTransposeNd) and layer.groups == 1), True
    channels = graph.channel_of.get((weight, dim)) if makes else None
    stopped = [frozen for frozen in graph.frozen if frozen.tensor == weight]
    stopped.sort(key=lambda frozen: -len(frozen.indices))  # the largest cause comes first
    total = _filters(graph, layer, weight, dim)
    # An index of a grouped transposed convolution's weight is a filter in each of its groups.
    lost = (
        0
        if channels is None
        else int(np.isin(channels, list(selected)).sum()) * total // len(channels)
    )
    reasons = [str(frozen.reason) for frozen in stopped]
    if name in excluded:
        return LayerPreview(name, total, total - lost, total, (excluded[name], *reasons))
    fixed = sum(len(frozen.indices) * total // shape[frozen.dim] for frozen in stopped)
    if channels is None and not stopped and not _read_as_depthwise(graph, weight):
        return LayerPreview(name, total, total, total, (COMPUTED,))
    return LayerPreview(name, total, total - lost, fixed, tuple(dict.fromkeys(reasons)))


def _filters(graph: ChannelGraph, layer: nn.Module | None, weight: str, dim: int) -> int:
    """Return the number of filters that a weight makes."""
    if layer is not None:
        return int(getattr(layer, "out_channels", getattr(layer, "out_features", 0)))
    if (weight, dim) in graph.channel_of:
        return len(graph.channel_of[weight, dim])
    return sum(len(frozen.indices) for frozen in graph.frozen if frozen.tensor == weight)


def _makes(graph: ChannelGraph, weight: str, dim: int) -> bool:
    return graph.roles.get((weight, dim)) in ("filter", "depthwise")


def _read_as_depthwise(graph: ChannelGraph, weight: str) -> bool:
    return weight in graph.positions
