"""The calls of a network are recorded once, whoever makes them."""

from __future__ import annotations

import pytest
import torch
from conftest import ForeignModule

from lit_compress.callbacks._distillation.calls import NetworkCall, followed, outputs_of


def test_the_outer_call_counts_and_the_module_is_as_before() -> None:
    module, calls = ForeignModule(), list[NetworkCall]()
    images = torch.randn(2, 1, 8, 8)
    with followed(module, ["", "net"], ["net.3"], calls):
        first = module(images)
        second = module.net(images)
    assert [call.path for call in calls] == ["", "net"]
    assert calls[0].result is first
    assert calls[1].result is second
    assert calls[0].features["net.3"].shape == (2, 12, 4, 4)
    assert torch.equal(calls[0].args[0], images)
    assert calls[0].args[0] is not images
    assert "forward" not in vars(module) | vars(module.net)
    assert not module.net[3]._forward_hooks


def test_an_error_in_a_call_leaves_nothing_open() -> None:
    module, calls = ForeignModule(), list[NetworkCall]()
    with followed(module, [""], [], calls):
        with pytest.raises(RuntimeError):
            module(torch.ones(3))
        module(torch.ones(2, 1, 8, 8))
    assert len(calls) == 1


def test_outputs_of_layers_are_found() -> None:
    module, found = ForeignModule(), dict[str, torch.Tensor]()
    with outputs_of(module, ["net.0"], found):
        module(torch.ones(2, 1, 8, 8))
    assert found["net.0"].shape == (2, 8, 8, 8)
