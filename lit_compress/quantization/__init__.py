"""Post-training quantisation of a module to an int8 ONNX file, with no Lightning in it."""

from lit_compress.quantization.calibrate import CALIBRATIONS, Calibration, calibrate
from lit_compress.quantization.convert import Embedded, quantize
from lit_compress.quantization.export import BATCH, capture, write_onnx
from lit_compress.quantization.fidelity import agreement, sqnr_db

__all__ = [
    "BATCH",
    "CALIBRATIONS",
    "Calibration",
    "Embedded",
    "agreement",
    "calibrate",
    "capture",
    "quantize",
    "sqnr_db",
    "write_onnx",
]
