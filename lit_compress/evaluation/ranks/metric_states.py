"""The states of a module's torchmetrics, taken from each process and joined in one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities.data import dim_zero_cat, dim_zero_max, dim_zero_min, dim_zero_sum

#: How torchmetrics joins a state so that the result is that of one process.
EXACT = (dim_zero_sum, dim_zero_max, dim_zero_min)


@dataclass(frozen=True)
class MetricState:
    """The state of a metric of torchmetrics in one process.

    Attributes:
        updates: How often it was updated.
        values: Its states by name, on the CPU.
    """

    updates: int
    values: dict[str, Tensor | list[Tensor]]


def metrics_of(module: nn.Module) -> Iterator[tuple[str, Metric]]:
    """Yield the metrics of a module with their names, each with a state of its own.

    Args:
        module: The module.
    """
    for child in module.modules():
        if isinstance(child, MetricCollection):
            child.values(copy_state=False)  # metrics of one group get the state of their first
    for name, child in module.named_modules():
        if isinstance(child, Metric):
            yield name, child


def why_not_joined(module: nn.Module) -> str | None:
    """Return why the states of a module's metrics cannot be joined exactly; None if they can.

    A mean of states is another number than one process finds, where the processes have unequal
    shares.

    Args:
        module: The module, after its steps.
    """
    for name, metric in metrics_of(module):
        for state, reduce in metric._reductions.items() if metric.update_called else ():
            default = metric._defaults[state]
            if isinstance(default, list):
                exact = reduce in (dim_zero_cat, None)
            else:
                exact = reduce in EXACT and (reduce is not dim_zero_sum or not default.any())
            if not exact:
                how = getattr(reduce, "__name__", reduce)
                return (
                    f"{name} ({type(metric).__name__}) has a state that cannot be joined exactly: "
                    f"{state}, by {how}"
                )
    return None


def take_states(module: nn.Module) -> dict[str, MetricState]:
    """Return the states of a module's metrics that were updated, by name of the metric.

    Args:
        module: The module.
    """
    return {
        name: MetricState(metric.update_count, dict(map(_on_cpu, metric.metric_state.items())))
        for name, metric in metrics_of(module)
        if metric.update_called
    }


def join_states(module: nn.Module, parts: Sequence[dict[str, MetricState]]) -> None:
    """Give the metrics of a module the states of all processes.

    Lists are joined in the order in which one process would have filled them, if each batch added
    as many items.

    Args:
        module: The module of the first process.
        parts: The states of each process, in the order of the processes.
    """
    for name, metric in metrics_of(module):
        found = [part[name] for part in parts if name in part]
        if not found:
            continue
        for state in metric._defaults:
            values = [one.values[state] for one in found]
            setattr(metric, state, _joined(values, metric._reductions[state], metric.device))
        metric._update_count = sum(one.updates for one in found)
        metric._computed = None


def _joined(values: Sequence[Any], reduce: Any, device: torch.device) -> Any:
    if isinstance(values[0], list):
        return [item.to(device) for item in _in_turn(values)]
    return reduce(torch.stack(list(values))).to(device)


def _in_turn(parts: Sequence[list[Tensor]]) -> Iterator[Tensor]:
    """Yield the first item of each list, then the second of each, and so on."""
    for place in range(max(map(len, parts))):
        for part in parts:
            yield from part[place : place + 1]


def _on_cpu(item: tuple[str, Any]) -> tuple[str, Any]:
    name, value = item
    if isinstance(value, list):
        return name, [tensor.detach().cpu() for tensor in value]
    return name, value.detach().cpu()
