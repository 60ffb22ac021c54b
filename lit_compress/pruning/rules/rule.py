"""Pruning rules: a ratio and an importance for single layers, instead of one common target."""

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
    is_plain,
    layers_by_weight,
    matches,
    no_match,
    plain_weights,
    prunable_weights,
    weight_name,
)

Granularity = Literal["element", "filter", "neuron"]
ElementImportance = Literal["abs", "l1", "l2", "random"]

#: Name of the rules of the paper's original code; their ratio is the callback's target.
DEFAULT = "default"


@dataclass(frozen=True)
class Rule:
    """Rule that prunes the layers whose names match a pattern.

    Attributes:
        pattern: Glob on layer or weight names, or ``regex:`` and a regular expression that matches
            a whole name.
        ratio: Share of each layer to prune in the end, in [0, 1]; None does not prune the layers.
        place: File and line of the rule, for messages.
        granularity: ``element`` prunes single weights, ``filter`` filters of convolutions,
            ``neuron`` outputs of linear layers. None: filters of convolutions, and elements of
            linear layers.
        importance: Score that ranks them. None: the magnitude of an element, the Euclidean norm of
            a filter.
        stages: Ratios at the first, second, ... pruning step; the last one equals ``ratio``.
            Empty: the ratio follows the schedule.
        anywhere: Whether the pattern may also start after any dot of a name, as in rules that were
            written before the network was wrapped in another module.
    """

    pattern: str
    ratio: Fraction | None
    place: str
    granularity: Granularity | None = None
    importance: ImportanceName | ElementImportance | None = None
    stages: tuple[Fraction, ...] = ()
    anywhere: bool = False

    def names(self, layer: str) -> bool:
        """Tell whether the pattern matches a layer's name or its weight's name."""
        return matches(self.pattern, layer) or (
            self.anywhere and matches(f"*.{self.pattern}", layer)
        )

    def due(self, progress: Fraction, stage: int) -> Fraction:
        """Return the ratio that is due at a pruning step.

        Args:
            progress: Share of the target that the schedule has reached, in [0, 1].
            stage: Number of the pruning step, from 0.
        """
        if self.stages:
            return self.stages[min(stage, len(self.stages) - 1)]
        return (self.ratio or Fraction(0)) * progress

    def unreached(self, events: int) -> bool:
        """Tell whether a schedule of ``events`` pruning steps is too short for all stages."""
        return any(share > self.stages[events - 1] for share in self.stages[events:])

    def kind(self, weight_dims: int) -> Granularity:
        """Return the granularity for a weight with ``weight_dims`` dimensions."""
        return self.granularity or ("filter" if weight_dims > 2 else "element")


