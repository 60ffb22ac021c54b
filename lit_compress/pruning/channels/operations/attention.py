"""Attention: products of two activations, in which a head is removed as a whole.

A product of queries and keys sums over the indices of a head, and each of its results depends on
all of them. So the indices that are summed are tied, and what is left to remove are whole heads: a
head of the queries together with the same head of the keys and of the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from string import ascii_letters

import torch
from torch import Tensor

from lit_compress.pruning.channels.operations.registry import handles, unknown
from lit_compress.pruning.channels.tracing.labels import UNLABELLED, core, varying
from lit_compress.pruning.channels.tracing.records import Call, Multiplied
from lit_compress.pruning.channels.tracing.trace import Trace

HEAD = "shares a head of an attention"


@handles("average_over_heads")
def forget(trace: Trace, call: Call) -> None:
    """Give the average of attention weights no labels.

    The average of the heads that are left is another number than that of all. Where an output of
    the network depends on it, a trial shows that, and the heads stay.
    """


@handles("scaled_dot_product_attention")
def attention(trace: Trace, call: Call) -> None:
    """Tie each head of the queries, keys and values, and label the result by heads."""
    query, key, value = (call.argument(i, n) for i, n in enumerate(("query", "key", "value")))
    if all(trace.twin(tensor) is None for tensor in (query, key, value)):
        return None
    why = call.reason(HEAD)
    heads = [_heads(trace, call, tensor, query) for tensor in (query, key, value)]
    for other in heads[1:]:
        trace.labels.tie(heads[0], other, why)
    _tie_mask(trace, call, heads[0])
    macs = prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])
    trace.recording.products.append(Multiplied(macs, tuple(map(core, heads))))
    return trace.label(call.out, heads[2].expand(call.out.shape))


def _heads(trace: Trace, call: Call, tensor: Tensor, query: Tensor) -> Tensor:
    """Return the labels of a tensor by heads, of shape (..., heads, 1, 1)."""
    twin = trace.twin(tensor)
    if twin is None:
        small = torch.full((*tensor.shape[:-2], 1, 1), UNLABELLED, dtype=torch.int32)
    else:
        dims = {tensor.dim() - 2, tensor.dim() - 1}
        small = trace.labels.collapse(twin, dims, call.reason(HEAD))
        small = small.narrow(-1, 0, 1).narrow(-2, 0, 1)
    if tensor.dim() > 2 and small.shape[-3] != query.shape[-3]:  # fewer heads of keys than queries
        small = small.repeat_interleave(query.shape[-3] // small.shape[-3], -3)
    return small


def _tie_mask(trace: Trace, call: Call, heads: Tensor) -> None:
    """Tie a mask or bias that has one value for each head."""
    mask = call.argument(3, "attn_mask")
    if not isinstance(mask, Tensor) or mask.dim() < 3 or mask.shape[-3] == 1:
        return
    labels = trace.labels.along(heads, heads.dim() - 3, call.reason(HEAD))
    twin = trace.twin(mask)
    if twin is not None:
        own = trace.labels.along(twin, mask.dim() - 3, call.reason(HEAD))
        trace.labels.tie(labels, own, call.reason(HEAD))
    elif not trace.follow(mask, mask.dim() - 3, labels):
        trace.labels.freeze(labels, call.reason("has a mask of fixed size for each head"))


@handles("bmm", "baddbmm")
def batched(trace: Trace, call: Call) -> None:
    """Follow heads through a product of two batches of matrices."""
    first = 1 if call.name == "baddbmm" else 0
    if first and trace.twin(call.args[0]) is not None:
        return unknown(trace, call)
    names = ("batch1", "batch2") if first else ("input", "mat2")
    left, right = (call.argument(first + i, name) for i, name in enumerate(names))
    return contract(trace, call, (left, right), ("aij", "ajk"), "aik")


@handles("einsum")
def einsum(trace: Trace, call: Call) -> None:
    """Follow heads through a product that is written with letters."""
    equation, *operands = call.args
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = list(operands[0])
    if not isinstance(equation, str) or "." in equation or "->" not in equation:
        return unknown(trace, call)
    inputs, _, output = equation.replace(" ", "").partition("->")
    letters = inputs.split(",")
    repeated = any(len(set(each)) < len(each) for each in (*letters, output))
    if len(operands) != 2 or len(letters) != 2 or repeated:
        return unknown(trace, call)
    return contract(trace, call, operands, letters, output)


def product_letters(left: Tensor, right: Tensor) -> tuple[tuple[str, str], str]:
    """Return the letters of a matrix product of two tensors with at least two dimensions."""
    batch = max(left.dim(), right.dim()) - 2
    named = ascii_letters[:batch]
    i, j, k = (ascii_letters[batch + at] for at in range(3))
    mine = named[batch - left.dim() + 2 :] + i + j
    theirs = named[batch - right.dim() + 2 :] + j + k
    return (mine, theirs), named + i + k


def contract(
    trace: Trace, call: Call, operands: Sequence[Tensor], letters: Sequence[str], output: str
) -> None:
    """Follow labels through a product of two tensors whose dimensions have letters.

    Args:
        trace: The trace.
        call: The call.
        operands: The two factors.
        letters: Letters of their dimensions; a letter that the output lacks is summed.
        output: Letters of the result.
    """
    twins = [trace.twin(tensor) for tensor in operands]
    if all(twin is None for twin in twins):
        return unknown(trace, call) if any(map(trace.name, operands)) else None
    parts = []
    for tensor, twin, own, others in zip(operands, twins, letters, letters[::-1], strict=True):
        spreads = _spread(trace, call, twin, own, output)
        fixed = {c for c in own if c in others and c in output and tensor.shape[own.index(c)] > 1}
        parts.append((spreads, {output.index(c) for c in fixed}))
    _note_product(trace, call, operands, letters, output, [part for part, _ in parts])
    return _combine(trace, call, parts)


def _note_product(
    trace: Trace,
    call: Call,
    operands: Sequence[Tensor],
    letters: Sequence[str],
    output: str,
    parts: Sequence[Tensor | None],
) -> None:
    """Record the MACs of a product, with the labels of its factors that are not summed."""
    first = dict(zip(letters[0], operands[0].shape, strict=True))
    summed = [size for letter, size in first.items() if letter in set(letters[1]) - set(output)]
    if not summed or (call.name == "einsum" and prod(summed) == 1):
        return  # torch multiplies such factors element by element, which counts as no product
    twins = tuple(core(part) for part in parts if part is not None)
    trace.recording.products.append(Multiplied(call.out.numel() * prod(summed), twins))


def _spread(trace: Trace, call: Call, twin: Tensor | None, own: str, output: str) -> Tensor | None:
    """Return the labels of a factor along the dimensions of the result, size 1 elsewhere."""
    if twin is None:
        return None
    summed = {i for i, letter in enumerate(own) if letter not in output}
    small = core(trace.labels.collapse(twin, summed, call.reason(HEAD)))
    if bool((small < 0).all()):
        return None
    for dim in sorted(summed, reverse=True):
        small = small.select(dim, 0)
    left = [letter for letter in own if letter in output]
    small = small.permute(*sorted(range(len(left)), key=lambda i: output.index(left[i])))
    for dim, letter in enumerate(output):
        if letter not in left:
            small = small.unsqueeze(dim)
    return small


def _combine(trace: Trace, call: Call, parts: Sequence[tuple[Tensor | None, set[int]]]) -> None:
    """Tie the labels of the two factors where both have them, and label the result."""
    labelled = [part for part, _ in parts if part is not None]
    if not labelled:
        return None
    why = call.reason(HEAD)
    dims = [set() if part is None else set(varying(part)) for part, _ in parts]
    for (mine, _), own, (_, others), theirs in zip(
        parts, dims, parts[::-1], dims[::-1], strict=True
    ):
        if mine is not None and own & others - theirs:
            trace.labels.freeze(mine, call.reason("is multiplied by a tensor of fixed size"))
    if len(labelled) == 1:
        return trace.label(call.out, labelled[0].expand(call.out.shape))
    if dims[0] - dims[1] and dims[1] - dims[0]:  # each pair of channels has a result of its own
        for part in labelled:
            trace.labels.freeze(part, call.reason("is multiplied by all channels of another"))
        return None
    full = [part.expand(call.out.shape) for part in labelled]
    trace.labels.tie(full[0], full[1], why)
    return trace.label(call.out, full[0] if dims[0] >= dims[1] else full[1])
