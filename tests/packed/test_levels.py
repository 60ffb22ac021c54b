"""16 levels for each output channel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lit_compress.packed.levels import Channels, to_codes, to_weights

GRIDS = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5))


@given(data=st.data(), grid=GRIDS)
def test_levels(data: st.DataObject, grid: tuple[int, int, int]) -> None:
    weights = data.draw(hnp.arrays(np.int8, grid))
    channels = Channels(grid[1], grid[2])
    codes, steps = to_codes(weights.ravel(), channels)
    found = to_weights(codes, steps, channels).reshape(grid)
    assert codes.min() >= -8
    assert codes.max() <= 7
    assert not found[weights == 0].any()
    largest = np.abs(weights.astype(int)).max((0, 2))
    assert (np.abs(found.astype(int)).max((0, 2)) <= largest).all()
    for channel in range(grid[1]):
        assert len(np.unique(found[:, channel])) <= 16
        # By hand, in plain numbers.
        step = int(steps[channel])
        for code, weight in zip(
            codes.reshape(grid)[:, channel].ravel(), found[:, channel].ravel(), strict=True
        ):
            assert weight == max(-128, min(127, (int(code) * step + 128) // 256))


@given(hnp.arrays(np.int8, 20, elements=st.integers(-8, 7)))
def test_small_weights_are_exact(weights: np.ndarray) -> None:
    channels = Channels(4, 5)
    assert (to_weights(*to_codes(weights, channels), channels) == weights).all()


def test_the_step_has_the_smallest_error() -> None:
    weights = np.random.default_rng(0).normal(0, 30, 1000).clip(-127, 127).astype(np.int8)
    found = to_weights(*to_codes(weights, Channels(1, 1000)), Channels(1, 1000))
    errors = [
        np.square(weights - np.rint(np.rint(weights / step).clip(-8, 7) * step)).sum()
        for step in np.linspace(1, 19, 400)
    ]
    error = np.square(weights.astype(int) - found).sum()
    assert error <= 1.01 * min(errors)


@pytest.mark.parametrize("inner", [1, 3])
def test_channels(inner: int) -> None:
    expected = np.broadcast_to(np.arange(4)[None, :, None], (2, 4, inner)).ravel()
    assert (Channels(4, inner).of(8 * inner) == expected).all()
