"""Post-training quantisation of a module to an int8 ONNX file, with no Lightning in it.

What needs torchao is imported when it is first used: that takes as long as importing torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lit_compress.quantization.calibrate import (
    Batch,
    Calibration,
    WeightRange,
    as_tuple,
    calibrate,
)
from lit_compress.quantization.search import Found, candidates, fewest_floats
from lit_compress.quantization.sensitivity import LayerNoise
from lit_compress.quantization.signature import Flat, Signature, first_rows
from lit_compress.quantization.skip import select_layers

if TYPE_CHECKING:
    from lit_compress.quantization.convert import Calibrated, Embedded, quantize
    from lit_compress.quantization.export import BATCH, capture, write_onnx

_HOME = {
    "BATCH": "export",
    "Calibrated": "convert",
    "Embedded": "convert",
    "capture": "export",
    "quantize": "convert",
    "write_onnx": "export",
}

__all__ = [
    "BATCH",
    "Batch",
    "Calibrated",
    "Calibration",
    "Embedded",
    "Flat",
    "Found",
    "LayerNoise",
    "Signature",
    "WeightRange",
    "as_tuple",
    "calibrate",
    "candidates",
    "capture",
    "fewest_floats",
    "first_rows",
    "quantize",
    "select_layers",
    "write_onnx",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"lit_compress.quantization.{_HOME[name]}"), name)
    raise AttributeError(f"module 'lit_compress.quantization' has no attribute {name!r}")
