"""Channels are rounded to the blocks of the kernels, if that costs no time."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_compress.layer_times import Layer, free_multiple
from lit_compress.layer_times.rounding import MULTIPLES, _rounded

CHAIN = [
    Layer(3, 120, (8, 8), 1, (3, 3)),
    Layer(120, 120, (8, 8), 120, (3, 3)),
    Layer(120, 250, (8, 8), 1, (1, 1)),
    Layer(250, 10, (1,)),
]


@pytest.mark.parametrize("block", [4, 16])
def test_blocks_are_found(block: int) -> None:
    def seconds(layers: Sequence[Layer]) -> list[float]:
        return [float(ceil(layer.outputs / block)) for layer in layers]

    assert free_multiple(CHAIN, 0.37, seconds) >= block


def test_time_that_grows_with_each_channel_leaves_no_rounding() -> None:
    def seconds(layers: Sequence[Layer]) -> list[float]:
        return [float(layer.inputs * layer.outputs) for layer in layers]

    assert free_multiple(CHAIN, 0.37, seconds) == 1


@given(st.floats(0.01, 1), st.sampled_from(MULTIPLES))
def test_layers_stay_a_network(kept: float, multiple: int) -> None:
    layers = _rounded(CHAIN, kept, multiple)
    assert layers[0].inputs == 3
    assert layers[-1].outputs == 10
    assert layers[1].groups == layers[1].inputs == layers[1].outputs
    for before, after, old in zip(layers, layers[1:], CHAIN[1:], strict=False):
        assert before.outputs == after.inputs
        assert after.inputs % multiple == 0 or after.inputs == old.inputs
        assert old.inputs * kept <= after.inputs <= old.inputs
