"""What to prune and how: plain functions on tensors and modules, with no Lightning in them."""

from lit_compress.pruning.channels import analyse
from lit_compress.pruning.graph import ChannelGraph, Frozen, Group, Slice
from lit_compress.pruning.importance import Importance
from lit_compress.pruning.layers import prunable_weights
from lit_compress.pruning.masks import magnitude_masks, pack, pruned_count, sparsity, unpack
from lit_compress.pruning.plan import Cut, Plan, make_plan, restrict
from lit_compress.pruning.schedule import Schedule
from lit_compress.pruning.surgery import apply

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
