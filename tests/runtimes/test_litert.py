from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_compress.runtimes.litert import dequantized, open_litert, quantized


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20),
    st.sampled_from([0.0078125, 0.1, 1.0]),
    st.integers(-128, 127),
)
def test_a_value_comes_back_within_half_a_step(
    values: list[float], scale: float, zero_point: int
) -> None:
    details = {"dtype": np.int8, "quantization": (scale, zero_point)}
    low, high = (-128 - zero_point) * scale, (127 - zero_point) * scale
    inside = np.clip(np.float32(values), low, high)
    found = dequantized(quantized(np.float32(values), details), details)
    np.testing.assert_allclose(found, inside, atol=scale * 0.51)


def test_a_type_without_a_scale_is_only_changed() -> None:
    details = {"dtype": np.int32, "quantization": (0.0, 0)}
    found = quantized(np.array([1, 2], np.int64), details)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(dequantized(found, details), [1, 2])


def test_no_file_of_litert() -> None:
    pytest.importorskip("ai_edge_litert")
    with pytest.raises(ValueError, match="buffer"):
        open_litert(b"no such file" * 20, 1)
