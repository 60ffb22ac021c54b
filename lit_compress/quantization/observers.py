"""Observers: how the range of an activation or weight is taken from its observed values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lit_compress.quantization.calibrate import Calibration, WeightRange
from lit_compress.quantization.pt2e import (
    FixedQParamsObserver,
    HistogramObserver,
    MinMaxObserver,
    PerChannelMinMaxObserver,
)

#: Smallest scale: keeps that of an all-zero tensor above 0. It must not depend on the unit of the
#: inputs (https://github.com/pytorch/pytorch/issues/90288): weights that take out a unit of 1e6 are
#: about 1e-7. The product of two such scales is still a normal float32. A bias that would need
#: more steps than int32 has gets a wider weight range, see ``rewrites/biases.py``.
EPS = 2**-60
#: Largest magnitude of a quantised weight. Processors without VNNI add two products of uint8
#: activations and int8 weights in 16 bits (https://github.com/microsoft/onnxruntime/issues/14642);
#: 2 * 255 * 64 fits, 2 * 255 * 127 does not.
LARGEST: dict[WeightRange, int] = {"full": 127, "reduced": 64}
#: Share of the observed values that a ``percentile`` range excludes at each end.
TAIL = 5e-5


class PercentileObserver(HistogramObserver):  # type: ignore[misc]
    """Observer whose range excludes the share ``TAIL`` of the values at each end."""

    def _non_linear_param_search(self) -> tuple[Tensor, Tensor]:
        """Return the range as (low, high). torchao calls this method by its name."""
        width = (self.max_val - self.min_val) / self.bins
        below = torch.cumsum(self.histogram, 0) / self.histogram.sum()
        first = int((below < TAIL).sum())
        last = int((below < 1 - TAIL).sum())
        return self.min_val + width * first, self.min_val + width * (last + 1)


OBSERVERS: dict[Calibration, Any] = {
    "histogram": HistogramObserver,
    "minmax": MinMaxObserver,
    "percentile": PercentileObserver,
}


def activation_observer(calibration: Calibration) -> nn.Module:
    """Return an observer of uint8 activations: affine, one range per tensor.

    Args:
        calibration: How the range is taken from the observed values.
    """
    observer: nn.Module = OBSERVERS[calibration](
        dtype=torch.uint8,
        qscheme=torch.per_tensor_affine,
        quant_min=0,
        quant_max=255,
        eps=EPS,
    )
    return observer


def weight_observer(axis: int, weight_range: WeightRange) -> nn.Module:
    """Return an observer of int8 weights: symmetric, one range per output channel.

    Args:
        axis: Axis of the weight that holds the output channels.
        weight_range: Largest magnitude of the int8 weights.
    """
    largest = LARGEST[weight_range]
    observer: nn.Module = PerChannelMinMaxObserver(
        ch_axis=axis,
        dtype=torch.int8,
        qscheme=torch.per_channel_symmetric,
        quant_min=-largest,
        quant_max=largest,
        eps=EPS,
    )
    return observer


def fixed_observer(scale: float, zero_point: int) -> nn.Module:
    """Return an observer of uint8 activations that does not observe: its range is fixed.

    Args:
        scale: The step between two numbers.
        zero_point: The number that means zero, 0 to 255.
    """
    observer: nn.Module = FixedQParamsObserver(
        scale=scale,
        zero_point=zero_point,
        dtype=torch.uint8,
        qscheme=torch.per_tensor_affine,
        quant_min=0,
        quant_max=255,
    )
    return observer


def fake_quantize(observer: Any, value: Tensor) -> Tensor:
    """Quantise and dequantise a tensor with the range of a calibrated observer.

    Args:
        observer: Calibrated observer of the tensor.
        value: The float tensor.

    Example:
        >>> observer = activation_observer("minmax")
        >>> values = observer(torch.tensor([0.0, 0.1, 255.0]))
        >>> fake_quantize(observer, values)
        tensor([  0.,   0., 255.])
    """
    scale, zero_point = observer.calculate_qparams()
    low, high = observer.quant_min, observer.quant_max
    if isinstance(observer, PerChannelMinMaxObserver):
        return torch.fake_quantize_per_channel_affine(
            value,
            scale,
            zero_point.int(),
            axis=observer.ch_axis,
            quant_min=low,
            quant_max=high,
        )
    return torch.fake_quantize_per_tensor_affine(value, float(scale), int(zero_point), low, high)
