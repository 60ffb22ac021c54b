"""The parts of torchao that this package uses, imported without a deprecation warning.

On import, torchao 0.18 registers an Enum with ``torch.utils._pytree``. torch 2.14 logs a
deprecation warning for each registration (https://github.com/pytorch/ao/issues/4848).

torchao and torch ask for the device of a graph through two unbounded caches that hold the graph as
their key, so that each conversion would leave a whole network in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.ao.quantization.fx import utils as torch_caches
from torch.fx import GraphModule

_logger = logging.getLogger("torch.utils._pytree")
_level = _logger.level
_logger.setLevel(logging.ERROR)
try:
    from torchao import utils as torchao_caches
    from torchao.quantization.pt2e import (
        FixedQParamsObserver,
        HistogramObserver,
        MinMaxObserver,
        PerChannelMinMaxObserver,
        quantize_pt2e,
    )
    from torchao.quantization.pt2e.quantizer import (
        QuantizationAnnotation,
        QuantizationSpec,
        Quantizer,
    )
finally:
    _logger.setLevel(_level)

__all__ = [
    "FixedQParamsObserver",
    "HistogramObserver",
    "MinMaxObserver",
    "PerChannelMinMaxObserver",
    "QuantizationAnnotation",
    "QuantizationSpec",
    "Quantizer",
    "convert",
    "prepare",
]


def prepare(graph: GraphModule, quantizer: Quantizer) -> GraphModule:
    """Insert observers into a captured graph, as torchao's ``prepare_pt2e`` does.

    Args:
        graph: The graph; it is changed.
        quantizer: Says where the observers go.
    """
    with _nothing_kept():
        prepared: GraphModule = quantize_pt2e.prepare_pt2e(graph, quantizer)
    return prepared


def convert(prepared: GraphModule) -> GraphModule:
    """Convert a calibrated graph, as torchao's ``convert_pt2e`` does.

    Its search for the patterns of quantization-aware training is left out: none of them is in the
    graph, and for a network with a batch norm that follows no convolution the search traces each
    pattern again, which takes 30 s.

    Args:
        prepared: The graph with observers; it is changed.
    """
    steps: Any = quantize_pt2e
    meta = prepared.meta
    with _nothing_kept(), torch.no_grad():
        graph = steps._convert_to_reference_decomposed_fx(prepared)
        for change in (steps.DuplicateDQPass(), steps.PortNodeMetaForQDQ()):
            graph = change(graph).graph_module
        steps.constant_fold(graph, steps._quant_node_constraint)
    graph.meta.update(meta)
    converted: GraphModule = steps._disallow_eval_train(graph)
    return converted


@contextmanager
def _nothing_kept() -> Iterator[None]:
    """Empty the two caches that would hold a graph for good; what they say is found again."""
    try:
        yield
    finally:
        torchao_caches._assert_and_get_unique_device.cache_clear()
        torch_caches.assert_and_get_unique_device.cache_clear()
