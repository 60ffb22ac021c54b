"""What would go from a network, layer by layer, and what cannot and why."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from torch import nn

from lit_compress.pruning.channels.graph import ChannelGraph
from lit_compress.pruning.channels.trace import named_tensors
from lit_compress.pruning.layers import PRUNABLE
from lit_compress.pruning.selection.budget import Budget, saved

COMPUTED = "its weight is computed (weight_norm, LoRA ...), or its forward was not called"


@dataclass(frozen=True)
class LayerPreview:
    """What a layer loses.

    Attributes:
        name: Its name.
        filters: Filters it has.
        kept: Filters it keeps.
        fixed: Filters that cannot go.
        reasons: Why not.
    """

    name: str
    filters: int
    kept: int
    fixed: int = 0
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class PruningPreview:
    """What a network loses; print it as a table.

    Attributes:
        layers: Its conv and linear layers.
        before: What it costs.
        after: What it will cost.
    """

    layers: tuple[LayerPreview, ...]
    before: Budget
    after: Budget

    def __str__(self) -> str:
        width = max([5, *(len(layer.name) for layer in self.layers)])
        lines = [f"{'layer':{width}}  filters    kept  cannot go"]
        for layer in self.layers:
            why = f"{layer.fixed}: {'; '.join(layer.reasons)}" if layer.reasons else ""
            row = f"{layer.name:{width}}  {layer.filters:7d} {layer.kept:7d}  {why}"
            lines.append(row.rstrip())
        for word, title in (("parameters", "parameters"), ("macs", "MACs of the example inputs")):
            old, new = getattr(self.before, word), getattr(self.after, word)
            selected = f" ({1 - new / old:.1%} go)" if old else ""
            lines.append(f"{title}: {old:,} to {new:,}{selected}")
        return "\n".join(lines)


def preview(
    module: nn.Module,
    graph: ChannelGraph,
    selected: frozenset[int],
    budget: Budget,
    excluded: dict[str, str],
) -> PruningPreview:
    """Return what a network loses with channel classes.

    Args:
        module: The network, whole.
        graph: Its channels.
        selected: Channels to remove.
        budget: What it costs.
        excluded: Layers that are left alone though channels could go, and why.
    """
    parameters = frozenset(name for name, _ in module.named_parameters())
    after = Budget(
        budget.parameters - saved(graph, selected, "parameters", parameters),
        budget.macs - saved(graph, selected, "macs", parameters),
        budget.filters - saved(graph, selected, "filters", parameters),
    )
    names = {id(tensor): name for name, tensor in named_tensors(module).items()}
    layers = tuple(
        _layer(graph, name, layer, names.get(id(layer.weight), ""), selected, excluded)
        for name, layer in module.named_modules()
        if isinstance(layer, PRUNABLE)
    )
    return PruningPreview(layers, budget, after)


def _layer(
    graph: ChannelGraph,
    name: str,
    layer: nn.Module,
    weight: str,
    selected: Collection[int],
    excluded: dict[str, str],
) -> LayerPreview:
    dim = next((d for d in (0, 1) if _makes(graph, weight, d)), 0)
    channels = graph.channel_of.get((weight, dim)) if _makes(graph, weight, dim) else None
    stopped = [frozen for frozen in graph.frozen if frozen.tensor == weight]
    total = int(getattr(layer, "out_channels", getattr(layer, "out_features", 0)))
    # An index of a grouped transposed convolution's weight is a filter in each of its groups.
    lost = (
        0
        if channels is None
        else int(np.isin(channels, list(selected)).sum()) * total // len(channels)
    )
    reasons = [str(frozen.reason) for frozen in stopped]
    if name in excluded:
        return LayerPreview(name, total, total - lost, total, (excluded[name], *reasons))
    shape = layer.get_parameter("weight").shape if stopped else ()
    fixed = sum(len(frozen.indices) * total // shape[frozen.dim] for frozen in stopped)
    if channels is None and not stopped and not _read_as_depthwise(graph, weight):
        return LayerPreview(name, total, total, total, (COMPUTED,))
    return LayerPreview(name, total, total - lost, fixed, tuple(dict.fromkeys(reasons)))


def _makes(graph: ChannelGraph, weight: str, dim: int) -> bool:
    return graph.roles.get((weight, dim)) in ("filter", "depthwise")


def _read_as_depthwise(graph: ChannelGraph, weight: str) -> bool:
    return weight in graph.positions
