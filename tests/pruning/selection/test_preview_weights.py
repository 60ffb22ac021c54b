"""What rules are said to take is what they take."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor, nn

from lit_compress.pruning import apply
from lit_compress.pruning.rules.masks import rule_masks
from lit_compress.pruning.rules.rule import Rule, assign
from lit_compress.pruning.selection.by_rules import RuleSelector, channel_rules
from lit_compress.pruning.selection.preview import PruningPreview
from lit_compress.pruning.selection.preview_weights import preview_weights


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.up = nn.Conv2d(1, 6, 3), nn.ConvTranspose2d(6, 4, 2)
        self.b = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.up(self.a(x)).mean((2, 3)))


RULES = (
    Rule("b", Fraction(3, 10), "f:1"),
    Rule("a", Fraction(1, 2), "f:2"),
    Rule("up", Fraction(1, 4), "f:3", "filter"),
)


def test_masked_weights_are_counted_as_they_will_be() -> None:
    net = Net()
    ruled = assign(net, RULES)
    preview = PruningPreview(weights=preview_weights(net, ruled))
    kept = {name: int(mask.sum()) for name, mask in rule_masks(net, ruled).items()}
    assert {weight.name: weight.left for weight in preview.weights} == kept
    assert preview.share == 1 - sum(kept.values()) / (54 + 96 + 20)
    assert {w.name: w.granularity for w in preview.weights} == {
        "a.weight": "filter",
        "up.weight": "filter",
        "b.weight": "element",
    }


def test_removed_filters_take_what_reads_them_along() -> None:
    net = Net()
    ruled = assign(net, RULES)
    selector = RuleSelector(channel_rules(net, RULES))
    state = selector.analyse(net, torch.zeros(2, 1, 5, 5))
    selection = selector.select(net, state)
    plan = state.plan(selection.selected)
    preview = PruningPreview(weights=preview_weights(net, ruled, plan))
    apply(plan, net)
    masks = rule_masks(net, {"b.weight": ruled["b.weight"]})
    left = {"a.weight": net.a.weight.numel(), "up.weight": net.up.weight.numel()}
    left["b.weight"] = int(masks["b.weight"].sum())
    assert {weight.name: weight.left for weight in preview.weights} == left


def test_the_table_names_each_weight_its_rule_and_the_share() -> None:
    net = Net()
    preview = PruningPreview(weights=preview_weights(net, assign(net, RULES[:2])))
    lines = str(preview).splitlines()
    assert lines[0].split() == ["weight", "size", "left", "loses", "ratio", "rule"]
    assert lines[1].split() == ["a.weight", "54", "27", "filter", "0.5", "f:2"]
    assert lines[2].split() == ["up.weight", "96", "96", "nothing", "no", "rule", "matches"]
    assert lines[3].split() == ["b.weight", "20", "14", "element", "0.3", "f:1"]
    assert lines[4] == f"{33 / 170:.1%} of these weights will be pruned"


def test_a_network_without_weights_loses_nothing() -> None:
    assert PruningPreview().share == 0
    assert "0.0% of these weights will be pruned" in str(PruningPreview())
