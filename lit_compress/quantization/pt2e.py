"""The part of torchao that is used here, imported without its notice on every start.

torchao 0.18 registers an Enum with ``torch.utils._pytree``, which torch 2.14 reports as
deprecated, to the log, at each import.
"""

from __future__ import annotations

import logging

_logger = logging.getLogger("torch.utils._pytree")
_level = _logger.level
_logger.setLevel(logging.ERROR)
try:
    from torchao.quantization.pt2e import (
        FixedQParamsObserver,
        HistogramObserver,
        MinMaxObserver,
        PerChannelMinMaxObserver,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
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
    "convert_pt2e",
    "prepare_pt2e",
]
