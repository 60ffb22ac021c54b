"""What rules take from a network, weight by weight, before anything is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from torch import nn

from lit_compress.pruning.channels.plan import Plan
from lit_compress.pruning.layers import plain_weights
from lit_compress.pruning.masks import pruned_count
from lit_compress.pruning.rules.masks import filter_dims
from lit_compress.pruning.rules.rule import Rule
from lit_compress.pruning.selection.preview import PruningPreview


@dataclass(frozen=True)
class WeightPreview:
    """What a weight loses.

    Attributes:
        name: Its name.
        rule: The rule that names it, None if none does.
        granularity: What it loses.
        size: Elements it has.
        left: Elements that are neither removed nor zero in the end.
    """

    name: str
    rule: Rule | None
    granularity: str
    size: int
    left: int


@dataclass(frozen=True)
class RulePreview:
    """What a network loses by rules; print it as a table.

    Attributes:
        weights: The weights of its conv and linear layers.
        channels: What its layers lose of filters, where filters are removed.
    """

    weights: tuple[WeightPreview, ...]
    channels: PruningPreview | None = None

    @property
    def share(self) -> float:
        """Share of all these weights that is removed or zero in the end."""
        total = sum(weight.size for weight in self.weights)
        return 1 - sum(weight.left for weight in self.weights) / total if total else 0.0

    def __str__(self) -> str:
        width = max([6, *(len(weight.name) for weight in self.weights)])
        lines = [f"{'weight':{width}}      size      left  loses    ratio  rule"]
        for weight in self.weights:
            rule = weight.rule
            ratio = "" if rule is None or rule.ratio is None else f"{float(rule.ratio):g}"
            place = "none names it" if rule is None else rule.place
            row = (
                f"{weight.name:{width}} {weight.size:9,d} {weight.left:9,d}  "
                f"{weight.granularity:8} {ratio:>5}  {place}"
            )
            lines.append(row.rstrip())
        lines.append(f"{self.share:.1%} of these weights go")
        return "\n".join(lines if self.channels is None else [*lines, str(self.channels)])


def rule_preview(
    module: nn.Module, ruled: Mapping[str, Rule], plan: Plan | None, channels: PruningPreview | None
) -> RulePreview:
    """Return what rules take from a network in the end.

    Args:
        module: The network, whole.
        ruled: Its weights that lose something, with their rules.
        plan: What is cut out of it; None where filters are only set to zero.
        channels: What its layers lose of filters.
    """
    cuts = plan.by_tensor() if plan is not None else {}
    dims = filter_dims(module)
    rows = []
    for name, weight in plain_weights(module).items():
        shape = list(weight.shape)
        for dim, cut in cuts.get(name, {}).items():
            shape[dim] = len(cut.keep)
        rule = ruled.get(name)
        kind = "nothing" if rule is None else str(rule.kind(weight.dim()))
        left = prod(shape)
        if rule is not None and rule.ratio is not None:
            if kind == "element":
                left -= pruned_count(left, rule.ratio)
            elif plan is None:
                filters = shape[dims[name]]
                left -= left // filters * pruned_count(filters, rule.ratio)
        rows.append(WeightPreview(name, rule, kind, weight.numel(), left))
    return RulePreview(tuple(rows), channels)
