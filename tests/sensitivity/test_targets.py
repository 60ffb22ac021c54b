"""What a scan prunes on trial."""

from __future__ import annotations

import copy
import math
from fractions import Fraction

import pytest
import torch
from conftest import ForeignModule
from torch import Tensor, nn
from torchvision import models

from lit_compress.errors import PatternError, RuleError
from lit_compress.pruning import apply, make_plan
from lit_compress.pruning.channels.analysis import analyse
from lit_compress.pruning.channels.tracing.modules import named_tensors
from lit_compress.pruning.importance import importance_of, layer_scores, scores_by_channel
from lit_compress.pruning.layers import layer_name
from lit_compress.pruning.rules.rule import Rule
from lit_compress.sensitivity.targets import (
    WHOLE,
    channel_targets,
    rules_of,
    weight_targets,
)

HALF = Fraction(1, 2)


def test_elements_of_each_weight_and_of_all() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4, 5))
    before = copy.deepcopy(net.state_dict())
    targets = {target.name: target for target in weight_targets(net, "element")}
    assert {name: t.units for name, t in targets.items()} == {
        "0": 36,
        "2": 20,
        "*": 56,
    }
    for name, target in targets.items():
        for ratio in (Fraction(0), Fraction(7, 100), HALF, Fraction(1)):
            values, removed = target.pruned(ratio)
            assert set(values) == set(target.tensors)
            expected = 0
            for tensor, value in values.items():
                own = before[tensor]
                count = math.ceil(own.numel() * ratio)
                order = own.abs().flatten().argsort(stable=True)
                twin = own.flatten().clone()
                twin[order[:count]] = 0
                assert torch.equal(value, twin.view_as(own))
                expected += count
            assert removed == expected, name
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())


def test_the_original_codes_units_are_filters_and_elements() -> None:
    net = nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.ConvTranspose2d(8, 6, 2), nn.Flatten(), nn.Linear(6, 5)
    )
    targets = {target.name: target for target in weight_targets(net, "original")}
    assert [(t.units, t.granularity, t.importance) for t in targets.values()] == [
        (8, "filter", "l2"),
        (6, "filter", "l2"),  # of a transposed convolution, in the second dimension
        (30, "element", "abs"),
        (44, None, None),
    ]
    values, removed = targets["1"].pruned(HALF)
    assert removed == 3 == int((values["1.weight"].abs().sum((0, 2, 3)) == 0).sum())
    values, removed = targets[WHOLE].pruned(HALF)
    assert removed == 4 + 3 + 15
    grouped = nn.Sequential(nn.ConvTranspose2d(4, 4, 2, groups=2))
    with pytest.raises(RuleError, match="grouped transposed convolution 0"):
        weight_targets(grouped, "original")
    assert len(weight_targets(grouped, "element")) == 2


def test_patterns_pick_the_layers() -> None:
    net = ForeignModule()
    names = [t.name for t in weight_targets(net, "element", ["net.[03]"], ["regex:net[.]0"])]
    assert names == ["net.3", WHOLE]
    with pytest.raises(PatternError, match="include: the pattern 'conv9' matches no"):
        weight_targets(net, "element", ["conv9"])
    with pytest.raises(PatternError, match="exclude: the pattern 'conv9' matches no"):
        channel_targets(
            net, torch.zeros(2, 1, 8, 8), "", importance_of("l2"), "l2", exclude=["conv9"]
        )


def test_a_weight_that_an_embedding_shares_is_found_by_its_first_name() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
            self.head.weight = self.embed.weight

    layer, whole = weight_targets(Tied(), "element")
    assert (layer.name, layer.tensors) == ("head", ("embed.weight",)) != whole.name
    assert whole.tensors == layer.tensors
    values, removed = layer.pruned(HALF)
    assert removed == 12 == int((values["embed.weight"] == 0).sum())


NETS = {
    "foreign": (lambda: ForeignModule().net, (2, 1, 8, 8)),
    "shufflenet": (lambda: models.shufflenet_v2_x0_5(num_classes=4), (2, 3, 32, 32)),
    "mobilenet": (lambda: models.mobilenet_v2(num_classes=4, width_mult=0.25), (2, 3, 32, 32)),
}


@pytest.mark.parametrize("name", NETS)
def test_channels_that_nothing_reads_are_removed_channels(name: str) -> None:
    make, shape = NETS[name]
    torch.manual_seed(0)
    net, x = make().eval(), torch.randn(shape)
    targets = channel_targets(net, x, "", importance_of("l2"), "l2")
    graph = analyse(net, x)
    scores = scores_by_channel(
        graph, layer_scores(net, graph, importance_of("l2")), importance_of("l2")
    )
    by_name = {t.name: t for t in targets}
    checked = 0
    for group in graph.groups[::3]:
        makers = [n for n, dim in group.keys if graph.roles[n, dim] == "filter"]
        target = by_name[layer_name(makers[0])]
        assert target.units == len(group.channels)
        values, count = target.pruned(HALF)
        order = sorted(group.channels, key=lambda number: (scores[number], number))
        removed = order[: min(graph.removable(group), math.ceil(len(order) / 2))]
        assert count == len(removed)
        masked, small = copy.deepcopy(net), copy.deepcopy(net)
        for tensor, value in values.items():
            named_tensors(masked)[tensor].data.copy_(value)
        apply(make_plan(graph, removed), small)
        with torch.no_grad():
            torch.testing.assert_close(masked(x), small(x), rtol=1e-5, atol=1e-5)
            assert not torch.equal(masked(x), net(x))
        checked += 1
    assert checked
    values, removed = by_name[WHOLE].pruned(Fraction(0))
    assert removed == 0
    assert all(torch.equal(value, named_tensors(net)[n]) for n, value in values.items())
    assert set(values) == set(by_name[WHOLE].tensors)


def test_neurons_and_norm_scales() -> None:
    class Mlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm = nn.Linear(4, 8), nn.BatchNorm1d(8)
            self.b, self.c = nn.Linear(8, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(self.norm(self.a(x)).relu()).relu())

    net, x = Mlp().eval(), torch.randn(3, 4)
    found = channel_targets(net, x, "", importance_of("l2"), "l2")
    assert [(t.name, t.granularity, t.units) for t in found] == [
        ("a", "neuron", 8),
        ("b", "neuron", 6),
        (WHOLE, None, 14),
    ]
    found = channel_targets(net, x, "", importance_of("bn_scale"), "bn_scale")
    assert [(t.name, t.importance) for t in found] == [("a", "bn_scale"), (WHOLE, None)]


def test_rules_of_what_was_chosen() -> None:
    net = ForeignModule()
    targets = weight_targets(net, "original")
    chosen = {"net.0": HALF, "net.3": Fraction(0), WHOLE: HALF}
    assert rules_of(chosen, targets) == (
        Rule("net.0", HALF, "scan", "filter", "l2"),
        Rule("net.3", None, "scan", "filter", "l2"),
    )
