"""How long an int8 layer takes on this machine, by its shape."""

from lit_compress.layer_times.layer import Layer, layers_of
from lit_compress.layer_times.rounding import free_multiple
from lit_compress.layer_times.table import LayerTimes

__all__ = ["Layer", "LayerTimes", "free_multiple", "layers_of"]
