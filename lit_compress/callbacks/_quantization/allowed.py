"""How much of a metric int8 may cost, after what pruning has cost."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from lit_compress.artifact import Metric
from lit_compress.callbacks._pruning.base import pruning_callbacks
from lit_compress.callbacks._quantization.settings import Settings


def left_of_budget(trainer: Trainer, settings: Settings, metric: Metric | None) -> float | None:
    """Return how much of the float network's metric the file may lose.

    With ``max_drop`` of a pruning callback too, the sum of both is what the file may lose of the
    dense network: what pruning did not take is left for int8.

    Args:
        trainer: The run.
        settings: The settings of the conversion.
        metric: The metric of the float network.

    Returns:
        The drop that is allowed; None if any is.
    """
    allowed = settings.max_drop
    for pruner in pruning_callbacks(trainer):
        contract = pruner.contract
        known = contract.baseline is not None and contract.monitor == settings.monitor
        if allowed is None or metric is None or not known or contract.max_drop is None:
            continue
        total, lost = contract.max_drop + allowed, contract.lost(metric.value)
        change = f"{lost:.4f} worse" if lost > 0 else f"{-lost:.4f} better"
        rank_zero_info(
            f"{metric.name} of the pruned network is {change} than that of the dense one, and may "
            f"be {total:g} worse with int8: so int8 may cost {total - lost:.4f}"
        )
        return total - lost
    return allowed
