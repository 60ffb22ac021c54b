"""What a network costs: parameters, non-zeros, MACs, bytes and latency."""

from lit_compress.measure.cost import Cost, LayerCost, cost
from lit_compress.measure.environment import environment
from lit_compress.measure.latency import Latency, Speedup, compare, module_runner
from lit_compress.measure.size import deflated_bytes, file_bytes, onnx_counts, state_bytes

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
    "module_runner",
    "onnx_counts",
    "state_bytes",
]
