"""The error that each layer alone causes: one weight or activation quantised at a time."""

from lit_compress.quantization.layer_noise.measure import layer_noise
from lit_compress.quantization.layer_noise.result import LayerNoise

__all__ = ["LayerNoise", "layer_noise"]
