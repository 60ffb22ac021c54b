"""Which parts may follow others, and that they lose the same channels."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from lit_compress.pruning import analyse, apply, make_plan
from lit_compress.pruning.channels.tracing.followers import alike


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


class Averaged(nn.Module):
    """A network, its average, and a head that looks like a layer of neither."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = network()
        self.average = copy.deepcopy(self.net).requires_grad_(False)
        self.head = nn.Linear(2, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x))


def trained(module: nn.Module) -> set[int]:
    return {id(p) for p in module.parameters() if p.requires_grad}


def test_the_largest_part_that_is_built_alike_is_found() -> None:
    module = Averaged()
    assert alike(module, trained(module)) == [("average", ["net"])]


def test_what_is_trained_or_built_otherwise_follows_nothing() -> None:
    module = Averaged()
    module.average.requires_grad_(True)
    assert alike(module, trained(module)) == []
    module.average = nn.Sequential(nn.Linear(3, 9), nn.ReLU()).requires_grad_(False)
    assert alike(module, trained(module)) == []


def test_a_name_that_only_begins_like_a_part_is_not_inside_it() -> None:
    """``average_of_two`` is no part of ``average``."""
    module = Averaged()
    module.average_of_two = copy.deepcopy(module.average)
    found = dict(alike(module, trained(module)))
    assert found == {"average": ["net"], "average_of_two": ["net"]}


def test_a_follower_loses_the_channels_of_what_it_follows() -> None:
    module = Averaged()
    module.average.load_state_dict({n: v + 1.0 for n, v in module.net.state_dict().items()})
    graph = analyse(module, torch.randn(4, 3), followers={"average": "net"})
    (group,) = (group for group in graph.groups if "net.0" in group.name)
    plan = make_plan(graph, frozenset(group.channels[:3]))
    apply(plan, module)
    assert module.average[0].out_features == module.net[0].out_features == 5
    assert module.average[1].num_features == 5
    for name in ("0.weight", "1.weight", "1.running_mean"):
        own, other = module.net.state_dict()[name], module.average.state_dict()[name]
        torch.testing.assert_close(other, own + 1.0, msg=name)
