from __future__ import annotations

import io
import struct
import zipfile
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_STORED, BadZipFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_compress.files.zips import check_zip

CONTENT = bytes(range(256)) * 16


def archive(method: int = ZIP_DEFLATED, names: tuple[str, ...] = ("a", "b")) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        for name in names:
            made.writestr(name, CONTENT)
    return file.getvalue()


def check(content: bytes, limit: int = 1 << 20, entries: int = 10) -> None:
    check_zip(io.BytesIO(content), limit, entries)


@pytest.mark.parametrize("method", [ZIP_STORED, ZIP_DEFLATED])
def test_whole_files_pass(method: int) -> None:
    check(archive(method))


@given(st.integers(0, len(CONTENT) - 1), st.integers(0, 7))
def test_every_flipped_bit_of_a_stored_entry_is_found(place: int, bit: int) -> None:
    data = bytearray(archive(ZIP_STORED, ("a",)))
    data[bytes(data).find(CONTENT) + place] ^= 1 << bit
    with pytest.raises(BadZipFile, match="Bad CRC-32"):
        check(bytes(data))


@pytest.mark.parametrize(
    ("content", "limit", "entries", "message"),
    [
        (archive(), 100, 10, "unpacks to 8,192 bytes"),
        (archive(), 1 << 20, 1, "has 2 entries"),
        (archive(ZIP_BZIP2), 1 << 20, 10, "compressed by method 12"),
    ],
)
def test_limits(content: bytes, limit: int, entries: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(content, limit, entries)


def test_a_name_twice() -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = archive(names=("a", "a"))
    with pytest.raises(ValueError, match="'a' is there twice"):
        check(content)


def test_a_size_that_the_packed_bytes_cannot_give() -> None:
    data = bytearray(archive(names=("a",)))
    place = bytes(data).find(b"PK\x01\x02")
    data[place + 24 : place + 28] = struct.pack("<I", 1 << 24)
    with pytest.raises(ValueError, match="claims 16,777,216 bytes"):
        check(bytes(data), 1 << 30)
