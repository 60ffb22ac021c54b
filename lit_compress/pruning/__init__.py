"""Pruning on plain tensors and modules, without Lightning.

- Zero single weights: :func:`prunable_weights`, :func:`magnitude_masks`, :func:`sparsity`.
- Remove whole channels: :func:`analyse`, :func:`make_plan`, :func:`apply`.
- Decide when to prune, and rank filters: :class:`Schedule`, :class:`Importance`.
"""

from lit_compress.pruning.channels.analysis import analyse
from lit_compress.pruning.channels.graph import ChannelGraph, Frozen, Group, Slice
from lit_compress.pruning.channels.plan import Cut, Plan, make_plan, restrict
from lit_compress.pruning.channels.surgery import apply
from lit_compress.pruning.importance import Importance
from lit_compress.pruning.layers import prunable_weights
from lit_compress.pruning.masks import magnitude_masks, pack, pruned_count, sparsity, unpack
from lit_compress.pruning.schedule import Schedule

__all__ = [
    "ChannelGraph",
    "Cut",
    "Frozen",
    "Group",
    "Importance",
    "Plan",
    "Schedule",
    "Slice",
    "analyse",
    "apply",
    "magnitude_masks",
    "make_plan",
    "pack",
    "prunable_weights",
    "pruned_count",
    "restrict",
    "sparsity",
    "unpack",
]
