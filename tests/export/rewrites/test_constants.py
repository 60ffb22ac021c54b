"""Weights that are computed from others are constants in the captured graph."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from lit_compress.export.onnx import capture


class Double(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def doubled(layer: nn.Module) -> nn.Module:
    return parametrize.register_parametrization(layer, "weight", Double())


@pytest.mark.parametrize("norm", [weight_norm, spectral_norm, doubled])
def test_a_parametrization_is_computed_once(norm: object) -> None:
    """None of the weights under a weight_norm were int8, and the file was called int8."""
    torch.manual_seed(0)
    network = nn.Sequential(norm(nn.Conv1d(2, 4, 3)), nn.ReLU(), norm(nn.Conv1d(4, 2, 3))).eval()  # type: ignore[operator]
    program = capture(network, torch.randn(2, 2, 9))
    assert sorted(program.state_dict) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    x = torch.randn(5, 2, 9)
    with torch.no_grad():
        torch.testing.assert_close(program.module(check_guards=False)(x), network(x))


class Shared(nn.Module):
    """A layer that is used twice, and a weight that is used as it is, too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = doubled(nn.Linear(4, 4))
        self.table = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(torch.relu(self.layer(x)))
        return x @ self.table.t() + x @ self.table


def test_equal_constants_are_stored_once_and_used_weights_stay() -> None:
    network = Shared().eval()
    program = capture(network, torch.randn(2, 4))
    assert {"layer.weight", "table"} < set(program.state_dict)
    assert len(program.state_dict) == 4  # and a bias, and the transposed table
    x = torch.randn(3, 4)
    with torch.no_grad():
        torch.testing.assert_close(program.module(check_guards=False)(x), network(x))
