"""What to prune and how: plain functions on tensors and modules, with no Lightning in them."""

from lit_compress.pruning.layers import prunable_weights
from lit_compress.pruning.masks import magnitude_masks, pack, pruned_count, sparsity, unpack
from lit_compress.pruning.schedule import Schedule

__all__ = [
    "Schedule",
    "magnitude_masks",
    "pack",
    "prunable_weights",
    "pruned_count",
    "sparsity",
    "unpack",
]
