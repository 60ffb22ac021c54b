"""The judge's network is the quantised one, and it takes only what is nearer beyond chance."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_compress.quantization import Calibrated
from lit_compress.quantization.rewrites.judge import Judge, is_better


def rounded(values: Tensor, observer: Any) -> Tensor:
    """Quantise and dequantise by torch's own functions."""
    scale, zero = observer.calculate_qparams()
    low, high = observer.quant_min, observer.quant_max
    if scale.numel() > 1:
        return torch.fake_quantize_per_channel_affine(
            values, scale, zero.to(torch.int32), 0, low, high
        )
    return torch.fake_quantize_per_tensor_affine(values, float(scale), int(zero), low, high)


@pytest.fixture
def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(6, 4)


def test_its_errors_are_those_of_the_quantised_network(layer: nn.Linear) -> None:
    inputs = torch.randn(32, 6)
    prepared = Calibrated(layer, [inputs], inputs[:2], correct=False)._prepared
    judge = Judge(prepared, (inputs,))
    nodes = [node for node in prepared.graph.nodes if node.op == "call_module"]
    of_weight, of_input = (  # the output of the last layer stays float
        prepared.get_submodule(str(node.target))
        for node in sorted(nodes, key=lambda node: node.args[0].op != "get_attr")
    )
    exact = layer(inputs).detach().double()

    def errors(weight: Tensor) -> Tensor:
        made = nn.functional.linear(rounded(inputs, of_input), weight, layer.bias).detach()
        return (made - exact).square().sum(1) / exact.square().sum()

    nearest = rounded(layer.weight.detach(), of_weight)
    torch.testing.assert_close(judge.errors({}).detach(), errors(nearest), rtol=1e-3, atol=1e-9)
    other = layer.weight.detach() + 0.1
    found = judge.errors({"weight": other}).detach()
    torch.testing.assert_close(found, errors(other), rtol=1e-3, atol=1e-9)


ONE = torch.full((16,), 1.0)


@pytest.mark.parametrize(
    ("errors", "better"),
    [
        (ONE * 0.9, True),
        (ONE, False),
        (ONE * 1.1, False),
        (ONE * 0, True),
        # One input is far better, all others a little worse.
        (torch.cat([ONE[:1] * 0.01, ONE[1:] * 1.01]), False),
        # Half are better, half are worse: chance.
        (torch.cat([ONE[:8] * 0.8, ONE[8:] * 1.1]), False),
        # The sum is larger, though most are smaller.
        (torch.cat([ONE[:1] * 30, ONE[1:] * 0.5]), False),
    ],
)
def test_what_is_better(errors: Tensor, better: bool) -> None:
    assert is_better(errors, ONE) is better


def test_one_input_is_compared_alone() -> None:
    assert is_better(torch.tensor([0.5]), torch.tensor([1.0]))
    assert not is_better(torch.tensor([1.0]), torch.tensor([1.0]))
