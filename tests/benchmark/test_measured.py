"""What tells a row from the others."""

from __future__ import annotations

import pytest

from lit_compress.benchmark import Measured


@pytest.mark.parametrize(("threads", "text"), [(1, "1 thread"), (4, "4 threads")])
def test_the_place_of_a_row(threads: int, text: str) -> None:
    row = Measured("a", "ONNX file", "openvino", 8, threads, 10, 1.0, (1.0, 1.0), 8.0, "none")
    assert row.place == f"a, openvino, batch 8, {text}"
    assert row.macs is row.share is row.peak_bytes is None
