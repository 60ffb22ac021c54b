"""What each weight of a network loses by the rules."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod

from torch import nn

from lit_compress.pruning.channels.plan import Plan
from lit_compress.pruning.layers import plain_weights
from lit_compress.pruning.masks import pruned_count
from lit_compress.pruning.rules.masks import filter_dims
from lit_compress.pruning.rules.rule import Rule
from lit_compress.pruning.selection.preview import WeightPreview


def preview_weights(
    module: nn.Module,
    ruled: Mapping[str, Rule],
    plan: Plan | None = None,
    untrained: Collection[str] = (),
) -> tuple[WeightPreview, ...]:
    """Return what each weight of a network loses by the rules, at the end of the schedule.

    Args:
        module: The unpruned network.
        ruled: By name, the weights that lose something, with their rules.
        plan: What is removed; None where filters are only set to zero.
        untrained: Names of the weights that are never trained, and so stay as they are.
    """
    cuts = plan.by_tensor() if plan is not None else {}
    dims = filter_dims(module)
    rows = []
    for name, weight in plain_weights(module).items():
        shape = list(weight.shape)
        for dim, cut in cuts.get(name, {}).items():
            shape[dim] = len(cut.keep)
        rule = None if name in untrained else ruled.get(name)
        kind = "nothing" if rule is None else str(rule.kind(weight.dim()))
        left = prod(shape)
        if rule is not None and rule.ratio is not None:
            if kind == "element":
                left -= pruned_count(left, rule.ratio)
            elif plan is None:
                filters = shape[dims[name]]
                left -= left // filters * pruned_count(filters, rule.ratio)
        rows.append(WeightPreview(name, rule, kind, weight.numel(), left))
    return tuple(rows)
