from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from lit_compress.files.arrays import read_arrays


def packed(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def with_header(shape: str, content: bytes = bytes(64), descr: str = "|u1") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}".encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr(
            "a.npy", b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + content
        )
    return file.getvalue()


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "<i8", "<f2", "<f4", "<f8"])
def test_arrays_come_back(dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    found = read_arrays(packed(a=array, b=array[0, 0, 0]), 1 << 20, 2)
    np.testing.assert_array_equal(found["a"], array)
    assert found["b"].shape == ()
    assert found["a"].dtype == array.dtype


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (with_header("(1000000000000000,)"), "its shape takes"),
        (with_header("(64, 1000000000000000)"), "rows"),
        (with_header("(-1, 4)"), "has the shape"),
        (with_header("(True,)", b"1"), "has the shape"),
        (with_header("(63,)"), "has 192 bytes"),
        (with_header("(8,)", descr="<c8"), "holds complex64"),
        (with_header("(8,)", descr="<U2"), "holds <U2"),
        (packed(a=np.zeros((9, 2))), "has 9 rows"),
        (packed(a=np.zeros(1 << 20)), "unpacks to"),
    ],
)
def test_what_is_refused_before_it_takes_memory(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_arrays(content, 1 << 20, 8)
