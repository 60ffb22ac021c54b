"""Measure the cost of a network: parameters, non-zeros, MACs, bytes and latency.

- Count: :func:`cost`, :func:`onnx_counts`, :func:`int8_share`.
- Size: :func:`file_bytes`, :func:`deflated_bytes`, :func:`state_bytes`.
- Time: :func:`compare`, :func:`module_runner`.
- :func:`environment` describes the machine of a measurement.
"""

from lit_compress.measure.cost import Cost, LayerCost, cost
from lit_compress.measure.int8_share import int8_share
from lit_compress.measure.latency import Latency, compare
from lit_compress.measure.size import deflated_bytes, file_bytes, onnx_counts, state_bytes
from lit_compress.measure.torch_runner import module_runner
from lit_compress.timing.environment import environment
from lit_compress.timing.intervals import Speedup

__all__ = [
    "Cost",
    "Latency",
    "LayerCost",
    "Speedup",
    "compare",
    "cost",
    "deflated_bytes",
    "environment",
    "file_bytes",
    "int8_share",
    "module_runner",
    "onnx_counts",
    "state_bytes",
]
