"""Runs of a network are alike, and leave it as it was."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor, nn

from lit_compress.pruning import analyse


class Caching(nn.Module):
    """Keeps what it computed in its first call in eval mode, as LeViT does; draws a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)
        self.bias = nn.Parameter(torch.randn(3, 8))
        self.register_buffer("index", torch.tensor([0, 2, 1]))
        self.cache: dict[str, Tensor] = {}
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        if "bias" not in self.cache:
            self.cache["bias"] = self.bias[self.index].mean(0)
        x = self.first(x) + self.cache["bias"]
        if torch.rand(()) < 0.5:
            x = x.relu().clone().clone()
        if random.random() < 0.5 or np.random.rand() < 0.5:
            x = x.neg()
        return self.last(x)


def test_a_cache_is_filled_in_each_run_and_is_empty_afterwards() -> None:
    """The second run made other calls than the first, and was compared with it call by call."""
    for seed in range(4):
        torch.manual_seed(seed)
        model = Caching().eval()
        state = torch.get_rng_state()
        graph = analyse(model, torch.randn(2, 4))
        assert len(graph.channels) == 8
        assert ("bias", 1) in graph.channel_of
        assert (model.cache, model.seen) == ({}, [])
        assert not torch.equal(state, torch.get_rng_state())  # of the input alone


class Hooked(nn.Module):
    """Registers a hook in its first call, as Hugging Face's models do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)
        self.ready = False

    def forward(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        self.kept = kept
        if not self.ready:
            self.first.register_forward_hook(lambda _, __, out: self.kept.append(out))
            self.ready = True
        self.last(self.first(x))
        return self.last(torch.stack(kept).sum(0))


def test_hooks_of_the_first_call_are_not_registered_twice() -> None:
    """SegFormer collected each hidden state once more in each run."""
    model = Hooked().eval()
    assert len(analyse(model, torch.randn(2, 4)).channels) == 8
    assert not model.first._forward_hooks
    assert model.ready is False


class Counting(nn.Module):
    """Makes another call in each run: it keeps count outside itself."""

    runs: list[int] = []  # noqa: RUF012 - it is shared on purpose

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        type(self).runs.append(1)
        for _ in type(self).runs:
            x = x.relu()
        return self.last(x)


def test_a_network_that_makes_other_calls_each_time_keeps_what_cannot_be_compared() -> None:
    """It ended in an IndexError of ours."""
    graph = analyse(Counting().eval(), torch.randn(2, 4))
    assert not graph.channels
    assert "makes another call in each run" in str([str(part.reason) for part in graph.frozen])
