"""Deflated bytes with a limit."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_compress.errors import ArtifactError
from lit_compress.packed.streams import Stream, deflate, inflate, read, store


@given(st.binary(max_size=500) | st.integers(0, 400_000).map(bytes))
def test_bytes_come_back(data: bytes) -> None:
    stream = store(data)
    assert read(stream, "file") == data
    assert len(stream.stored) <= len(data)


def test_zlib_reads_the_stream() -> None:
    assert zlib.decompress(deflate(b"weights" * 9), wbits=-15) == b"weights" * 9


def test_repeated_bytes_of_a_long_stream_are_found() -> None:
    """Long streams are sampled before matches are searched."""
    assert len(store(bytes(range(256)) * 4000).stored) < 10_000


@pytest.mark.parametrize("size", [999, 1001, 0])
def test_another_size_than_stated(size: int) -> None:
    with pytest.raises(ArtifactError, match="file is damaged"):
        inflate(deflate(bytes(1000)), size, "file")


def test_no_memory_is_taken_for_what_a_stream_cannot_give() -> None:
    with pytest.raises(ArtifactError, match="10 bytes cannot give 1000000000000"):
        inflate(bytes(10), 10**12, "file")


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xff", deflate(bytes(99)) + b"x", deflate(bytes(99))[:-1]]
)
def test_a_damaged_stream(data: bytes) -> None:
    with pytest.raises(ArtifactError, match="file is damaged"):
        inflate(data, 99, "file")
    with pytest.raises(ArtifactError, match="file is damaged"):
        read(Stream(99, data), "file")
