"""Torch's multi-head attention with fewer heads than its embedding has room for.

``nn.MultiheadAttention`` derives the size of a head from the size of its input, so it computes
something else as soon as a head is removed. A layer that lost heads gets a class that takes the
size of a head from ``head_dim``; its parameters, their names and its arguments stay the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def average_over_heads(weights: Tensor) -> Tensor:
    """Return the average of attention weights over the heads, shape (batch, heads, to, from)."""
    if torch.overrides.has_torch_function_unary(weights):
        averaged: Tensor = torch.overrides.handle_torch_function(
            average_over_heads, (weights,), weights
        )
        return averaged
    return weights.mean(1)


class HeadwiseAttention(nn.MultiheadAttention):
    """Multi-head attention with any number of heads of the size ``head_dim``."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend; arguments and results are those of ``nn.MultiheadAttention``.

        ``is_causal`` is a hint that goes with a mask; the mask alone counts here.
        """
        batched = query.dim() == 3
        queries, keys, values = self._projected(query, key, value)
        bias = _mask(attn_mask, key_padding_mask, queries)
        if need_weights:
            scores = (queries * sqrt(1 / self.head_dim)) @ keys.transpose(-2, -1)
            weights = (scores if bias is None else scores + bias).softmax(-1)
            weights = F.dropout(weights, self.dropout, self.training)
            attended = weights @ values
        else:
            rate = self.dropout if self.training else 0.0
            attended = F.scaled_dot_product_attention(queries, keys, values, bias, rate)
        out = F.linear(
            attended.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias
        )
        if batched and not self.batch_first:
            out = out.transpose(0, 1)
        if need_weights:
            shown = average_over_heads(weights) if average_attn_weights else weights
            return (out, shown) if batched else (out.squeeze(0), shown.squeeze(0))
        return (out if batched else out.squeeze(0)), None

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """Return queries, keys and values of shape (batch, heads, length, head size)."""
        same = query is key and key is value
        if same and self.in_proj_weight is not None:
            parts = F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        else:
            packed = self.in_proj_weight
            weights = (
                (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
                if packed is None
                else packed.chunk(3)
            )
            biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
            parts = tuple(map(F.linear, (query, key, value), weights, biases))
        return [self._by_head(part) for part in parts]

    def _by_head(self, part: Tensor) -> Tensor:
        if part.dim() == 2:
            part = part.unsqueeze(0)
        elif not self.batch_first:
            part = part.transpose(0, 1)
        return part.view(*part.shape[:-1], -1, self.head_dim).transpose(1, 2)


def _mask(mask: Tensor | None, padding: Tensor | None, queries: Tensor) -> Tensor | None:
    """Return what is added to the scores, of shape (batch, heads or 1, to, from), or None."""
    bias = None if mask is None else _as_bias(mask, queries)
    if bias is not None and bias.dim() == 3:
        bias = bias.view(queries.shape[0], -1, *bias.shape[1:])
    if padding is None:
        return bias
    added = _as_bias(padding, queries)
    added = added.view(-1, 1, 1, added.shape[-1])
    return added if bias is None else bias + added


def _as_bias(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype is not torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))


def headwise(layer: nn.MultiheadAttention) -> dict[str, Any]:
    """Return the attributes that a layer needs for the heads that its parameters have.

    Args:
        layer: The layer.

    Returns:
        The attributes; none if its class already computes with these heads.
    """
    if not _is_plain(layer):
        return {}
    width = layer.out_proj.weight.shape[1]
    if width == layer.embed_dim and layer.out_proj.weight.shape[0] == width:
        return _as_torch(layer)
    return {
        "__class__": HeadwiseAttention,
        "num_heads": width // layer.head_dim,
        "_qkv_same_embed_dim": False,  # torch's fused path must not run
    }


def _as_torch(layer: nn.MultiheadAttention) -> dict[str, Any]:
    """Return the attributes of a layer that has all its heads."""
    if type(layer) is nn.MultiheadAttention:
        return {}
    return {
        "__class__": nn.MultiheadAttention,
        "num_heads": layer.embed_dim // layer.head_dim,
        "_qkv_same_embed_dim": layer.in_proj_weight is not None,
    }


@contextmanager
def attending_by_head(model: nn.Module) -> Iterator[None]:
    """Let all attentions of a model compute head by head, until the end of the block.

    Args:
        model: The model. Attentions of a class of the user's own are left alone.
    """
    modules = list(model.modules())
    layers = [
        layer for layer in modules if isinstance(layer, nn.MultiheadAttention) and _is_plain(layer)
    ]
    before = [type(layer) for layer in layers]
    encoders = [part for part in modules if isinstance(part, nn.TransformerEncoder)]
    nested = [encoder.use_nested_tensor for encoder in encoders]
    for layer in layers:
        layer.__class__ = HeadwiseAttention
    for encoder in encoders:
        encoder.use_nested_tensor = False
    try:
        yield
    finally:
        for encoder, value in zip(encoders, nested, strict=True):
            encoder.use_nested_tensor = value
        for layer, kind in zip(layers, before, strict=True):
            layer.__class__ = kind


def _is_plain(layer: nn.MultiheadAttention) -> bool:
    """Tell whether a layer computes what :class:`HeadwiseAttention` does."""
    extra = layer.bias_k is not None or layer.bias_v is not None or layer.add_zero_attn
    return type(layer) in (nn.MultiheadAttention, HeadwiseAttention) and not extra
