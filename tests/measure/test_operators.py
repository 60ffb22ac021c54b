"""Each operator is counted by a formula of its own, worked out by hand, or is named."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import flop_registry
from torchvision.ops import deform_conv2d

from lit_compress.measure.operators import ProductCounter, formulas, may_multiply

ATEN = torch.ops.aten


def counted(run: Callable[[], Any]) -> tuple[int, list[str]]:
    """Return the MACs of a run, and the operators that were not counted."""
    with torch.no_grad(), ProductCounter() as counter:
        run()
    return counter.get_total_flops() // 2, list(counter.uncounted)


SIZES = st.integers(1, 6)


@given(SIZES, SIZES, SIZES, SIZES, SIZES, st.booleans(), st.booleans(), st.booleans())
def test_fused_attention_is_counted(
    heads: int, shares: int, rows: int, keys: int, width: int, wide: bool, causal: bool, math: bool
) -> None:
    """On a processor it is one operator, whose products were left out."""
    query = torch.zeros(2, heads * shares, rows, width)
    key = torch.zeros(2, heads, keys, width)
    value = torch.zeros(2, heads, keys, width + wide)
    # One product for each query, key, head and example: of their widths, and with the value.
    macs = 2 * heads * shares * rows * keys * (width + width + wide)
    options = {"enable_gqa": shares > 1, "is_causal": causal}
    with sdpa_kernel(SDPBackend.MATH) if math else nullcontext():
        found = counted(lambda: F.scaled_dot_product_attention(query, key, value, **options))
    assert found == (macs, [])


@pytest.mark.parametrize(
    "name",
    [
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_fused_attention_overrideable",
    ],
)
def test_attentions_of_other_devices_count_the_same(name: str) -> None:
    """They do not run here, so the formula is given shapes; heads may share their keys."""
    count = formulas()[getattr(ATEN, name)]
    assert count((2, 4, 5, 8), (2, 2, 7, 8), (2, 2, 7, 6)) == 2 * (2 * 4) * (5 * 7) * (8 + 6)


def layer_macs(rows: int, width: int) -> int:
    """Return the MACs of the projections and products of an attention to itself."""
    projections = rows * width * (3 * width) + rows * width * width
    return projections + rows * rows * width + rows * rows * width


def test_the_fast_path_of_torchs_attention_is_counted() -> None:
    layer, x = nn.MultiheadAttention(8, 2, batch_first=True).eval(), torch.zeros(3, 5, 8)
    assert counted(lambda: layer(x, x, x)) == (3 * layer_macs(5, 8), [])


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_fast_path_of_torchs_encoder_is_counted(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=norm_first).eval()
    x = torch.zeros(3, 5, 8)
    with torch.no_grad(), ProductCounter() as counter:
        layer(x)
    assert list(counter.flop_counts["Global"]) == [ATEN._transformer_encoder_layer_fwd]
    assert counter.get_total_flops() == 2 * 3 * (layer_macs(5, 8) + 5 * (8 * 12 + 12 * 8))


MATRIX, VECTOR, BATCH = torch.ones(4, 5), torch.ones(5), torch.ones(3, 4, 5)
PRODUCTS: dict[str, tuple[Callable[[], Any], int]] = {
    "mv": (lambda: MATRIX @ VECTOR, 4 * 5),
    "batched mv": (lambda: BATCH @ VECTOR, 3 * 4 * 5),
    "addmv": (lambda: torch.addmv(torch.ones(4), MATRIX, VECTOR), 4 * 5),
    "addbmm": (lambda: torch.addbmm(torch.ones(4, 4), BATCH, BATCH.mT), 3 * 4 * 5 * 4),
    "addmm_": (lambda: torch.ones(4, 4).addmm_(MATRIX, MATRIX.mT), 4 * 5 * 4),
    "baddbmm_": (lambda: torch.ones(3, 4, 4).baddbmm_(BATCH, BATCH.mT), 3 * 4 * 5 * 4),
    "activation": (lambda: torch._addmm_activation(torch.ones(4), MATRIX, MATRIX.mT), 4 * 5 * 4),
    "int8": (
        lambda: torch._int_mm(torch.ones(32, 8).char(), torch.ones(8, 16).char()),
        32 * 8 * 16,
    ),
    "bilinear": (
        lambda: F.bilinear(MATRIX, torch.ones(4, 6), torch.ones(7, 5, 6)),
        4 * 7 * (5 * 6 + 6),
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_other_products_are_counted(name: str) -> None:
    run, macs = PRODUCTS[name]
    assert counted(run) == (macs, [])


UNKNOWN: dict[str, Callable[[], Any]] = {
    "torchvision::deform_conv2d": lambda: deform_conv2d(
        torch.ones(1, 2, 4, 4), torch.zeros(1, 18, 2, 2), torch.ones(3, 2, 3, 3)
    ),
    "_euclidean_dist": lambda: torch.cdist(torch.ones(30, 2), torch.ones(30, 2)),
    "_fft_r2c": lambda: torch.fft.rfft(VECTOR),
    "conv_tbc": lambda: torch.conv_tbc(BATCH, torch.ones(2, 5, 3), torch.ones(3)),
    "_linalg_solve_ex": lambda: torch.linalg.solve(torch.eye(5), VECTOR),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_operator_without_a_formula_is_named(name: str) -> None:
    """PyTorch's counter takes it for one that multiplies nothing."""
    assert counted(UNKNOWN[name]) == (0, [name])


def test_an_operator_of_an_unknown_library_is_named() -> None:
    def sums(x: Tensor) -> Tensor:
        return x.cumsum(0)

    unknown = torch.library.custom_op("other_library::sums", sums, mutates_args=())
    assert counted(lambda: unknown(VECTOR)) == (0, ["other_library::sums"])


def test_operators_that_multiply_no_matrices_are_not_named() -> None:
    image = torch.ones(1, 3, 8, 8)

    def run() -> None:
        F.interpolate(image, scale_factor=2, mode="bilinear").relu().softmax(1).sum()
        grid = F.affine_grid(torch.ones(1, 2, 3), [1, 3, 4, 4], align_corners=False)
        F.grid_sample(image, grid, align_corners=False)
        F.layer_norm(F.unfold(image, 2), (49,)).norm(dim=1).cumsum(0)
        torch.linalg.vector_norm(torch.linalg.cross(image[..., :3], image[..., 1:4]))

    assert counted(run) == (0, [])


#: Parts of the names of torch's operators that multiply.
PARTS = ("mm", "attention", "convolution", "rnn", "lstm", "gru", "matmul", "transformer_encoder")


def test_each_operator_that_multiplies_is_counted_or_named() -> None:
    """After an upgrade of torch, one that is new must not be left out."""
    known = {str(packet) for packet in (*flop_registry, *formulas())}
    names = {name.partition(".")[0] for name in torch._C._dispatch_get_all_op_names()}
    products = [
        name
        for name in names
        if name.startswith("aten::") and "backward" not in name
        if any(word.endswith(PARTS) for word in name.partition("::")[2].split("_"))
    ]
    assert len(products) > 50
    left = [n for n in products if n.replace("::", ".") not in known and not may_multiply(n)]
    assert sorted(left) == [
        # Its weights in another order, and the gates of a cell, whose products are apart.
        "aten::_cudnn_rnn_flatten_weight",
        "aten::_thnn_fused_gru_cell",
        "aten::_thnn_fused_lstm_cell",
        "aten::_use_cudnn_rnn_flatten_weight",
    ]
