"""Equalisation: channels of one activation brought nearer to one range, without any other change.

An activation has one range, so a channel that is 64 times smaller than the largest is left two of
its eight bits. What makes a channel is divided by a number, and what reads it multiplied: between
them stand only operations that let a positive factor pass (Nagel et al. 2019, arXiv 1906.04721,
section 4.1). A share of the difference is moved into the weights (Xiao et al. 2023, arXiv
2211.10438, whose alpha it is), all of it where a filter reads one channel: its range is its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter

import torch
from torch import Tensor
from torch.fx import GraphModule

from lit_compress.export.signature import Batch, as_tuple, first_rows
from lit_compress.quantization.calibrate import WeightRange
from lit_compress.quantization.observers import LARGEST
from lit_compress.quantization.rewrites.channel_flow import ChannelFlow
from lit_compress.quantization.rewrites.channel_ranges import Ranges
from lit_compress.quantization.rewrites.channel_scales import channel_scales


def equalize(
    graph: GraphModule, batches: Sequence[Batch], weight_range: WeightRange = "full"
) -> dict[str, Tensor]:
    """Bring the channels of a captured graph nearer to one range; what it computes stays the same.

    Args:
        graph: The graph; its weights are changed in place.
        batches: What the ranges are taken from.
        weight_range: How far its weights will reach.

    Returns:
        By name of a tensor that was scaled, what it was multiplied with.
    """
    flow = ChannelFlow(graph)
    ranges = Ranges(graph, flow.made)
    try:
        with torch.no_grad():
            flow.run(*first_rows([as_tuple(batches[0])], 2))
            for batch in batches:
                ranges.run(*as_tuple(batch))
    except (
        RuntimeError,
        ValueError,
        IndexError,
    ):  # the calibration runs them too, and says what is wrong
        return {}
    seen = ranges.seen(flow.count)
    if not bool(seen.magnitude.isfinite().all()):
        return {}
    with torch.no_grad():
        factors = flow.factors(channel_scales(flow, seen, LARGEST[weight_range]))
    scale_tensors(graph, factors)
    return factors


def scale_tensors(graph: GraphModule, factors: Mapping[str, Tensor]) -> None:
    """Multiply weights of a graph.

    Args:
        graph: The graph; its weights are changed in place.
        factors: What :func:`equalize` returned for a graph of the same network.
    """
    with torch.no_grad():
        for name, factor in factors.items():
            attrgetter(name)(graph).mul_(factor)
