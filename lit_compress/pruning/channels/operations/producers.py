"""Operations that make channels: convolutions and matrix products."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from lit_compress.pruning.channels.operations.attention import contract, product_letters
from lit_compress.pruning.channels.operations.registry import handles, unknown
from lit_compress.pruning.channels.tracing.labels import UNLABELLED, spread
from lit_compress.pruning.channels.tracing.records import Call
from lit_compress.pruning.channels.tracing.trace import Trace


@handles("conv1d", "conv2d", "conv3d")
def conv(trace: Trace, call: Call) -> None:
    """Read the labels of a convolution's input and make new ones; if depthwise, pass them on."""
    image, weight, bias = (call.argument(i, n) for i, n in enumerate(("input", "weight", "bias")))
    groups = call.argument(6, "groups", 1)
    channel = image.dim() - weight.dim() + 1
    reads = _reads(trace, call, image, channel)
    _count(trace, weight, call.out, channel)
    if groups > 1 and weight.shape[1] == 1:
        makes = reads.repeat_interleave(weight.shape[0] // groups)
        trace.use(weight, 0, makes, "depthwise")
    else:
        makes = trace.labels.fresh(weight.shape[0])
        if groups > 1:
            reads = tie_groups(trace, call, reads, groups)
            tie_groups(trace, call, makes, groups)
            _keep_two(trace, weight, 1, 2)
        trace.use(weight, 1, reads, "input")
        trace.use(weight, 0, makes, "filter")
    _label_output(trace, call, weight=weight, bias=bias, makes=makes, dim=channel)


@handles("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(trace: Trace, call: Call) -> None:
    """Do the same for a transposed convolution, whose weight has shape (in, out / groups, ...)."""
    image, weight, bias = (call.argument(i, n) for i, n in enumerate(("input", "weight", "bias")))
    groups = call.argument(6, "groups", 1)
    channel = image.dim() - weight.dim() + 1
    reads = _reads(trace, call, image, channel)
    _count(trace, weight, image, channel)
    if groups > 1 and weight.shape[0] == groups:
        makes = reads.repeat_interleave(weight.shape[1])
        trace.use(weight, 0, reads, "depthwise")
    else:
        makes = trace.labels.fresh(weight.shape[1] * groups)
        if groups > 1:
            tie_groups(trace, call, reads, groups)
            _keep_two(trace, weight, 0, 2 * groups)
            tie_groups(trace, call, makes, groups)
        trace.use(weight, 0, reads, "input")
        trace.use(weight, 1, makes[: weight.shape[1]], "filter")
    _label_output(trace, call, weight=weight, bias=bias, makes=makes, dim=channel)


@handles("linear")
def linear(trace: Trace, call: Call) -> None:
    """Read the labels of a linear layer's input, and make new ones."""
    image, weight, bias = (call.argument(i, n) for i, n in enumerate(("input", "weight", "bias")))
    if weight.dim() != 2:
        return unknown(trace, call)
    reads = _reads(trace, call, image, image.dim() - 1)
    _count(trace, weight, call.out, call.out.dim() - 1)
    makes = trace.labels.fresh(weight.shape[0])
    trace.use(weight, 1, reads, "input")
    trace.use(weight, 0, makes, "filter")
    dim = call.out.dim() - 1
    return _label_output(trace, call, weight=weight, bias=bias, makes=makes, dim=dim)


@handles("matmul", "mm", "rmatmul")
def matmul(trace: Trace, call: Call) -> None:
    """Read and make labels in a product with a weight of shape (in, out); freeze other products."""
    left, right = call.argument(0, "input"), call.argument(1, "other")
    return _product(trace, call, left=left, right=right, bias=None)


@handles("addmm")
def addmm(trace: Trace, call: Call) -> None:
    """Do the same for a product with a bias, as in GPT-2's Conv1D."""
    bias, left, right = (call.argument(i, n) for i, n in enumerate(("input", "mat1", "mat2")))
    scaled = any(call.kwargs.get(factor, 1) != 1 for factor in ("alpha", "beta"))
    if scaled or bias.dim() != 1 or bias.shape[0] != call.out.shape[1]:
        return unknown(trace, call)
    return _product(trace, call, left=left, right=right, bias=bias)


def _product(trace: Trace, call: Call, *, left: Tensor, right: Tensor, bias: Tensor | None) -> None:
    if left.dim() < 2 or right.dim() < 2:
        return unknown(trace, call)
    if not trace.sources(right) or right.dim() != 2:
        return (
            unknown(trace, call)
            if bias is not None
            else contract(trace, call, (left, right), *product_letters(left, right))
        )
    reads = _reads(trace, call, left, left.dim() - 1)
    _count(trace, right, call.out, call.out.dim() - 1)
    makes = trace.labels.fresh(right.shape[1])
    trace.use(right, 0, reads, "input")
    trace.use(right, 1, makes, "filter")
    dim = call.out.dim() - 1
    return _label_output(trace, call, weight=right, bias=bias, makes=makes, dim=dim)


@handles("embedding")
def embedding(trace: Trace, call: Call) -> None:
    """Make labels along the columns of a table whose rows are looked up."""
    weight = call.argument(1, "weight")
    if not trace.sources(weight) or weight.dim() != 2:
        return unknown(trace, call)
    makes = trace.labels.fresh(weight.shape[1])
    trace.use(weight, 1, makes, "filter")
    dim = call.out.dim() - 1
    return _label_output(trace, call, weight=weight, bias=None, makes=makes, dim=dim)


def _reads(trace: Trace, call: Call, image: Tensor, dim: int) -> Tensor:
    """Return the labels of a layer's input along its channel dimension."""
    twin = trace.twin(image)
    if twin is None:
        return torch.full((image.shape[dim],), UNLABELLED, dtype=torch.int32)
    labels = trace.labels.along(
        twin, dim, call.reason("shares an input channel with channels that cannot be removed")
    )
    trace.read(image, call, dim, labels)
    return labels


def _label_output(
    trace: Trace, call: Call, *, weight: Tensor, bias: Tensor | None, makes: Tensor, dim: int
) -> None:
    """Record the use of a bias, and label the result along its channel dimension."""
    if bias is not None:
        trace.use(bias, 0, makes, "scale")
    if trace.sources(weight):
        trace.label(call.out, spread(makes, call.out.shape, dim))


def _count(trace: Trace, weight: Tensor, output: Tensor, dim: int) -> None:
    """Add the positions of a tensor, outside its channel dimension, to those of a weight.

    Positions where a part of the weight is applied, as that of the queries in a packed projection,
    count as that part.
    """
    for name in trace.sources(weight)[:1]:
        count = trace.recording.positions
        part = Fraction(weight.numel(), trace.tensors[name].numel())
        count[name] = count.get(name, Fraction()) + part * (output.numel() // output.shape[dim])


def tie_groups(trace: Trace, call: Call, labels: Tensor, groups: int) -> Tensor:
    """Tie the same position of all groups, so that they stay equal; return the first group."""
    table = labels.view(groups, -1)
    why = call.reason("is tied to the same position of another group of a grouped convolution")
    trace.labels.tie(table, table[:1].expand(table.shape), why)
    return table[0]


def _keep_two(trace: Trace, weight: Tensor, dim: int, least: int) -> None:
    """Keep two inputs in each group: with one, a grouped convolution would look depthwise."""
    for name in trace.sources(weight)[:1]:
        trace.recording.min_indices[name, dim] = least
