"""The names of torchao that this package uses, imported without a deprecation warning.

On import, torchao 0.18 registers an Enum with ``torch.utils._pytree``. torch 2.14 logs a
deprecation warning for each registration (https://github.com/pytorch/ao/issues/4848).
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
