"""Modules and tensors are listed as torch lists them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from lit_compress.pruning.channels.tracing.modules import module_at, named_modules, named_tensors


class Shared(nn.Module):
    """Has a layer under two names, tied weights, a missing bias, a buffer, and nested parts."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4))
        self.again = self.first[0]
        self.tied = nn.Linear(3, 4)
        self.tied.weight = self.first[0].weight
        self.register_buffer("table", torch.ones(2))
        self.nothing: nn.Module | None = None


class Renamed(nn.Linear):
    """Names its parts itself, as wrappers do."""

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Module]]:
        yield "own", self


class Prefixed(nn.Linear):
    """Names its parameters itself."""

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        yield from ((f"x.{name}", p) for name, p in super().named_parameters(*args, **kwargs))


MODELS = (Shared(), nn.Linear(2, 3), nn.Sequential(Renamed(2, 3), nn.ReLU()), Prefixed(2, 3))


@pytest.mark.parametrize("model", MODELS)
def test_modules_and_tensors_are_those_of_torch_in_its_order(model: nn.Module) -> None:
    assert named_modules(model) == list(model.named_modules())
    expected = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    found = named_tensors(model)
    assert list(found) == list(expected)
    assert all(found[name] is tensor for name, tensor in expected.items())


def test_a_module_is_found_by_its_name() -> None:
    model = Shared()
    assert module_at(model, "") is model
    assert module_at(model, "first.1") is model.first[1]
    assert module_at(model, "first.2") is None
    assert module_at(model, "nothing.0") is None
