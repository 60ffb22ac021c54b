"""Post-training quantisation of a module to an int8 ONNX file, with no Lightning in it.

What needs torchao is imported when it is first used: that takes as long as importing torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lit_compress.quantization.calibrate import Calibration, WeightRange, calibrate
from lit_compress.quantization.layer_noise import LayerNoise
from lit_compress.quantization.search import SearchResult, candidates, fewest_floats
from lit_compress.quantization.skip import select_layers

if TYPE_CHECKING:
    from lit_compress.quantization.convert import Calibrated, WithPreprocessing, quantize

_LAZY = ("Calibrated", "WithPreprocessing", "quantize")

__all__ = [
    "Calibrated",
    "Calibration",
    "LayerNoise",
    "SearchResult",
    "WeightRange",
    "WithPreprocessing",
    "calibrate",
    "candidates",
    "fewest_floats",
    "quantize",
    "select_layers",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module("lit_compress.quantization.convert"), name)
    raise AttributeError(f"module 'lit_compress.quantization' has no attribute {name!r}")
