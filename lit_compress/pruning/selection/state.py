"""Pruning state: the original channels of a network, the selected and the removed ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_compress.errors import PlanError
from lit_compress.pruning.channels.graph import ChannelGraph
from lit_compress.pruning.channels.plan import Plan, make_plan, restrict
from lit_compress.pruning.channels.unpruned import UnprunedShapes
from lit_compress.pruning.selection.budget import Budget, Of, count_saved

Channels = frozenset[int]


class PruningState:
    """Which channels of a network are selected for pruning, and which of them are removed.

    A channel is first selected (:meth:`select`); it is then either removed from the module, which
    :meth:`commit` records, or its weights are kept at zero. Selected channels stay selected.

    Args:
        graph: The channels of the unpruned network.
        budget: What the unpruned network costs.
        selected: Numbers of the selected channels.
        removed: Numbers of those that were removed from the module.
        untrained: Names of the weights that are never trained, and so keep their channels; None,
            in older checkpoints, if it is not known.
        submodule: Name of the part whose parameters count; empty, as in older checkpoints, for all
            of the module's.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        budget: Budget,
        selected: Channels = frozenset(),
        removed: Channels = frozenset(),
        untrained: frozenset[str] | None = None,
        submodule: str = "",
    ) -> None:
        self.graph = graph
        self.budget = budget
        self.untrained = untrained
        self.submodule = submodule
        self._selected = selected
        self._removed = removed
        self._current: tuple[Channels, ChannelGraph] | None = None

    @property
    def selected(self) -> Channels:
        """Numbers of the channels that were selected for pruning."""
        return self._selected

    @property
    def removed(self) -> Channels:
        """Numbers of the selected channels that were removed from the module."""
        return self._removed

    @property
    def pending(self) -> Channels:
        """Numbers of the selected channels that the module still has."""
        return self._selected - self._removed

    def select(self, channels: Channels) -> None:
        """Select channels for pruning.

        Args:
            channels: Numbers of all selected channels, the earlier ones included.

        Raises:
            PlanError: If a channel that was removed is not among them, or one is unknown.
        """
        if not self._removed <= channels:
            raise PlanError(
                f"{len(self._removed - channels)} channels were removed from the network, and so "
                "must stay selected"
            )
        if not channels <= frozenset(self.graph.channels):
            raise PlanError("the selection has channels that the network does not have")
        self._selected = channels

    def commit(self) -> None:
        """Record that all selected channels were removed from the module."""
        self._removed = self._selected

    def current_graph(self) -> ChannelGraph:
        """Return the channels of the module as it is now."""
        if self._current is None or self._current[0] != self._removed:
            graph = restrict(self.graph, make_plan(self.graph, self._removed))
            self._current = self._removed, graph
        return self._current[1]

    def kept_graph(self) -> ChannelGraph:
        """Return the channels that are not selected."""
        return restrict(self.graph, make_plan(self.graph, self._selected))

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        """Check that a module has the shapes that the removed channels leave.

        Args:
            tensors: Its parameters and buffers by name.

        Raises:
            PlanError: If one has another shape, or is missing, or there is no such submodule.
        """
        part = f"{self.submodule}." if self.submodule else ""
        if not any(name.startswith(part) for name in tensors):
            raise PlanError(
                f"the record of pruned channels is of the part {self.submodule[:80]!r}, and there "
                "is none: the checkpoint is damaged, or of another network"
            )
        for name, shape in self.current_graph().shapes.items():
            here = tuple(tensors[name].shape) if name in tensors else None
            if here != shape:
                raise PlanError(
                    f"the record of pruned channels says that {name} has shape {shape}, and it has "
                    f"{here or 'none: it is missing'}: the checkpoint is damaged, or of another "
                    "network"
                )

    def plan(self, channels: Channels) -> Plan:
        """Return the plan that removes channels from the module as it is now.

        Args:
            channels: Numbers of the channels; those that were removed already are passed over.
        """
        return make_plan(self.current_graph(), channels - self._removed)

    def masks(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return boolean masks, False where a parameter belongs to a pending channel.

        Args:
            parameters: The module's parameters by name.
        """
        masks: dict[str, Tensor] = {}
        for cut in self.plan(self._selected).cuts:
            if cut.tensor in parameters:
                whole = torch.ones(parameters[cut.tensor].shape, dtype=torch.bool)
                mask = masks.setdefault(cut.tensor, whole)
                dropped = np.setdiff1d(np.arange(cut.size), cut.keep)
                mask.index_fill_(cut.dim, torch.from_numpy(dropped), False)
        return masks

    def total(self, of: Of) -> int:
        """Return the prunable filters, the parameters, or the MACs of an example."""
        totals = {"filters": self.budget.filters, "parameters": self.budget.parameters}
        return totals.get(of, self.budget.macs)

    def saved(self, of: Of, parameters: frozenset[str], channels: Channels | None = None) -> int:
        """Return how many filters, parameters or MACs channels take with them.

        Args:
            of: What to count.
            parameters: Names of the tensors that count as parameters.
            channels: Numbers of the channels. Default: the selected ones.
        """
        chosen = self._selected if channels is None else channels
        return count_saved(self.graph, chosen, of, parameters)

    def unpruned_shapes(self) -> UnprunedShapes:
        """Return the shapes of the unpruned network, which are stored next to its weights."""
        return UnprunedShapes.of(self.graph, self._removed)

    def to_dict(self) -> dict[str, Any]:
        """Return the state as lists, numbers, text and tensors, for a checkpoint."""
        # The keys are those of the first release, whose checkpoints still load.
        return {
            "graph": self.graph.to_dict(),
            "budget": [self.budget.parameters, self.budget.macs, self.budget.filters],
            "gone": torch.tensor(sorted(self._selected), dtype=torch.int32),
            "removed": torch.tensor(sorted(self._removed), dtype=torch.int32),
            **({} if self.untrained is None else {"untrained": sorted(self.untrained)}),
            "submodule": self.submodule,
            **({"uncounted": list(self.budget.uncounted)} if self.budget.uncounted else {}),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> PruningState:
        """Return the state that :meth:`to_dict` wrote.

        Raises:
            PlanError: If the content is damaged.
        """
        try:
            graph = ChannelGraph.from_dict(content["graph"])
            parameters, macs, filters = (int(number) for number in content["budget"])
            selected, removed = (_numbers(content[key]) for key in ("gone", "removed"))
            names, submodule = content.get("untrained"), str(content.get("submodule", ""))
            uncounted = tuple(map(str, content.get("uncounted", ())))
            untrained = None if names is None else frozenset(map(str, names))
            if graph.channel_count > sum(map(len, graph.channel_of.values())):
                # Arrays as long as the highest number are made: a damaged one takes the memory.
                raise ValueError("there are more channels than indices of tensors")
        except Exception as error:  # of whatever kind: the content may be anything
            if isinstance(error, PlanError):
                raise
            raise PlanError(
                f"the checkpoint's record of pruned channels is damaged "
                f"({type(error).__name__}: {error})"
            ) from error
        if not selected <= frozenset(graph.channels) or not removed <= selected:
            raise PlanError(
                "the checkpoint's record of pruned channels is damaged: unknown channels"
            )
        budget = Budget(parameters, macs, filters, uncounted)
        return cls(graph, budget, selected, removed, untrained, submodule)


def pruning_states_of(checkpoint: Mapping[str, Any]) -> list[PruningState]:
    """Return the states that pruning callbacks saved in a checkpoint.

    Args:
        checkpoint: The whole content of a Lightning checkpoint.

    Raises:
        PlanError: If one is damaged.
    """
    states = checkpoint.get("callbacks")
    return [
        PruningState.from_dict(state["ledger"])
        for state in (states.values() if isinstance(states, dict) else ())
        if isinstance(state, dict) and state.get("ledger") is not None
    ]


def pruning_state_of(checkpoint: Mapping[str, Any]) -> PruningState | None:
    """Return the first of the states that pruning callbacks saved, None if there is none."""
    return next(iter(pruning_states_of(checkpoint)), None)


def _numbers(stored: Tensor) -> Channels:
    if stored.dim() != 1 or stored.is_floating_point() or stored.dtype == torch.bool:
        raise ValueError("channels must be whole numbers in one dimension")
    return frozenset(stored.tolist())
