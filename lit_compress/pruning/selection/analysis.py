"""The pruning state of an unpruned network, and the scores of its channels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from lit_compress.measure.cost import Inputs
from lit_compress.pruning.channels.analysis import Norm, analyse_and_count
from lit_compress.pruning.channels.checks import check_module
from lit_compress.pruning.channels.graph import ChannelGraph
from lit_compress.pruning.channels.plan import Cut
from lit_compress.pruning.channels.surgery import cut_tensor
from lit_compress.pruning.channels.tracing.modules import named_tensors
from lit_compress.pruning.importance import (
    L2,
    Importance,
    layer_scores,
    refuse_nan,
    scores_by_channel,
)
from lit_compress.pruning.selection.budget import Budget
from lit_compress.pruning.selection.state import PruningState


def analyse_network(
    module: nn.Module,
    inputs: Inputs,
    submodule: str,
    groups: Callable[[ChannelGraph], Sequence[int]],
    untrained: Collection[str],
    followers: Mapping[str, str] | None = None,
    norm: Norm = "exact",
) -> PruningState:
    """Analyse an unpruned network and count its costs; the network is not changed.

    Args:
        module: The network.
        inputs: Example inputs of its forward.
        submodule: Name of the part of the module whose forward takes them.
        groups: Returns the indices of the groups that may lose channels.
        untrained: Names of the weights that are never trained.
        followers: By name, parts that follow others.
        norm: Whether norms over all channels keep them all, as for
            :func:`lit_compress.pruning.analyse`.

    Raises:
        PatternError: If a parameter holds NaN.
    """
    check_module(module)
    parameters = dict(module.named_parameters())
    refuse_nan({n: p for n, p in parameters.items() if not isinstance(p, UninitializedParameter)})
    graph, macs, uncounted = analyse_and_count(module, inputs, submodule, followers, norm)
    names = parameter_names(module, submodule)
    count = sum(parameters[name].numel() for name in names)
    filters = count_filters(graph, groups(graph))
    budget = Budget(count, macs, filters, uncounted)
    return PruningState(graph, budget, untrained=frozenset(untrained), submodule=submodule)


def count_filters(graph: ChannelGraph, groups: Sequence[int]) -> int:
    """Return the number of filters in some groups."""
    channels = [number for index in groups for number in graph.groups[index].channels]
    return int(graph.filters()[channels].sum())


def current_scores(
    module: nn.Module,
    state: PruningState,
    importance: Importance,
    given: Mapping[str, Tensor] | None = None,
) -> np.ndarray:
    """Return the scores of the channels that are not selected, as if the others were removed.

    Args:
        module: The module, as it is now.
        state: Its pruning state.
        importance: The score.
        given: By weight name, the scores of its filters, from an importance that needs gradients.

    Returns:
        One score a channel number; NaN for a channel without a score.
    """
    kept = state.kept_graph()
    pending = state.plan(state.selected).by_tensor()
    if importance.needs_gradient and given:
        roles = state.graph.roles
        scores = {
            name: score[_kept_indices(roles, pending.get(name, {}), name, len(score))]
            for name, score in given.items()
        }
        return scores_by_channel(kept, scores, importance)
    importance = L2() if importance.needs_gradient else importance
    tensors = named_tensors(module)
    cut = {name: cut_tensor(tensors[name].detach(), dims) for name, dims in pending.items()}
    return scores_by_channel(kept, layer_scores(module, kept, importance, cut), importance)


def parameter_names(module: nn.Module, submodule: str = "") -> frozenset[str]:
    """Return the names of the parameters of a part of a module, each tensor once."""
    part = {id(parameter) for parameter in module.get_submodule(submodule).parameters()}
    return frozenset(name for name, tensor in module.named_parameters() if id(tensor) in part)


def _kept_indices(
    roles: Mapping[tuple[str, int], str], cuts: Mapping[int, Cut], name: str, size: int
) -> list[int]:
    """Return the indices of the scores that stay: those of the dimension that makes channels."""
    for dim, cut in cuts.items():
        if roles[name, dim] in ("filter", "scale"):
            return list(cut.keep)
    return list(range(size))


def left_over(states: Sequence[PruningState], module: nn.Module) -> dict[str, int]:
    """Return the ``parameters`` and ``macs`` that a module has left after pruning.

    There are no ``macs`` if those of an operator are not known.

    Args:
        states: The states of its parts, at least one.
        module: The module. Channels that are selected and not yet removed are still in it, as
            zeros, and do not count.
    """
    names = parameter_names(module)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    for state in states:
        parameters -= state.saved("parameters", names)
        parameters += state.saved("parameters", names, state.removed)
    if any(state.budget.uncounted for state in states):
        return {"parameters": parameters}
    macs = sum(state.total("macs") - state.saved("macs", names) for state in states)
    return {"parameters": parameters, "macs": macs}
