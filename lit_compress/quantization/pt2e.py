"""The names of torchao that this package uses, imported without a deprecation warning.

On import, torchao 0.18 registers an Enum with ``torch.utils._pytree``. torch 2.14 logs a
deprecation warning for each registration (https://github.com/pytorch/ao/issues/4848).
"""

from __future__ import annotations

import logging
from typing import Any

from torch.fx import GraphModule

_logger = logging.getLogger("torch.utils._pytree")
_level = _logger.level
_logger.setLevel(logging.ERROR)
try:
    from torchao.quantization.pt2e import (
        FixedQParamsObserver,
        HistogramObserver,
        MinMaxObserver,
        PerChannelMinMaxObserver,
        quantize_pt2e,
    )
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e
    from torchao.quantization.pt2e.quantizer import (
        QuantizationAnnotation,
        QuantizationSpec,
        Quantizer,
    )
finally:
    _logger.setLevel(_level)

__all__ = [
    "FixedQParamsObserver",
    "HistogramObserver",
    "MinMaxObserver",
    "PerChannelMinMaxObserver",
    "QuantizationAnnotation",
    "QuantizationSpec",
    "Quantizer",
    "convert",
    "prepare_pt2e",
]


def convert(prepared: GraphModule) -> GraphModule:
    """Convert a calibrated graph, as torchao's ``convert_pt2e`` does.

    Its search for the patterns of quantization-aware training is left out: none of them is in the
    graph, and for a network with a batch norm that follows no convolution the search traces each
    pattern again, which takes 30 s.

    Args:
        prepared: The graph with observers; it is changed.
    """
    private: Any = quantize_pt2e
    search = private._fold_conv_bn_qat
    private._fold_conv_bn_qat = lambda graph: graph
    try:
        converted: GraphModule = private.convert_pt2e(prepared)
    finally:
        private._fold_conv_bn_qat = search
    return converted