class RuleIndex:
    """Finds the rules that match a layer, without asking each rule where patterns are plain names.

    A rule file, or the rules of a whole network, may have a line for each layer.

    Args:
        rules: The rules, in order of priority.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self._plain: dict[str, list[int]] = {}
        self._others: list[int] = []
        for number, rule in enumerate(rules):
            if is_plain(rule.pattern) and not rule.anywhere:
                self._plain.setdefault(rule.pattern, []).append(number)
            else:
                self._others.append(number)

    def matching(self, layers: Iterable[str]) -> list[Rule]:
        """Return the rules that match one of the layers, in order."""
        names = list(layers)
        found = {
            number
            for layer in names
            for name in (layer, weight_name(layer))
            for number in self._plain.get(name, ())
        }
        for number in self._others:
            if any(self._rules[number].names(name) for name in names):
                found.add(number)
        return [self._rules[number] for number in sorted(found)]

    def first(self, layers: Iterable[str]) -> Rule | None:
        """Return the first rule that matches one of the layers, or None."""
        return next(iter(self.matching(layers)), None)


def first_match(rules: Sequence[Rule], layers: Iterable[str]) -> Rule | None:
    """Return the first rule that matches one of the layers, or None."""
    return RuleIndex(rules).first(layers)


def check_rules(rules: Sequence[Rule], layers: Iterable[str]) -> None:
    """Check that each rule matches a layer.

    Raises:
        RuleError: If a rule matches none.
    """
    names = list(layers)
    known = {*names, *map(weight_name, names)}
    for rule in rules:
        if rule.pattern in known and is_plain(rule.pattern):
            continue
        if not any(rule.names(name) for name in names):
            raise RuleError(no_match(rule.pattern, names, rule.place))


def default_rules(module: nn.Module, ratio: Fraction) -> tuple[Rule, ...]:
    """Return the default rules of the original code of arXiv 2001.04850, one for each weight.

    They prune filters of convolutions by their Euclidean norm and elements of linear layers by
    their magnitude, with the same ratio for all layers.

    Args:
        module: The network.
        ratio: Share of each layer to prune, in [0, 1].
    """
    return tuple(
        Rule(name, ratio, "the default rule of convolutions", granularity="filter", importance="l2")
        if weight.dim() > 2
        else Rule(
            name,
            ratio,
            "the default rule of linear layers",
            granularity="element",
            importance="abs",
        )
        for name, weight in plain_weights(module).items()
    )


def assign(module: nn.Module, rules: Sequence[Rule]) -> dict[str, Rule]:
    """Return the rule of each weight to prune, by the weight's name.

    The first rule that matches a weight counts. Weights without a rule are not pruned.

    Args:
        module: The network.
        rules: The rules, in order of priority.

    Raises:
        RuleError: If a pattern matches no layer, or a rule's granularity or importance does not
            suit its weight.
        PatternError: If a weight to prune is lazy or parametrised.
    """
    layers_of = layers_by_weight(module)
    written = [rule for rule in rules if not _names_a_norm(module, rule)]
    check_rules(written, [layer for layers in layers_of.values() for layer in layers])
    ruled: dict[str, Rule] = {}
    index = RuleIndex(rules)
    for weight, layers in layers_of.items():
        rule = index.first(layers)
        if rule is not None and rule.ratio is not None:
            ruled[weight] = rule
    # Only layers that are pruned must have a plain weight.
    weights = prunable_weights(module, include=list(ruled)) if ruled else {}
    for name, parameter in weights.items():
        _check_granularity(name, parameter.dim(), ruled[name])
        _check_importance(name, parameter.dim(), ruled[name])
    return {name: ruled[name] for name in weights}


def overruled(module: nn.Module, rules: Sequence[Rule]) -> list[str]:
    """Return a line of text for each weight that several rules match: which rule counts."""
    lines = []
    index = RuleIndex(rules)
    for weight, layers in layers_by_weight(module).items():
        matching = index.matching(layers)
        if len(matching) > 1:
            others = ", ".join(rule.place for rule in matching[1:])
            lines.append(f"{weight}: {matching[0].place} over {others}")
    return lines


def _names_a_norm(module: nn.Module, rule: Rule) -> bool:
    """Tell whether a line of the original code names a norm; that code writes and ignores these."""
    return rule.anywhere and any(
        rule.names(name)
        for name, parameter in module.named_parameters()
        if not isinstance(parameter, UninitializedParameter) and parameter.dim() < 2
    )


def _check_granularity(name: str, dims: int, rule: Rule) -> None:
    if rule.granularity == "filter" and dims <= 2:
        raise RuleError(
            f"{rule.place}: {name} is the weight of a linear layer ({dims} dimensions) and has no "
            "filters: use granularity element or neuron, or put another rule for it first"
        )
    if rule.granularity == "neuron" and dims > 2:
        raise RuleError(
            f"{rule.place}: {name} is the weight of a convolution ({dims} dimensions) and has no "
            "neurons: use granularity filter or element, or put another rule for it first"
        )


def _check_importance(name: str, dims: int, rule: Rule) -> None:
    element = rule.kind(dims) == "element"
    choices = get_args(ElementImportance if element else ImportanceName)
    if rule.importance is not None and rule.importance not in choices:
        raise RuleError(
            f"{rule.place}: importance {rule.importance!r} does not rank the {rule.kind(dims)}s of "
            f"{name}: use one of {', '.join(choices)}"
        )
