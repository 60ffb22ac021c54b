"""The weights of a module in another one, as if they came from another process."""

from __future__ import annotations

import pickle

import pytest
import torch
from conftest import ForeignModule
from torch import nn

from lit_compress.errors import ProcessError
from lit_compress.evaluation.ranks.weights import Weights


def narrow() -> ForeignModule:
    """Return a network whose first layer has lost filters."""
    module = ForeignModule()
    module.net[0] = nn.Conv2d(1, 5, 3, padding=1, bias=False)
    module.net[1] = nn.BatchNorm2d(5)
    module.net[3] = nn.Conv2d(5, 12, 3, stride=2, padding=1)
    module.net[1].running_mean.fill_(3)
    return module


def test_another_process_gets_values_and_shapes() -> None:
    sent, other = narrow(), ForeignModule()
    parameters = list(other.parameters())
    pickle.loads(pickle.dumps(Weights.of(sent))).give_to(other)  # noqa: S301
    assert other.net[0].out_channels == 5
    assert all(map(torch.equal, other.state_dict().values(), sent.state_dict().values()))
    assert list(map(id, other.parameters())) == list(map(id, parameters))


def test_a_part_that_is_left_out_stays_as_it_is() -> None:
    sent, other = ForeignModule(), ForeignModule()
    before = other.net[0].weight.clone()
    weights = Weights.of(sent, "net.0.")
    assert "net.0.weight" not in weights.tensors
    weights.give_to(other)
    assert torch.equal(other.net[0].weight, before)
    assert torch.equal(other.net[3].weight, sent.net[3].weight)


def test_another_network_is_refused_by_name() -> None:
    other = ForeignModule()
    other.extra = nn.Linear(2, 2)
    with pytest.raises(ProcessError, match=r"has other parts: extra\.bias"):
        Weights.of(ForeignModule()).give_to(other)
