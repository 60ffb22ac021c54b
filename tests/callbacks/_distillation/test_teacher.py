"""A teacher answers without gradients, and its weights come back from a checkpoint."""

from __future__ import annotations

import pytest
import torch
from conftest import ForeignModule
from torch import nn

from lit_compress.callbacks._distillation.calls import NetworkCall
from lit_compress.callbacks._distillation.teacher import Teacher
from lit_compress.errors import CheckpointError, InvalidArgumentError

IMAGES = torch.ones(2, 1, 8, 8)


def test_it_answers_as_the_part_that_was_called() -> None:
    module = ForeignModule()
    teacher = Teacher(module, is_copy=True)
    result, features = teacher.answers(NetworkCall("net", (IMAGES,), {}), ("net.0",))
    torch.testing.assert_close(result, module.net(IMAGES))
    assert not result.requires_grad
    assert features["net.0"].shape == (2, 8, 8, 8)
    assert not module.training


def test_weights_come_back_and_those_of_another_network_do_not() -> None:
    first, second = Teacher(ForeignModule(), True), Teacher(ForeignModule(), True)
    second.load(first.weights())
    for name, value in first.module.state_dict().items():
        assert torch.equal(second.module.state_dict()[name], value)
    with pytest.raises(CheckpointError, match="of another network than this run builds"):
        second.load({"weight": torch.ones(1)})


def test_a_network_of_another_kind_must_take_the_same_inputs() -> None:
    teacher = Teacher(nn.Linear(3, 4), is_copy=False)
    with pytest.raises(InvalidArgumentError, match="Linear cannot be called as the network is"):
        teacher.answers(NetworkCall("", (IMAGES,), {}), ())
