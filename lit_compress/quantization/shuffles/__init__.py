"""Leave out channel shuffles, as in ShuffleNet, where convolutions can take their place."""

from lit_compress.quantization.shuffles.fold import fold_shuffles

__all__ = ["fold_shuffles"]
