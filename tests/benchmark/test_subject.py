"""What is at a path, and what is refused."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest

from benchmark.conftest import model, square
from lit_compress.benchmark.subject import check_alike, check_batch, open_subject
from lit_compress.errors import InvalidArgumentError, LitCompressError

EXAMPLE = Path(__file__).parents[2] / "examples/digits_int8"


def test_kinds(small: Path) -> None:
    assert [open_subject(p).kind for p in (EXAMPLE, small)] == ["artefact", "ONNX file"]


def make(path: Path, kind: str) -> Path:
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("this is a text\nof two lines\n")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "zip":
        with ZipFile(path, "w") as file:
            file.writestr("a", "b")
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nothing", "there is no file or folder"),
        ("folder", "is not an artefact: it has no card.json"),
        ("text", "give an artefact, an ONNX file or a checkpoint"),
        ("empty", "it is not an ONNX file: it has 0 graphs"),
        ("zip", "cannot be read"),
    ],
)
def test_what_is_no_network(tmp_path: Path, kind: str, message: str) -> None:
    path = make(tmp_path / "given", kind)
    with pytest.raises(LitCompressError, match=message) as caught:
        open_subject(path)
    assert "given" in str(caught.value)


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
