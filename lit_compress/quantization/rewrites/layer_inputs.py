"""What the inputs of a layer are like: sums over the numbers that each output is made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from lit_compress.quantization.operations import aten

#: Rows of a batch that are taken of one layer; the rest are left out at random.
MOST_ROWS = 20_000
#: Share of the mean square of inputs that is added to each.
DAMPING = 0.01
#: Share of the mean square that sums in float64 may be wrong by, and the least that is added.
ROUNDING, LEAST = 1e-8, 1e-30


class LayerInputs:
    """Sums over the inputs of a layer, of shape (group, input) and (group, input, input)."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: Any = 0.0
        self._exact: Any = 0.0
        self._products: Any = 0.0

    def add(self, quantized: Tensor, exact: Tensor) -> None:
        """Add rows of inputs, as they are when quantised and as they are in float."""
        self._count += quantized.shape[1]
        self._sums = self._sums + quantized.double().sum(1)
        self._exact = self._exact + exact.double().sum(1)
        self._products = self._products + quantized.double().mT @ quantized.double()

    @property
    def means(self) -> tuple[Tensor, Tensor]:
        """The means of the quantised inputs, and of those in float."""
        return self._sums / self._count, self._exact / self._count

    def inverse_factor(self, centred: bool) -> Tensor:
        """Return the upper triangular factor of the inverse of the mean products of two inputs.

        Args:
            centred: Whether products are those of the differences from the means.
        """
        products, mean = self._products / self._count, self.means[0]
        power = products.diagonal(dim1=1, dim2=2).mean(1)
        if centred:
            products = products - mean[..., None] * mean[:, None]
        spread = products.diagonal(dim1=1, dim2=2).mean(1)
        damping = (DAMPING * spread + ROUNDING * power).clamp(min=LEAST)
        identity = torch.eye(products.shape[-1], dtype=torch.float64)
        damped = products + damping[:, None, None] * identity
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
        found: Tensor = torch.linalg.cholesky(inverse, upper=True)
        return found


def rows_of(layer: Node, image: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Return the inputs of a layer in rows, of shape (group, row, input); at most ``MOST_ROWS``."""
    if layer.target is aten.linear.default:
        rows = image.reshape(1, -1, image.shape[-1])
    else:
        rows = _patches(layer, image, weight, groups)
    if rows.shape[1] > MOST_ROWS:
        generator = torch.Generator().manual_seed(0)
        rows = rows[:, torch.randperm(rows.shape[1], generator=generator)[:MOST_ROWS]]
    return rows


def _patches(layer: Node, image: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Return the patches under a convolution's kernel, of shape (group, row, input)."""
    kernel: Any = weight.shape[2:]
    stride, padding, dilation = (
        _each(argument(layer, position, default), len(kernel))
        for position, default in ((3, 1), (4, 0), (5, 1))
    )
    if image.dim() == len(kernel) + 1:
        image = image[None]
    if len(kernel) == 1:
        image, kernel = image[:, :, None], (1, *kernel)
        stride, padding, dilation = [1, *stride], [0, *padding], [1, *dilation]
    if layer.target in (aten.conv1d.padding, aten.conv2d.padding):
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        same = argument(layer, 4, "valid") == "same"
        sides = [side for one in reversed(total) for side in (one // 2, one - one // 2)]
        image, padding = nn.functional.pad(image, sides) if same else image, [0, 0]
    patches = nn.functional.unfold(
        image, tuple(kernel), tuple(dilation), tuple(padding), tuple(stride)
    )
    count, _, places = patches.shape
    grouped = patches.reshape(count, groups, -1, places).permute(1, 0, 3, 2)
    return grouped.reshape(groups, count * places, -1)


def argument(layer: Node, position: int, default: Any) -> Any:
    """Return an argument of a node by its position."""
    return layer.args[position] if len(layer.args) > position else default


def _each(value: Any, count: int) -> list[int]:
    """Return a value for each dimension; a word stands for none."""
    if isinstance(value, int):
        return [value] * count
    return [0] * count if isinstance(value, str) else list(value) * (count // len(value))
