"""What each layer of a network loses when channels are removed, and why others are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd

from lit_compress.pruning.channels.graph import ChannelGraph, Frozen
from lit_compress.pruning.channels.tracing.modules import named_tensors
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
    channels = _Channels(graph, selected)
    layers = tuple(
        channels.layer(name, layer, weight=weight, shape=shape, excluded=excluded)
        for weight, name, layer, shape in _weights(module, graph)
    )
    return PruningPreview(layers, budget, after, part=state.submodule)


Found = tuple[str, str, nn.Module | None, torch.Size]


def _weights(module: nn.Module, graph: ChannelGraph) -> Iterator[Found]:
    """Yield the name of each weight, the name of its layer, the layer, and the weight's shape.

    The layer is None where it is of another kind: torch's attention, layers of other libraries.
    """
    tensors = named_tensors(module)
    names = {id(tensor): name for name, tensor in tensors.items()}
    makers = dict.fromkeys(
        [name for (name, _), role in graph.roles.items() if role in ("filter", "depthwise")]
        + [frozen.tensor for frozen in graph.frozen]
    )
    owned: dict[str, list[str]] = {}
    for maker in makers:
        owned.setdefault(owner_of(maker), []).append(maker)

    def shape(weight: str) -> torch.Size:
        return tensors[weight].shape if weight in tensors else torch.Size()

    for name, layer in module.named_modules():
        own = owned.get(name, [])
        if isinstance(layer, PRUNABLE):
            plain = layer._parameters.get("weight")
            weight = next(iter(own), "") if plain is None else names[id(plain)]
            yield weight, name, layer, shape(weight)
        else:
            yield from ((maker, layer_name(maker), None, shape(maker)) for maker in own)


class _Channels:
    """The channels of a network, some of which are to be removed.

    Args:
        graph: The channels.
        selected: Numbers of those to remove.
    """

    def __init__(self, graph: ChannelGraph, selected: frozenset[int]) -> None:
        self._graph = graph
        self._gone = np.zeros(graph.channel_count + 1, bool)  # FIXED is the index of the last entry
        self._gone[list(selected)] = True
        self._frozen: dict[str, list[Frozen]] = {}
        for frozen in graph.frozen:
            self._frozen.setdefault(frozen.tensor, []).append(frozen)

    def layer(
        self,
        name: str,
        layer: nn.Module | None,
        *,
        weight: str,
        shape: torch.Size,
        excluded: Mapping[str, str],
    ) -> LayerPreview:
        """Return what a layer loses."""
        graph = self._graph
        dim = next((d for d in (0, 1) if _makes(graph, weight, d)), 0)
        makes = _makes(graph, weight, dim)
        if not makes and graph.roles.get((weight, dim)) == "copy":
            dim, makes = int(isinstance(layer, _ConvTransposeNd) and layer.groups == 1), True
        channels = graph.channel_of.get((weight, dim)) if makes else None
        # The largest cause comes first.
        stopped = sorted(self._frozen.get(weight, ()), key=lambda frozen: -len(frozen.indices))
        total = self._filters(layer, weight, dim)
        # An index of a grouped transposed convolution's weight is a filter in each of its groups.
        lost = 0 if channels is None else int(self._gone[channels].sum()) * total // len(channels)
        reasons = [str(frozen.reason) for frozen in stopped]
        if name in excluded:
            return LayerPreview(name, total, total - lost, total, (excluded[name], *reasons))
        fixed = sum(len(frozen.indices) * total // shape[frozen.dim] for frozen in stopped)
        if channels is None and not stopped and not _read_as_depthwise(graph, weight):
            return LayerPreview(name, total, total, total, (COMPUTED,))
        return LayerPreview(name, total, total - lost, fixed, tuple(dict.fromkeys(reasons)))

    def _filters(self, layer: nn.Module | None, weight: str, dim: int) -> int:
        """Return the number of filters that a weight makes."""
        if layer is not None:
            return int(getattr(layer, "out_channels", getattr(layer, "out_features", 0)))
        if (weight, dim) in self._graph.channel_of:
            return len(self._graph.channel_of[weight, dim])
        return sum(len(frozen.indices) for frozen in self._frozen.get(weight, ()))


def _makes(graph: ChannelGraph, weight: str, dim: int) -> bool:
    return graph.roles.get((weight, dim)) in ("filter", "depthwise")


def _read_as_depthwise(graph: ChannelGraph, weight: str) -> bool:
    return weight in graph.positions
