"""The products whose rate is the limit."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_compress.benchmark import limit
from lit_compress.benchmark.limit import Kind, Limit, best_rate, product_model, runtime_rate
from lit_compress.benchmark.work import Work, count_work
from lit_compress.files.onnx_wire import encoded, fields
from lit_compress.runtimes.onnx import open_engine
from lit_compress.timing.in_turn import Runner


@pytest.mark.parametrize(("kind", "dtype"), [("int8", np.uint8), ("float32", np.float32)])
def test_the_file_multiplies_as_onnx_says(kind: Kind, dtype: type) -> None:
    content = product_model(16, kind)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    (stored,) = [t for t in onnx.load_from_string(content).graph.initializer if t.name == "w"]
    weight = onnx.numpy_helper.to_array(stored).astype(np.float64)
    x = np.random.default_rng(1).integers(100, 156, (16, 16)).astype(dtype)
    (found,) = open_engine("product", "onnxruntime", 1, content).run([x])
    if kind == "float32":
        np.testing.assert_allclose(found, x @ weight, rtol=1e-4, atol=1e-3)
    else:
        exact = (x.astype(np.float64) - 128) @ weight * 1e-4
        np.testing.assert_array_equal(found, np.clip(np.rint(exact) + 128, 0, 255))


def test_the_work_of_the_file_is_that_of_a_product() -> None:
    int8, float32 = (np.ones((16, 16), dtype) for dtype in (np.uint8, np.float32))
    assert count_work(product_model(16, "int8"), [int8], 1) == Work(16**3, 0)
    assert count_work(product_model(16, "float32"), [float32], 1) == Work(0, 16**3)


def test_the_rate_is_the_best_of_the_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that each product moves: 10 at a second for small ones, then 40 and 30."""
    seconds = {1: 1**3 / 10, 2: 2**3 / 40, 3: 3**3 / 30}
    clock = [0.0]

    def product(size: int) -> Runner:
        def run() -> None:
            clock[0] += seconds[size]

        return run

    monkeypatch.setattr(limit, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(limit, "SIZES", (1, 2, 3))
    monkeypatch.setattr(limit, "ENOUGH", 10.0)
    assert best_rate(product) == pytest.approx(40)
    monkeypatch.setattr(limit, "ENOUGH", 0.05)  # the first takes longer, so it is the last
    assert best_rate(product) == pytest.approx(10)


def test_a_rate_is_measured_here() -> None:
    assert 1e6 < runtime_rate("onnxruntime", 1, "int8") < 1e14


def test_a_limit_in_words() -> None:
    assert str(Limit("openvino", 2, "int8", 1e9)) == "int8, openvino, 2 threads: 1 GMAC/s"


@settings(max_examples=100)
@given(st.integers(1, 2**28), st.one_of(st.integers(0, 2**63), st.binary(max_size=300)))
def test_what_is_encoded_is_read_again(number: int, value: int | bytes) -> None:
    ((found, content),) = fields(memoryview(encoded(number, value)))
    assert found == number
    assert (content if isinstance(content, int) else bytes(content)) == value
