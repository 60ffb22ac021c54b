"""Networks that no file can reproduce are refused by name, before the training."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lit_compress.errors import ExportError
from lit_compress.export.checks import LARGEST, weight_bytes
from lit_compress.export.onnx import capture, write_onnx


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer(x))


class Forced(nn.Module):
    """A module that stays in train mode."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer.train()(x)


@pytest.mark.parametrize(
    ("network", "name"),
    [
        (Function(lambda x: functional.dropout(x, 0.5)), r"dropout \(`.*, test_checks.py:\d+\)"),
        (Function(lambda x: functional.alpha_dropout(x, 0.5, True)), "alpha_dropout"),
        (Function(lambda x: x + torch.randn_like(x)), "randn_like"),
        (Forced(nn.Dropout(0.1)), "dropout in layer"),
        (
            Function(
                lambda x: functional.scaled_dot_product_attention(x, x, x, None, 0.1),
            ),
            "scaled_dot_product_attention",
        ),
    ],
)
def test_random_outputs_are_refused_by_name(network: nn.Module, name: str) -> None:
    """F.dropout without training= drops in eval mode too: found only after all of the training."""
    with pytest.raises(ExportError, match=rf"{name}.* is random in eval mode too"):
        capture(network.eval(), torch.zeros(2, 4))


@pytest.mark.parametrize(
    "network",
    [
        nn.Dropout(0.5),
        Function(lambda x: functional.dropout(x, 0.0)),
        Function(lambda x: functional.scaled_dot_product_attention(x, x, x)),
        nn.AlphaDropout(0.5),
    ],
)
def test_what_is_not_random_is_captured(network: nn.Module) -> None:
    capture(network.eval(), torch.zeros(2, 4))


@pytest.mark.parametrize(
    "network",
    [nn.BatchNorm1d(4, track_running_stats=False), Forced(nn.BatchNorm1d(4))],
)
def test_statistics_of_the_batch_are_refused_by_name(network: nn.Module) -> None:
    with pytest.raises(ExportError, match=r"batch_norm.* uses the statistics of each batch"):
        capture(nn.Sequential(nn.Linear(4, 4), network).eval(), torch.randn(4, 4))


def test_types_that_numpy_does_not_have_are_refused_by_name() -> None:
    with pytest.raises(ExportError, match=r"weight is torch\.bfloat16.*32-true"):
        capture(nn.Linear(4, 4).bfloat16(), torch.zeros(2, 4))
    with pytest.raises(ExportError, match=r"input 0 of ReLU is torch\.complex64"):
        capture(nn.ReLU(), torch.zeros(2, 4, dtype=torch.complex64))


def test_a_batch_norm_of_a_weight_depends_on_no_batch() -> None:
    """Networks with standardised weights (BiT, NFNet) got no file."""

    class Standardised(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            rows = self.weight.unsqueeze(0)
            weight = functional.batch_norm(rows, None, None, training=True).squeeze(0)
            return functional.linear(x, weight, self.bias)

    network, x = Standardised(4, 3).eval(), torch.randn(2, 4)
    program = capture(network, x)
    assert "batch_norm" not in str(program.graph_module.graph)
    torch.testing.assert_close(program.module()(x), network(x))


def test_more_weights_than_a_file_has() -> None:
    """The error was protobuf's; these weights take no memory."""
    with torch.device("meta"):
        layer = nn.Linear(25_000, 25_000)
    assert weight_bytes(layer) > LARGEST
    with pytest.raises(
        ExportError, match=r"has 2\.50 GB of weights, and an ONNX file has at most 2"
    ):
        write_onnx(layer.eval(), torch.zeros(2, 25_000, device="meta"), None)


def test_shared_weights_count_once() -> None:
    layer = nn.Linear(4, 4)
    assert weight_bytes(nn.Sequential(layer, nn.ReLU(), layer)) == 80
    assert weight_bytes(capture(nn.Sequential(layer, layer).eval(), torch.zeros(2, 4))) == 80
