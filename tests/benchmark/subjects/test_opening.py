"""What is at a path, and what is none of the kinds."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pytest

from lit_compress.benchmark.subjects.opening import open_subject
from lit_compress.errors import LitCompressError

EXAMPLE = Path(__file__).parents[3] / "examples/digits_int8"


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
