"""Channels by rules: how many of each layer go, by which measure, and what keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lit_compress.errors import RuleError
from lit_compress.pruning.rules.rule import Rule
from lit_compress.pruning.selection.by_rules import RuleSelector, channel_rules
from lit_compress.pruning.selection.selector import PruningStep

X = torch.zeros(2, 1, 6, 6)


class Net(nn.Module):
    """Three convolutions in a row, two of them with a residual between, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.c = nn.Conv2d(8, 10, 3)
        self.d, self.e = nn.Linear(10, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.a(x)).relu()
        x = x + self.b(x)
        x = self.c(x).relu().mean((2, 3))
        return self.e(self.d(x).relu())


def rule(pattern: str, ratio: float | None, place: str = "", *parts: str | None) -> Rule:
    granularity, importance = (*parts, None, None)[:2]
    share = None if ratio is None else Fraction(repr(ratio))
    return Rule(pattern, share, place or pattern, granularity, importance)  # type: ignore[arg-type]


def selected(
    rules: Sequence[Rule], net: nn.Module | None = None, **options: object
) -> dict[str, int]:
    """How many filters or neurons of each layer a selector takes."""
    net = net or Net()
    selector = RuleSelector(channel_rules(net, tuple(rules)), **options)  # type: ignore[arg-type]
    state = selector.analyse(net, X)
    cut = state.plan(selector.select(net, state).selected).by_tensor()
    return {name: cuts[0].size - len(cuts[0].keep) for name, cuts in cut.items() if 0 in cuts} | {}


def test_each_layer_loses_its_own_share_and_linear_ones_neurons_when_asked() -> None:
    found = selected([rule("c", 0.25), rule("d", 0.5, "", "neuron")])
    assert {name: found[name] for name in ("c.weight", "d.weight")} == {
        "c.weight": 3,
        "d.weight": 6,
    }
    assert "a.weight" not in found
    assert "e.weight" not in found


def test_linear_layers_keep_their_neurons_where_nothing_is_stated() -> None:
    assert selected([rule("*", 0.5)])["c.weight"] == 5
    assert "d.weight" not in selected([rule("*", 0.5)])


def test_tied_layers_follow_the_first_rule_in_the_file() -> None:
    first = selected([rule("b", 0.5), rule("a", 0.25)])
    assert first["a.weight"] == first["b.weight"] == first["norm.weight"] == 4
    other = selected([rule("a", 0.25), rule("b", 0.5)])
    assert other["a.weight"] == other["b.weight"] == 2


@pytest.mark.parametrize("keeper", [rule("b", None), rule("b", 0.5, "", "element")])
def test_what_is_skipped_or_pruned_by_elements_keeps_its_channels(keeper: Rule) -> None:
    assert set(selected([keeper, rule("*", 0.5)])) == {"c.weight", "c.bias"}
    assert selected([rule("a", 0.5), keeper, rule("c", 0.5)])["b.weight"] == 4


def test_each_rule_ranks_by_its_own_importance() -> None:
    net = Net()
    with torch.no_grad():
        net.norm.weight.copy_(torch.tensor([8.0, 7, 6, 5, 4, 3, 2, 1]))
        net.c.weight.copy_(torch.arange(1, 11).view(10, 1, 1, 1).expand_as(net.c.weight))
    rules = channel_rules(
        net, (rule("a", 0.5, "", None, "bn_scale"), rule("c", 0.3, "", None, "l1"))
    )
    selector = RuleSelector(rules)
    state = selector.analyse(net, X)
    plan = state.plan(selector.select(net, state).selected).by_tensor()
    assert list(plan["a.weight"][0].keep) == [0, 1, 2, 3]
    assert list(plan["c.weight"][0].keep) == [3, 4, 5, 6, 7, 8, 9]


def test_the_share_due_follows_progress_and_stages_and_never_shrinks() -> None:
    net = Net()
    staged = Rule("c", Fraction(1, 2), "f", stages=(Fraction(1, 10), Fraction(1, 2)))
    selector = RuleSelector(channel_rules(net, (staged, rule("d", 0.5, "", "neuron"))))
    state = selector.analyse(net, X)
    counts = []
    for stage, progress in enumerate((Fraction(1, 3), Fraction(2, 3), Fraction(1))):
        chosen = selector.select(net, state, PruningStep(progress, stage)).selected
        assert state.selected <= chosen
        state.select(chosen)
        plan = state.plan(chosen).by_tensor()
        counts.append([10 - len(plan["c.weight"][0].keep), 12 - len(plan["d.weight"][0].keep)])
    assert counts == [[1, 2], [5, 4], [5, 6]]


def test_widths_are_rounded_and_floors_held() -> None:
    assert selected([rule("c", 0.5)], round_to=4)["c.weight"] == 6
    assert selected([rule("c", 0.9)], min_channels=3)["c.weight"] == 7
    assert selected([rule("c", 1.0)])["c.weight"] == 9


def test_global_scope_ranks_the_layers_of_one_rule_together() -> None:
    net = Net()
    with torch.no_grad():
        net.c.weight.copy_(
            torch.tensor([1.0] * 5 + [100] * 5).view(10, 1, 1, 1).expand_as(net.c.weight)
        )
        for layer in (net.a, net.b):
            layer.weight.fill_(1.0)
    rules = [rule("[abc]", 0.25)]
    local, whole = selected(rules, net), selected(rules, net, scope="global")
    assert (local["a.weight"], local["c.weight"]) == (2, 3)
    # A quarter of the 26 filters are 7: the 5 small ones, and one channel that a and b share.
    assert (whole["a.weight"], whole["b.weight"], whole["c.weight"]) == (1, 1, 5)


def test_bn_scale_without_a_norm_is_refused_by_the_place_of_the_rule() -> None:
    with pytest.raises(RuleError, match=r"^f:3: importance bn_scale .* no norm follows c: use l1"):
        selected([rule("c", 0.5, "f:3", None, "bn_scale")])


def test_rules_that_take_nothing_are_told_with_the_reason() -> None:
    net = Net()
    selector = RuleSelector(
        channel_rules(net, (rule("e", 0.5, "f:1", "neuron"), rule("c", 0.5, "f:2")))
    )
    state = selector.analyse(net, X)
    idle = selector.idle(net, state)
    assert list(idle) == ["e.weight"]
    assert idle["e.weight"].startswith("f:1: ")
    assert len(idle["e.weight"]) > 10


def test_only_taylor_asks_for_gradients() -> None:
    asked = RuleSelector((rule("a", 0.5, "", None, "taylor"), rule("b", None, "", None, "taylor")))
    assert [type(i).__name__ for i in asked.gradient_importances()] == ["Taylor"]
    assert RuleSelector((rule("a", 0.5),)).gradient_importances() == ()


def test_channel_rules_are_one_a_weight_in_the_order_of_the_file() -> None:
    found = channel_rules(Net(), (rule("c", 0.5), rule("[ad]", 0.25), rule("*", None)))
    assert [(r.pattern, r.ratio) for r in found] == [
        ("c.weight", Fraction(1, 2)),
        ("a.weight", Fraction(1, 4)),
        ("d.weight", None),  # elements
        ("b.weight", None),
        ("e.weight", None),
    ]
    assert np.all([not r.anywhere for r in found])
