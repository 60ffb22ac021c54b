"""The inputs of a layer in rows: their products with the weights are the layer's outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_compress.quantization.rewrites.layer_inputs import MOST_ROWS, LayerInputs, rows_of


def layer_of(module: nn.Module, image: Tensor) -> Any:
    program = torch.export.export(module.eval(), (image,))
    return next(node for node in program.graph.nodes if node.op == "call_function")


CONVS = [
    (nn.Conv2d(3, 4, 3), (2, 3, 7, 6)),
    (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 7, 7)),
    (nn.Conv2d(3, 4, (3, 2), dilation=(2, 1), padding=(1, 0)), (1, 3, 9, 5)),
    (nn.Conv2d(3, 4, 4, padding="same"), (2, 3, 6, 6)),
    (nn.Conv2d(3, 4, 3, padding="valid"), (2, 3, 6, 6)),
    (nn.Conv1d(4, 6, 3, padding=1, groups=2), (2, 4, 9)),
    (nn.Conv2d(5, 5, 3, groups=5), (1, 5, 5, 5)),
    (nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2), (5, 4, 9, 8)),
    (nn.Conv2d(4, 6, (1, 3), groups=2, padding="same"), (5, 4, 5, 6)),
    (nn.Conv2d(4, 4, 2, groups=4, padding="valid"), (5, 4, 5, 6)),
    (nn.Conv1d(4, 6, 3, padding=2, stride=2), (5, 4, 9)),
    (nn.Conv1d(4, 6, 5, padding="same", groups=2), (5, 4, 9)),
]


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(("module", "shape"), CONVS)
def test_rows_times_weights_are_the_outputs_of_a_convolution(
    module: Any, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    image = torch.randn(shape)
    rows = rows_of(layer_of(module, image), image, module.weight, module.groups)
    kernels = module.weight.detach().reshape(module.groups, -1, rows.shape[-1])
    found = torch.einsum("gri,goi->rgo", rows, kernels).flatten(1)
    wanted = (module(image) - module.bias.reshape(-1, *[1] * (image.dim() - 2))).detach()
    torch.testing.assert_close(found, wanted.flatten(2).mT.flatten(0, 1))


def test_rows_of_a_linear_layer_are_its_inputs() -> None:
    module, image = nn.Linear(5, 3, bias=False), torch.randn(2, 4, 5)
    rows = rows_of(layer_of(module, image), image, module.weight, 1)
    torch.testing.assert_close(rows[0], image.reshape(8, 5))


def test_too_many_rows_are_left_out_at_random_and_each_time_the_same() -> None:
    module, image = nn.Linear(1, 1), torch.arange(MOST_ROWS + 9.0)[:, None]
    node = layer_of(module, image)
    rows = rows_of(node, image, module.weight, 1)
    assert rows.shape == (1, MOST_ROWS, 1)
    assert len(rows.unique()) == MOST_ROWS
    torch.testing.assert_close(rows, rows_of(node, image, module.weight, 1))


@pytest.mark.parametrize("centred", [False, True])
def test_the_factor_is_that_of_the_inverse_of_the_products(centred: bool) -> None:
    torch.manual_seed(0)
    rows = torch.randn(2, 500, 4, dtype=torch.float64) + 1
    inputs = LayerInputs()
    inputs.add(rows[:, :200], rows[:, :200] + 1)
    inputs.add(rows[:, 200:], rows[:, 200:] + 1)
    quantized, exact = inputs.means
    torch.testing.assert_close(quantized, rows.mean(1))
    torch.testing.assert_close(exact, rows.mean(1) + 1)
    moved = rows - rows.mean(1, keepdim=True) if centred else rows
    products = moved.mT @ moved / 500
    factor = inputs.inverse_factor(centred)
    torch.testing.assert_close(factor, factor.triu())
    inverse = factor.mT @ factor
    # A hundredth of the mean square is added, so that every matrix has an inverse.
    spread = products.diagonal(dim1=1, dim2=2).mean(1)
    power = (rows.mT @ rows / 500).diagonal(dim1=1, dim2=2).mean(1)
    damping = (0.01 * spread + 1e-8 * power)[:, None, None]
    damped = products + damping * torch.eye(4, dtype=torch.float64)
    identity = torch.eye(4, dtype=torch.float64).expand(2, 4, 4)
    torch.testing.assert_close(inverse @ damped, identity)


def test_inputs_that_are_zero_have_a_factor() -> None:
    inputs = LayerInputs()
    inputs.add(torch.zeros(1, 5, 3), torch.zeros(1, 5, 3))
    assert bool(inputs.inverse_factor(centred=True).isfinite().all())
