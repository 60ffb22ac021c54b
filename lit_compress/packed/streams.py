"""Bytes in and out of deflate (RFC 1951), with a limit on what a damaged stream may give."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from lit_compress.errors import ArtifactError

#: The largest number of bytes that deflate makes of one byte.
RATIO = 1032
#: Raw deflate with the largest window: the file has a checksum of its own.
WINDOW = -15
#: Bytes of a sample that tells whether bytes repeat.
SAMPLE = 1 << 15
#: Matches are searched if the sample becomes shorter than this share.
WORTH = 0.98


@dataclass(frozen=True)
class Stream:
    """Bytes as they are stored: deflated if that makes them fewer, else as they are.

    Attributes:
        size: Number of bytes before storing.
        stored: The stored bytes.
    """

    size: int
    stored: bytes | memoryview


def store(data: bytes) -> Stream:
    """Return the smallest of three forms: as they are, deflated, or deflated without matches.

    Weights repeat by chance only. Then zlib's matches make a stream longer, and the Huffman code
    alone is within about 1 % of the entropy.

    Args:
        data: The bytes.

    Example:
        >>> len(store(bytes(1000)).stored) < 20, store(b"ab").stored
        (True, b'ab')
    """
    forms = [data, deflate(data, zlib.Z_HUFFMAN_ONLY)]
    if _repeats(data):
        forms.append(deflate(data))
    return Stream(len(data), min(forms, key=len))


def _repeats(data: bytes) -> bool:
    """Tell whether matches make samples of long bytes shorter; to search all of them takes long."""
    if len(data) <= 4 * SAMPLE:
        return True
    sample = b"".join(data[len(data) * part // 4 :][:SAMPLE] for part in range(4))
    return len(deflate(sample)) < WORTH * len(deflate(sample, zlib.Z_HUFFMAN_ONLY))


def deflate(data: bytes, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    """Return bytes deflated at the highest level.

    Args:
        data: The bytes.
        strategy: zlib's strategy, such as ``zlib.Z_HUFFMAN_ONLY``.

    Example:
        >>> len(deflate(bytes(1000))) < 20
        True
    """
    deflater = zlib.compressobj(9, zlib.DEFLATED, WINDOW, zlib.DEF_MEM_LEVEL, strategy)
    return deflater.compress(data) + deflater.flush()


def inflate(data: bytes | memoryview, size: int, source: str) -> bytes:
    """Return the bytes of a deflated stream that has a known size.

    Args:
        data: The stream, and nothing after it.
        size: Number of bytes that it gives.
        source: Name of the file, for error messages.

    Raises:
        ArtifactError: If the stream is damaged, or gives more or fewer bytes. No more memory is
            taken than ``size``, which is checked against the length of the stream first.

    Example:
        >>> inflate(deflate(b"aaaa"), 4, "example")
        b'aaaa'
    """
    if size > RATIO * len(data):
        raise ArtifactError(
            f"{source} is damaged: {len(data)} bytes cannot give {size}; write it again"
        )
    inflater = zlib.decompressobj(WINDOW)
    try:
        found = inflater.decompress(data, size + 1)
    except zlib.error as error:
        raise ArtifactError(
            f"{source} is damaged: a stream cannot be inflated ({error}); write it again"
        ) from error
    if len(found) != size or not inflater.eof or inflater.unused_data:
        raise ArtifactError(
            f"{source} is damaged: a stream does not give the {size} bytes that the index states; "
            "write it again"
        )
    return found


def read(stream: Stream, source: str) -> bytes | memoryview:
    """Return the bytes of a stream.

    Args:
        stream: The stream.
        source: Name of the file, for error messages.

    Raises:
        ArtifactError: If the stream is damaged.

    Example:
        >>> bytes(read(store(b"ab"), "example"))
        b'ab'
    """
    if len(stream.stored) == stream.size:
        return stream.stored
    return inflate(stream.stored, stream.size, source)
