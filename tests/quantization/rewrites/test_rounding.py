"""Learned rounding: less error in the outputs of a layer than the nearest numbers have."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_compress.artifact import sqnr_db
from lit_compress.quantization import Calibrated
from lit_compress.quantization.rewrites.rounding import _layers, _Products, learn_rounding


def correlated(count: int, size: int, seed: int = 0) -> Tensor:
    """Inputs of a few sources in noise: what an early layer makes of an image."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(3, size, generator=torch.Generator().manual_seed(9))
    sources = torch.randn(count, 3, generator=generator)
    return sources @ mixing + 0.05 * torch.randn(count, size, generator=generator)


def prepared(network: nn.Module, inputs: Tensor, **options: Any) -> Any:
    return Calibrated(network, [inputs], inputs[:2], correct=False, **options)._prepared


def test_it_is_as_good_as_trying_all_numbers() -> None:
    """Next to the best of all 3^4 ways to round four weights up, down or further."""
    torch.manual_seed(0)
    for seed in range(5):
        layer, inputs = nn.Linear(4, 1, bias=False), correlated(400, 4, seed)
        graph = prepared(layer, inputs, weight_range="reduced")
        ((node, found),) = _layers(graph).items()
        products = _Products(graph, {node: found})
        products.run(inputs)
        weight, scale = layer.weight.detach(), float(found.scale)

        def error(rounded: Tensor, weight: Tensor = weight, inputs: Tensor = inputs) -> float:
            return float((inputs @ (rounded - weight).T).square().mean())

        floor = (weight / scale).floor()
        tried = [
            error((floor + torch.tensor(up)) * scale) for up in product((-1, 0, 1, 2), repeat=4)
        ]
        learned = error(found.rounded(products.of[node]))
        assert learned <= error(found.nearest) * 1.0001
        assert learned <= 4 * min(tried) + 0.3 * error(found.nearest)


class Wide(nn.Module):
    """Many inputs that say the same: rounding errors of one can be made up for by others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


@pytest.mark.parametrize("correct", [True, False])
def test_outputs_of_the_network_come_nearer(correct: bool) -> None:
    network, test = Wide().eval(), correlated(2000, 64, 5)
    batches = [correlated(500, 64, seed) for seed in (1, 2, 3, 4)]
    with torch.no_grad():
        expected = network(test).numpy()

        def quality(**options: Any) -> float:
            options = {"weight_range": "reduced", "correct": correct, **options}
            calibrated = Calibrated(network, batches, batches[0], **options)
            if "rounding" in options:
                assert calibrated.learned
            return float(sqnr_db(expected, calibrated.convert()(test).numpy()))

        assert quality(rounding="learned") > quality() + 1


def test_what_is_not_better_is_not_taken() -> None:
    """With single inputs that have nothing in common the nearest numbers are the best."""
    layer = nn.Linear(16, 4)
    inputs = torch.cat([torch.eye(16), -torch.eye(16)]).repeat(10, 1)
    assert not learn_rounding(prepared(layer, inputs), [inputs] * 4)


def test_dead_inputs_and_constant_ones_do_no_harm() -> None:
    layer = nn.Linear(6, 4)
    inputs = torch.randn(100, 6)
    inputs[:, 0], inputs[:, 1] = 0, 3
    for weight in learn_rounding(prepared(layer, inputs), [inputs] * 2).values():
        assert torch.isfinite(weight).all()


def test_a_shared_weight_is_left_alone() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.layer(self.layer(x).relu())
            return out

    inputs = torch.randn(20, 4)
    assert not _layers(prepared(Twice(), inputs))
