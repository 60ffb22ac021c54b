"""What cannot be trained with fake quantisation is named, with the way out."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import ForeignModule
from torch import Tensor, nn

from lit_compress.callbacks import FilterPruning, KnowledgeDistillation
from lit_compress.callbacks._quantization.trainable import (
    WAY_OUT,
    check_run,
    check_trainable,
    never_called,
    warn_of_rest,
)
from lit_compress.errors import InvalidArgumentError

from .test_fake_forward import fake, placed


def run(*callbacks: Any) -> Any:
    return SimpleNamespace(callbacks=list(callbacks))


def test_a_plain_run_is_fine(foreign: ForeignModule) -> None:
    check_run(run(FilterPruning(0.5), KnowledgeDistillation()), foreign)
    check_trainable(foreign, placed(foreign))


@pytest.mark.parametrize(
    ("callbacks", "said"),
    [
        ([FilterPruning(0.5, shrink="end")], "shrink: end"),
        ([KnowledgeDistillation(features=["net.3"])], "features"),
    ],
)
def test_other_callbacks_are_named(callbacks: Any, said: str, foreign: ForeignModule) -> None:
    with pytest.raises(InvalidArgumentError, match=said) as error:
        check_run(run(*callbacks), foreign)
    assert WAY_OUT in str(error.value)


def test_weights_of_another_type_are_named(foreign: ForeignModule) -> None:
    with pytest.raises(InvalidArgumentError, match=r"net\.0\.weight is torch\.float64"):
        check_run(run(), foreign.double())


@pytest.mark.parametrize(
    "register",
    ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"],
)
def test_hooks_of_parts_are_named(register: str, foreign: ForeignModule) -> None:
    getattr(foreign.net[3], register)(lambda *_: None)
    with pytest.raises(InvalidArgumentError, match=r"net\.3 has hooks"):
        check_trainable(foreign, placed(foreign))


def test_hooks_of_the_network_itself_go_on(foreign: ForeignModule) -> None:
    calls: list[Tensor] = []
    foreign.net.register_forward_hook(lambda *values: calls.append(values[-1]))
    check_trainable(foreign, placed(foreign))
    calls.clear()
    made = fake(foreign)
    calls.clear()
    with made.forwards(foreign):
        foreign(torch.zeros(2, 1, 8, 8))
    assert len(calls) == 1


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) if self.training else x


def test_random_parts_are_told_next_to_a_dropout(foreign: ForeignModule) -> None:
    """Any dropout hid all others: stochastic depth rested without a word."""
    foreign.net.insert(7, nn.Dropout(0.3))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warn_of_rest(foreign, fake(foreign))
    foreign.net.insert(3, Noise())
    with pytest.warns(UserWarning, match="random in training"):
        warn_of_rest(foreign, fake(foreign))


def test_a_network_that_is_never_called_is_named(foreign: ForeignModule) -> None:
    assert "does not call its forward" in str(never_called(foreign, placed(foreign)))
