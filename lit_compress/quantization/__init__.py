"""Post-training quantisation of a module to int8, without Lightning.

- Quantise: :func:`quantize`, or :class:`Calibrated` to try several sets of float layers.
- Find the layers that cause the error: :class:`LayerNoise`, :func:`candidates`,
  :func:`fewest_floats`.
- Name layers that stay float: :func:`select_layers`.

Names that need torchao are imported on first use: importing torchao takes as long as importing
torch.
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

#: Names that need torchao.
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
