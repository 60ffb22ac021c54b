"""How a range is taken from what was seen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lit_compress.quantization.calibrate import Calibration, WeightRange
from lit_compress.quantization.pt2e import (
    HistogramObserver,
    MinMaxObserver,
    PerChannelMinMaxObserver,
)

#: Least scale: an all-zero tensor has one too, and sums of products stay within 32 bits.
EPS = 2**-16
#: Largest weight: at 64, the sum of two products with activations of 255 fits 16 bits.
LARGEST: dict[WeightRange, int] = {"full": 127, "reduced": 64}
#: Share of what was seen that a ``percentile`` range leaves out on either side.
TAIL = 5e-5


class PercentileObserver(HistogramObserver):  # type: ignore[misc]
    """Takes the range that all but the outermost ``TAIL`` of the values on either side are in."""

    def _non_linear_param_search(self) -> tuple[Tensor, Tensor]:
        """Return the range; named by torchao, which calls it in the place of its own search."""
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
    """Return an observer of uint8 activations, affine, one range a tensor."""
    observer: nn.Module = OBSERVERS[calibration](
        dtype=torch.uint8,
        qscheme=torch.per_tensor_affine,
        quant_min=0,
        quant_max=255,
        eps=EPS,
    )
    return observer


def weight_observer(axis: int, weight_range: WeightRange) -> nn.Module:
    """Return an observer of int8 weights, symmetric, one range a channel of ``axis``."""
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


def faked(observer: Any, value: Tensor) -> Tensor:
    """Return a float tensor rounded as a calibrated observer of it would have it quantised."""
    scale, zero_point = observer.calculate_qparams()
    low, high = observer.quant_min, observer.quant_max
    if isinstance(observer, PerChannelMinMaxObserver):
        return torch.fake_quantize_per_channel_affine(
            value, scale, zero_point.int(), observer.ch_axis, low, high
        )
    return torch.fake_quantize_per_tensor_affine(value, float(scale), int(zero_point), low, high)
