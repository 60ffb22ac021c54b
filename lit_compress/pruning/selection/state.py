"""What is known of a network that loses channels: what it was, what is decided, what is gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_compress.errors import PlanError
from lit_compress.pruning.channels.graph import ChannelGraph
from lit_compress.pruning.channels.plan import Plan, make_plan, restrict
from lit_compress.pruning.channels.resize import UnprunedShapes
from lit_compress.pruning.selection.budget import Budget, Of, saved

Channels = frozenset[int]


@dataclass
class PruningState:
    """The channels of a network, and which of them are gone.

    Attributes:
        graph: The channels of the network as it was.
        budget: What it cost.
        gone: Classes that are decided to go.
        removed: Those of them that are cut out of the module; the others are held at zero.
    """

    graph: ChannelGraph
    budget: Budget
    selected: Channels = frozenset()
    removed: Channels = frozenset()
    _left: tuple[Channels, ChannelGraph] | None = field(default=None, repr=False)

    def left(self) -> ChannelGraph:
        """Return the channels of the module as it is now."""
        if self._left is None or self._left[0] != self.removed:
            graph = restrict(self.graph, make_plan(self.graph, self.removed))
            self._left = self.removed, graph
        return self._left[1]

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        """Make sure that a module has lost what is said to be removed.

        Args:
            tensors: Its parameters and buffers by name.

        Raises:
            PlanError: If it has not.
        """
        for name, shape in self.left().shapes.items():
            here = tuple(tensors[name].shape) if name in tensors else None
            if here != shape:
                raise PlanError(
                    f"the record of pruned channels says that {name} is {shape}, and it is "
                    f"{here or 'missing'}: the checkpoint is damaged, or of another network"
                )

    def plan(self, selected: Channels) -> Plan:
        """Return the plan that removes classes from the module as it is now."""
        return make_plan(self.left(), selected - self.removed)

    def kept(self) -> ChannelGraph:
        """Return the channels that are not decided to go."""
        return restrict(self.graph, make_plan(self.graph, self.selected))

    def masks(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return masks, False where a parameter belongs to a class that is to be held at zero."""
        masks: dict[str, Tensor] = {}
        for cut in self.plan(self.selected).cuts:
            if cut.tensor in parameters:
                whole = torch.ones(parameters[cut.tensor].shape, dtype=torch.bool)
                mask = masks.setdefault(cut.tensor, whole)
                dropped = np.setdiff1d(np.arange(cut.size), cut.keep)
                mask.index_fill_(cut.dim, torch.from_numpy(dropped), False)
        return masks

    def total(self, of: Of) -> int:
        """Return what the network had of filters that may go, parameters or MACs."""
        totals = {"filters": self.budget.filters, "parameters": self.budget.parameters}
        return totals.get(of, self.budget.macs)

    def saved(self, of: Of, parameters: frozenset[str], selected: Channels | None = None) -> int:
        """Return how many filters, parameters or MACs go with classes: all that are decided.

        Args:
            of: What to count.
            parameters: Names of the tensors that count as parameters.
            selected: Other channels.
        """
        return saved(self.graph, self.selected if selected is None else selected, of, parameters)

    def original(self) -> UnprunedShapes:
        """Return what the network was, to be kept beside its weights."""
        return UnprunedShapes.of(self.graph, self.removed)

    def to_dict(self) -> dict[str, Any]:
        """Return the ledger as lists, numbers, text and tensors, for a checkpoint."""
        return {
            "graph": self.graph.to_dict(),
            "budget": [self.budget.parameters, self.budget.macs, self.budget.filters],
            "gone": torch.tensor(sorted(self.selected), dtype=torch.int32),
            "removed": torch.tensor(sorted(self.removed), dtype=torch.int32),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> PruningState:
        """Return the ledger that :meth:`to_dict` gave.

        Raises:
            PlanError: If it is not one.
        """
        try:
            graph = ChannelGraph.from_dict(content["graph"])
            parameters, macs, filters = (int(number) for number in content["budget"])
            selected, removed = (_numbers(content[key]) for key in ("gone", "removed"))
            if graph.channel_count > sum(map(len, graph.channel_of.values())):
                raise ValueError("more classes than channels")  # their number takes memory
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, PlanError):
                raise
            raise PlanError(
                f"the checkpoint's record of pruned channels is damaged "
                f"({type(error).__name__}: {error})"
            ) from error
        if not selected <= frozenset(graph.channels) or not removed <= selected:
            raise PlanError(
                "the checkpoint's record of pruned channels is damaged: unknown classes"
            )
        return cls(graph, Budget(parameters, macs, filters), selected, removed)


def pruning_state_of(checkpoint: Mapping[str, Any]) -> PruningState | None:
    """Return the ledger that a filter-pruning callback left in a checkpoint, None if there is none.

    Raises:
        PlanError: If it is damaged.
    """
    states = checkpoint.get("callbacks")
    for state in states.values() if isinstance(states, dict) else ():
        if isinstance(state, dict) and state.get("ledger") is not None:
            return PruningState.from_dict(state["ledger"])
    return None


def _numbers(channels: Tensor) -> Channels:
    if channels.dim() != 1 or channels.is_floating_point():
        raise ValueError("classes must be whole numbers in one dimension")
    return frozenset(channels.tolist())
