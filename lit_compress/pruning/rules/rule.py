"""Rules: what single layers lose, and by which measure, in place of a common share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

from torch import nn
from torch.nn.parameter import UninitializedParameter

from lit_compress.errors import RuleError
from lit_compress.pruning.importance import ImportanceName
from lit_compress.pruning.layers import (
    layers_by_weight,
    matches,
    no_match,
    plain_weights,
    prunable_weights,
)

Granularity = Literal["element", "filter", "neuron"]
ElementImportance = Literal["abs", "l1", "l2", "random"]

#: The rule set of the paper's original code, whose ratio is the callback's target.
DEFAULT = "default"


@dataclass(frozen=True)
class Rule:
    """What the layers of a pattern lose.

    Attributes:
        pattern: Glob of layer or weight names, or ``regex:`` and a regular expression of a whole
            name.
        ratio: Share removed in the end, in [0, 1]; None leaves the layers alone.
        place: File and line, for messages.
        granularity: ``element`` sets single weights to zero, ``filter`` takes filters of
            convolutions, ``neuron`` outputs of linear layers. None: filters of convolutions, and
            elements of linear layers.
        importance: How they are ranked. None: magnitude of an element, Euclidean norm of a filter.
        stages: Shares at the first, second, ... event, where they are listed; the last is
            ``ratio``.
        anywhere: The pattern may start inside the name, after any dot: names of a network that is
            wrapped by now.
    """

    pattern: str
    ratio: Fraction | None
    place: str
    granularity: Granularity | None = None
    importance: ImportanceName | ElementImportance | None = None
    stages: tuple[Fraction, ...] = ()
    anywhere: bool = False

    def names(self, layer: str) -> bool:
        """Tell whether the rule names a layer."""
        return matches(self.pattern, layer) or (
            self.anywhere and matches(f"*.{self.pattern}", layer)
        )

    def due(self, progress: Fraction, stage: int) -> Fraction:
        """Return the share due at an event.

        Args:
            progress: How far the schedule is, from 0 to 1.
            stage: Number of the event, from 0.
        """
        if self.stages:
            return self.stages[min(stage, len(self.stages) - 1)]
        return (self.ratio or Fraction(0)) * progress

    def unreached(self, events: int) -> bool:
        """Tell whether stages that prune more are left over after so many events."""
        return any(share > self.stages[events - 1] for share in self.stages[events:])

    def kind(self, weight_dims: int) -> Granularity:
        """Return the granularity for a weight of so many dimensions."""
        return self.granularity or ("filter" if weight_dims > 2 else "element")


def first_match(rules: Sequence[Rule], layers: Iterable[str]) -> Rule | None:
    """Return the first rule that names one of some layers."""
    names = list(layers)
    return next((r for r in rules if any(r.names(name) for name in names)), None)


def check_rules(rules: Sequence[Rule], layers: Iterable[str]) -> None:
    """Make sure that each rule names a layer.

    Raises:
        RuleError: If one does not.
    """
    names = list(layers)
    for rule in rules:
        if not any(rule.names(name) for name in names):
            raise RuleError(no_match(rule.pattern, names, rule.place))


def default_rules(module: nn.Module, ratio: Fraction) -> tuple[Rule, ...]:
    """Return the rules that the paper's original code makes for a network.

    Filters of convolutions by their Euclidean norm, elements of linear layers by their magnitude,
    the same ratio everywhere; one rule a weight.

    Args:
        module: The network.
        ratio: Share that each layer loses.
    """
    return tuple(
        Rule(name, ratio, "the default rule of convolutions", "filter", "l2")
        if weight.dim() > 2
        else Rule(name, ratio, "the default rule of linear layers", "element", "abs")
        for name, weight in plain_weights(module).items()
    )


def assign(module: nn.Module, rules: Sequence[Rule]) -> dict[str, Rule]:
    """Return, by name, the weights that lose something, with the rule that says so.

    The first rule that names a weight counts; a weight that none names is left alone.

    Args:
        module: The network.
        rules: In order.

    Raises:
        RuleError: If a pattern matches nothing, or a rule's granularity is not one of the weights
            that it rules.
    """
    holders = layers_by_weight(module)
    written = [rule for rule in rules if not _names_a_norm(module, rule)]
    check_rules(written, [layer for layers in holders.values() for layer in layers])
    ruled: dict[str, Rule] = {}
    for weight, layers in holders.items():
        rule = first_match(rules, layers)
        if rule is not None and rule.ratio is not None:
            ruled[weight] = rule
    # Only what is pruned must have a plain weight.
    weights = prunable_weights(module, include=list(ruled)) if ruled else {}
    for name, parameter in weights.items():
        _check_granularity(name, parameter.dim(), ruled[name])
        _check_importance(name, parameter.dim(), ruled[name])
    return {name: ruled[name] for name in weights}


def overruled(module: nn.Module, rules: Sequence[Rule]) -> list[str]:
    """Return a line for each weight that more than one rule names: which counts, over which."""
    lines = []
    for weight, layers in layers_by_weight(module).items():
        found = [rule for rule in rules if any(rule.names(layer) for layer in layers)]
        if len(found) > 1:
            others = ", ".join(rule.place for rule in found[1:])
            lines.append(f"{weight}: {found[0].place} over {others}")
    return lines


def _names_a_norm(module: nn.Module, rule: Rule) -> bool:
    """Tell whether a line of the original code is one of a norm: it writes them, and skips them."""
    return rule.anywhere and any(
        rule.names(name)
        for name, parameter in module.named_parameters()
        if not isinstance(parameter, UninitializedParameter) and parameter.dim() < 2
    )


def _check_granularity(name: str, dims: int, rule: Rule) -> None:
    if rule.granularity == "filter" and dims <= 2:
        raise RuleError(
            f"{rule.place}: {name} is the weight of a linear layer ({dims} dimensions) and has no "
            "filters: use granularity element or neuron, or put another rule for it before this one"
        )
    if rule.granularity == "neuron" and dims > 2:
        raise RuleError(
            f"{rule.place}: {name} is the weight of a convolution ({dims} dimensions) and has no "
            "neurons: use granularity filter or element, or put another rule for it before this one"
        )


def _check_importance(name: str, dims: int, rule: Rule) -> None:
    element = rule.kind(dims) == "element"
    choices = get_args(ElementImportance if element else ImportanceName)
    if rule.importance is not None and rule.importance not in choices:
        raise RuleError(
            f"{rule.place}: importance {rule.importance!r} does not rank the {rule.kind(dims)}s of "
            f"{name}: use one of {', '.join(choices)}"
        )
