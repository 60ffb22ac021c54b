"""Operations on single channels: norms, and activations with one weight for each channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_compress.pruning.channels.operations.registry import handles, unknown
from lit_compress.pruning.channels.tracing.labels import UNLABELLED, spread, varying
from lit_compress.pruning.channels.tracing.records import Call
from lit_compress.pruning.channels.tracing.trace import Trace


@handles("batch_norm", "instance_norm", "prelu")
def per_channel(trace: Trace, call: Call) -> None:
    """Pass labels through an operation that works on each channel separately."""
    image = call.args[0] if call.args else call.kwargs["input"]
    twin = trace.twin(image)
    dim = 1 if image.dim() > 1 else 0
    if call.name == "instance_norm" and twin is not None and set(varying(twin)) - {0, 1}:
        return unknown(trace, call)
    others = [t for t in call.tensors() if t is not image and t.dim() == 1]
    if call.name == "prelu" and all(t.numel() == 1 for t in others):
        return None if twin is None else trace.label(call.out, twin)
    if twin is None:
        labels = torch.full((image.shape[dim],), UNLABELLED, dtype=torch.int32)
    else:
        labels = trace.labels.along(twin, dim, call.reason("shares a channel of the norm"))
    for tensor in others:
        trace.use(tensor, 0, labels, "scale")
    if not others:
        _record_width(trace, labels)
    if twin is not None:
        trace.label(call.out, spread(labels, call.out.shape, dim))
    return None


@handles("group_norm")
def group_norm(trace: Trace, call: Call) -> None:
    """Pass labels through a group norm, and tie the channels of each of its groups."""
    image, groups = call.argument(0, "input"), call.argument(1, "num_groups")
    twin = trace.twin(image)
    if twin is None:
        return None
    if groups == 1 or set(varying(twin)) - {0, 1}:
        trace.freeze(image, call.reason("passes through a group norm over all channels"))
        return None
    labels = trace.labels.along(twin, 1, call.reason("shares a channel of the norm"))
    table = labels.view(groups, -1)
    why = call.reason("shares a group of a group norm")
    trace.labels.tie(table, table[:, :1].expand(table.shape), why)
    weight, bias = call.argument(2, "weight"), call.argument(3, "bias")
    for tensor in (weight, bias):
        trace.use(tensor, 0, labels, "scale")
    if weight is None:
        _record_width(trace, labels)
    return trace.label(call.out, spread(labels, call.out.shape, 1))


def _record_width(trace: Trace, labels: Tensor) -> None:
    """Record a norm module that has a width, but no parameters and buffers."""
    if trace.modules and isinstance(
        trace.modules[-1][1], (nn.modules.batchnorm._NormBase, nn.GroupNorm)
    ):
        name = trace.modules[-1][0]
        trace.width(name, labels, trace.reason(f"{name} is used more than once"))
