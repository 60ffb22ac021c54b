"""The attention that knows the size of its heads computes what torch's computes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_compress.pruning.heads import HeadwiseAttention, attending_by_head, headwise

CAUSAL = torch.ones(5, 5).triu(1).bool()
PADDING = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0]]).bool()
MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "causal": {"attn_mask": CAUSAL},
    "hint": {"attn_mask": CAUSAL, "is_causal": True},
    "added": {"attn_mask": torch.randn(5, 5)},
    "padding": {"key_padding_mask": PADDING},
    "both": {"attn_mask": CAUSAL, "key_padding_mask": PADDING},
    "by head": {"attn_mask": torch.randn(12, 5, 5)},
}


def layers(**options: Any) -> tuple[nn.MultiheadAttention, nn.MultiheadAttention]:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 4, **options)
    if options.get("bias", True):
        nn.init.normal_(layer.out_proj.bias)
    other = copy.deepcopy(layer)
    other.__class__ = HeadwiseAttention
    return layer, other


@pytest.mark.filterwarnings("ignore:Support for mismatched:UserWarning")
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
def test_it_computes_the_same(mask: dict[str, Any], batch_first: bool, need_weights: bool) -> None:
    layer, other = layers(batch_first=batch_first)
    x = torch.randn(3, 5, 8)
    x = x if batch_first else x.transpose(0, 1)
    for average in (True, False):
        given = {"need_weights": need_weights, "average_attn_weights": average, **mask}
        same(other(x, x, x, **given), layer(x, x, x, **given))


@pytest.mark.parametrize("options", [{}, {"kdim": 6, "vdim": 7}, {"bias": False}])
def test_keys_and_values_may_be_others(options: dict[str, Any]) -> None:
    layer, other = layers(batch_first=True, **options)
    x = torch.randn(3, 5, 8)
    key = torch.randn(3, 4, options.get("kdim", 8))
    value = torch.randn(3, 4, options.get("vdim", 8))
    same(other(x, key, value), layer(x, key, value))
    same(other(x[0], key[0], value[0]), layer(x[0], key[0], value[0]))  # no batch


def test_dropout_and_gradients_are_the_same() -> None:
    layer, other = layers(batch_first=True, dropout=0.5)
    x = torch.randn(3, 5, 8)
    for one in (layer, other):
        torch.manual_seed(1)
        one(x, x, x)[0].square().sum().backward()
    for mine, theirs in zip(other.parameters(), layer.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def same(found: tuple[Tensor, Tensor | None], expected: tuple[Tensor, Tensor | None]) -> None:
    torch.testing.assert_close(found[0], expected[0])
    assert (found[1] is None) == (expected[1] is None)
    if expected[1] is not None:
        torch.testing.assert_close(found[1], expected[1])


def test_a_layer_with_all_heads_is_torchs_own() -> None:
    layer, other = layers()
    assert headwise(layer) == {}
    assert headwise(other)["__class__"] is nn.MultiheadAttention


def test_only_torchs_own_class_is_replaced_and_it_comes_back() -> None:
    class Mine(nn.MultiheadAttention):
        pass

    model = nn.ModuleList([nn.MultiheadAttention(8, 4), Mine(8, 4)])
    with attending_by_head(model):
        assert [type(layer) for layer in model] == [HeadwiseAttention, Mine]
    assert [type(layer) for layer in model] == [nn.MultiheadAttention, Mine]
    assert headwise(model[1]) == {}
