"""Fake quantisation that gradients pass through: values are rounded as in the int8 file.

Gradients pass straight through the rounding (Bengio et al. 2013, arXiv 1308.3432), and stop where a
value is outside of its range. ``torch.fake_quantize_per_tensor_affine`` does the same one number at
a time, which takes about five times as long on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_compress.quantization.observers import EPS

#: Largest uint8 number.
TOP = 255


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, scale: float, zero_point: int) -> Tensor:
        ctx.save_for_backward(value)
        ctx.limits = (-zero_point - 0.5) * scale, (TOP - zero_point + 0.5) * scale
        steps = torch.div(value.float(), scale).round_()
        return steps.clamp_(-zero_point, TOP - zero_point).mul_(scale).to(value.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (value,) = ctx.saved_tensors
        low, high = ctx.limits
        inside = torch.ops.aten.hardtanh_backward(gradients[0], value, low, high)
        return inside, None, None


class _Weight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, axis: int, largest: int) -> Tensor:
        others = [dim for dim in range(weight.dim()) if dim != axis]
        scale = weight.abs().amax(others, keepdim=True).div_(largest).clamp_(min=EPS)
        steps = torch.mul(weight, 1.0 / scale).round_().clamp_(-largest, largest)
        return steps.mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0], None, None


def round_activation(value: Tensor, scale: float, zero_point: int) -> Tensor:
    """Return an activation as uint8 would hold it.

    Args:
        value: The activation.
        scale: The step between two numbers.
        zero_point: The number that means zero, 0 to 255.

    Returns:
        A tensor of the same shape and type. Its gradient is that of the value inside the range.

    Example:
        >>> round_activation(torch.tensor([-0.3, 0.26, 99.0]), scale=0.5, zero_point=0)
        tensor([ 0.0000,  0.5000, 99.0000])
    """
    found: Tensor = _Activation.apply(value, scale, zero_point)
    return found


def round_weight(weight: Tensor, axis: int, largest: int) -> Tensor:
    """Return a weight as int8 would hold it, with a scale for each output channel.

    Args:
        weight: The weight.
        axis: Axis of the output channels.
        largest: Largest int8 magnitude, 127 or 64.

    Returns:
        A tensor of the same shape. Its gradient is that of the weight.

    Example:
        >>> round_weight(torch.tensor([[1.27, 0.004], [0.0, 0.0]]), axis=0, largest=127)
        tensor([[1.2700, 0.0000],
                [0.0000, 0.0000]])
    """
    found: Tensor = _Weight.apply(weight, axis, largest)
    return found
