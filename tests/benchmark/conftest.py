"""Small files that are timed briefly."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import onnx.parser
import pytest

HEAD = '<ir_version: 10, opset_import: ["": 20]>'


@pytest.fixture(autouse=True)
def briefly() -> Iterator[None]:
    """Measure without warm-up, and limits with small matrices: seconds less for each test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lit_compress.benchmark.limit.SIZES", (64,))
        patch.setattr("lit_compress.benchmark.limit.SECONDS", 0.0)
        patch.setattr("lit_compress.benchmark.timed.WARM_UP", 0.0)
        patch.setattr("lit_compress.benchmark.timed.SLICE", 0.0005)
        yield


def model(text: str) -> bytes:
    """Return an ONNX file of a graph in ONNX's text format."""
    content: bytes = onnx.parser.parse_model(f"{HEAD} {text}").SerializeToString()
    return content


def square(size: int, batch: str = "batch", copies: int = 1) -> bytes:
    """Return a file that multiplies rows of a size by a matrix, several times."""
    weight = ", ".join(["0.01"] * size * size)
    names = ["x", *(f"h{index}" for index in range(1, copies)), "y"]
    nodes = " ".join(f"{b} = MatMul({a}, w)" for a, b in pairwise(names))
    return model(
        f"net (float[{batch}, {size}] x) => (float[{batch}, {size}] y) "
        f"<float[{size}, {size}] w = {{{weight}}}> {{ {nodes} }}"
    )


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A file of one product of 64 by 64."""
    path = tmp_path / "small.onnx"
    path.write_bytes(square(64))
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file of 64 such products."""
    path = tmp_path / "large.onnx"
    path.write_bytes(square(64, copies=64))
    return path
