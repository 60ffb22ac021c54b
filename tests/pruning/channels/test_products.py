"""The MACs of products of two activations follow the heads, as a formula by hand says."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_compress.measure import cost
from lit_compress.pruning import ChannelGraph, analyse, apply, make_plan, restrict

TOKENS, HEADS, SIZE = 7, 6, 4


class Attending(nn.Module):
    """An attention, in a network that may refuse a small batch."""

    def __init__(self, fused: bool, smallest: int = 1) -> None:
        super().__init__()
        self.fused, self.smallest = fused, smallest
        width = HEADS * SIZE
        self.query, self.key, self.value = (nn.Linear(5, width) for _ in range(3))
        self.out, self.head = nn.Linear(width, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) < self.smallest:
            raise ValueError("more examples, please")
        layers = (self.query, self.key, self.value)
        query, key, value = (layer(x).unflatten(2, (-1, SIZE)).transpose(1, 2) for layer in layers)
        if self.fused:
            attended = F.scaled_dot_product_attention(query, key, value)
        else:
            attended = (query @ key.mT).softmax(-1) @ value
        return self.head((x + self.out(attended.transpose(1, 2).flatten(2))).mean(1))


#: MACs of one head: of each query with each key, and of each weight with each value.
HEAD_MACS = 2 * TOKENS * TOKENS * SIZE
#: MACs that go with a head in the four layers around the products.
LAYER_MACS = 4 * TOKENS * SIZE * 5


def analysed(model: nn.Module, rows: int = 1) -> ChannelGraph:
    torch.manual_seed(0)
    return analyse(model.eval(), torch.randn(rows, TOKENS, 5))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("rows", "smallest"), [(1, 1), (4, 1), (4, 2)])
def test_the_products_of_an_attention_are_those_of_its_heads(
    fused: bool, rows: int, smallest: int
) -> None:
    """They count for one example, also where the network takes no batch of one."""
    graph = analysed(Attending(fused, smallest), rows)
    (product,) = graph.products
    assert product.macs == HEADS * HEAD_MACS
    parts, counts = np.unique(product.channels, return_counts=True)
    assert tuple(parts.tolist()) == graph.groups[0].channels
    assert len(set(counts.tolist())) == 1


@pytest.mark.parametrize("fused", [True, False])
def test_a_head_takes_its_products_with_it(fused: bool) -> None:
    """They were left out, so that a target of MACs was missed."""
    model = Attending(fused)
    graph = analysed(model)
    gone = graph.groups[0].channels[1:4]
    dropped = np.zeros(graph.channel_count + 1, bool)
    dropped[list(gone)] = True
    (product,) = graph.products
    assert product.saved(dropped) == 3 * HEAD_MACS
    small = copy.deepcopy(model)
    apply(make_plan(graph, gone), small)
    x = torch.zeros(1, TOKENS, 5)
    assert cost(model, x).macs - cost(small, x).macs == 3 * (HEAD_MACS + LAYER_MACS)


def test_what_is_left_of_the_products_is_what_a_new_analysis_finds() -> None:
    model = Attending(fused=True)
    graph = analysed(model)
    plan = make_plan(graph, graph.groups[0].channels[:2])
    (left,) = restrict(graph, plan).products
    apply(plan, model)
    (found,) = analysed(model).products
    assert left.macs == found.macs == 4 * HEAD_MACS
    assert len(left.channels) == len(found.channels) == 4


def test_products_come_back_from_a_checkpoint() -> None:
    graph = analysed(Attending(fused=True))
    (product,), (back,) = graph.products, ChannelGraph.from_dict(graph.to_dict()).products
    assert back.macs == product.macs
    assert np.array_equal(back.channels, product.channels)


def test_a_checkpoint_of_an_older_version_has_none() -> None:
    stored = analysed(Attending(fused=True)).to_dict()
    del stored["products"]
    assert ChannelGraph.from_dict(stored).products == ()


def test_products_without_channels_are_not_kept() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = F.scaled_dot_product_attention(x, x, x)
            return self.second(self.first((x @ x.mT).softmax(-1) @ x).mean(1))

    graph = analysed(Fixed())
    assert [len(group.channels) for group in graph.groups] == [8]
    assert graph.products == ()
