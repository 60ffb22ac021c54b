"""Parts of a graph are on and off as the modules are that they come from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lit_compress.quantization.training.switches import Dropout, Norm, Switch


def test_the_mode_is_that_of_the_module_and_not_of_the_network() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
    switch, other = Switch("1"), Switch("no.such.part")
    for mode in (True, False):
        network[1].train(mode)
        switch.follow(network)
        other.follow(network)
        assert switch.training is mode
        assert other.training  # it is of the network itself
    switch.follow(None)
    other.follow(None)
    assert not switch.training
    assert not other.training


def test_a_dropout_drops_in_training_alone() -> None:
    network, ones = nn.Sequential(nn.Dropout(0.5)), torch.ones(1000)
    dropout = Dropout("0", nn.Dropout(0.5))
    dropout.follow(network.eval())
    assert torch.equal(dropout(ones), ones)
    dropout.follow(network.train())
    dropped: Tensor = dropout(ones)
    assert 300 < int((dropped == 0).sum()) < 700


@pytest.mark.parametrize("momentum", [0.1, 0.03, None])
def test_statistics_follow_as_those_of_the_norm_itself_do(momentum: float | None) -> None:
    own = nn.Sequential(nn.BatchNorm1d(3, momentum=momentum)).train()
    other = nn.Sequential(nn.BatchNorm1d(3, momentum=momentum)).train()
    norm = Norm("0", 0.0 if momentum is None else momentum, own[0].eps)
    for seed in range(4):
        batch = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed)) + seed
        norm.follow(own)
        found = norm(batch, own[0].running_mean, own[0].running_var, own[0].weight, own[0].bias)
        torch.testing.assert_close(found, other(batch))
    for name, buffer in other.named_buffers():
        torch.testing.assert_close(dict(own.named_buffers())[name], buffer)
    norm.follow(own.eval())
    norm(torch.randn(8, 3), own[0].running_mean, own[0].running_var, None, None)
    assert own[0].num_batches_tracked == 4
    torch.testing.assert_close(own[0].running_mean, other[0].running_mean)
