"""Batches and shapes that are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmark.conftest import model, square
from lit_compress.benchmark.subjects.opening import open_subject
from lit_compress.benchmark.subjects.subject import check_alike, check_batch
from lit_compress.errors import InvalidArgumentError

EXAMPLE = Path(__file__).parents[3] / "examples/digits_int8"


def test_a_fixed_batch(tmp_path: Path) -> None:
    path = tmp_path / "fixed.onnx"
    path.write_bytes(square(4, batch="8"))
    subject = open_subject(path)
    check_batch(subject, 8)
    with pytest.raises(InvalidArgumentError, match=r"takes batches of 8 alone \(input x\)"):
        check_batch(subject, 1)


def test_other_shapes_are_not_compared(small: Path) -> None:
    check_alike(open_subject(small), open_subject(small))
    with pytest.raises(InvalidArgumentError, match=r"small.onnx takes x: float32 64, and .*1 x 32"):
        check_alike(open_subject(small), open_subject(EXAMPLE))


def test_other_types_are_compared(tmp_path: Path) -> None:
    """Raw pixels of a file and the floats of a checkpoint have the same shape."""
    for kind in ("uint8", "float"):
        text = f"net ({kind}[batch, 3] x) => ({kind}[batch, 3] y) {{ y = Identity(x) }}"
        (tmp_path / kind).write_bytes(model(text))
    one, other = (open_subject(tmp_path / kind) for kind in ("uint8", "float"))
    check_alike(one, other)
    assert [s.slots[0].dtype for s in (one, other)] == [np.uint8, np.float32]
