"""One array of words as streams: dense, or where the non-zero words are and what they are.

A word is zero if all its bits are zero: -0.0 and NaN are kept as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from lit_compress.errors import ArtifactError
from lit_compress.packed.streams import RATIO, Stream, read, store

Encoding = Literal["dense", "mask", "gaps"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
#: Sizes of a word in bytes.
WORDS = (1, 2, 4, 8)
#: A gap of this value means: so many zeros, and no word after them.
LONG = 255
#: Words of a sample that chooses the encoding of many words, and the parts that it is taken from.
SAMPLE, PARTS = 1 << 16, 16


@dataclass(frozen=True)
class Block:
    """Words as streams.

    Attributes:
        encoding: ``dense``: all words. ``mask``: a bit for each word, first. ``gaps``: a byte for
            each non-zero word, first.
        streams: Streams in order; at the end one for each byte of a word, lowest byte first.
    """

    encoding: Encoding
    streams: tuple[Stream, ...]

    @property
    def stored(self) -> int:
        """Number of stored bytes."""
        return sum(len(stream.stored) for stream in self.streams)


def encode(words: np.ndarray) -> Block:
    """Return words in the encoding that takes the fewest bytes; of many words, for a sample.

    Args:
        words: One axis of unsigned integers, of 1, 2, 4 or 8 bytes.

    Example:
        >>> sparse = np.zeros(10_000, np.uint8)
        >>> sparse[::50] = np.arange(1, 201)
        >>> encode(sparse).encoding, encode(np.arange(256, dtype=np.uint8)).encoding
        ('gaps', 'dense')
    """
    if words.size <= 2 * SAMPLE:
        return _smallest(words, ENCODINGS)
    parts = np.array_split(words, PARTS)
    sample = np.concatenate([part[: SAMPLE // PARTS] for part in parts])
    return _smallest(words, (_smallest(sample, ENCODINGS).encoding,))


def _smallest(words: np.ndarray, encodings: Sequence[Encoding]) -> Block:
    """Return the smallest of some encodings that may give so many bytes; dense always may."""
    blocks = [_encoded(words, encoding) for encoding in encodings]
    allowed = [block for block in blocks if plausible(block, words.nbytes)]
    return min(allowed or [_encoded(words, "dense")], key=lambda block: block.stored)


def _encoded(words: np.ndarray, encoding: Encoding) -> Block:
    if encoding == "dense":
        return Block("dense", _planes(words))
    present = words != 0
    places = np.packbits(present) if encoding == "mask" else _gaps(present)
    return Block(encoding, (store(places.tobytes()), *_planes(words[present])))


def plausible(block: Block, size: int) -> bool:
    """Tell whether a block is allowed to give ``size`` bytes: 1032 for each stored byte.

    That is the most that deflate gives. So a small file cannot ask for much memory.
    """
    return size <= RATIO * block.stored


def decode(block: Block, count: int, word: int, source: str) -> np.ndarray:
    """Return the words of a block.

    Args:
        block: The block.
        count: Number of words.
        word: Bytes of a word.
        source: Name of the file, for error messages.

    Raises:
        ArtifactError: If the streams do not give ``count`` words.

    Example:
        >>> words = np.array([0, 3, 0, 0, 7], np.uint16)
        >>> decode(encode(words), 5, 2, "example").tolist()
        [0, 3, 0, 0, 7]
    """
    if not plausible(block, count * word):
        raise ArtifactError(
            f"{source} is damaged: {block.stored} bytes cannot give {count * word}; write it again"
        )
    places = len(block.streams) - word
    if places != (block.encoding != "dense"):
        raise _damaged(source, f"{len(block.streams)} streams for words of {word} bytes")
    planes = block.streams[places:]
    if block.encoding == "dense":
        return _join(planes, count, source)
    where = np.frombuffer(read(block.streams[0], source), np.uint8)
    positions: np.ndarray
    if block.encoding == "mask":
        if len(where) != -(-count // 8):
            raise _damaged(source, f"a mask of {len(where)} bytes for {count} words")
        positions = np.unpackbits(where, count=count).view(np.bool_)
        found = int(np.count_nonzero(positions))
    else:
        positions, end = _positions(where)
        found = len(positions)
        if end > count:
            raise _damaged(source, f"word {end} of {count}")
    values = _join(planes, found, source)
    words = np.zeros(count, values.dtype)
    words[positions] = values
    return words


def _damaged(source: str, what: str) -> ArtifactError:
    return ArtifactError(f"{source} is damaged: its index states {what}; write it again")


def _planes(words: np.ndarray) -> tuple[Stream, ...]:
    """Return a stream for each byte of the words: exponents are alike, mantissas are not."""
    size = words.dtype.itemsize
    table = words.astype(words.dtype.newbyteorder("<"), copy=False).view(np.uint8)
    table = table.reshape(-1, size)
    return tuple(store(table[:, byte].tobytes()) for byte in range(size))


def _join(planes: Sequence[Stream], count: int, source: str) -> np.ndarray:
    if any(stream.size != count for stream in planes):
        sizes = ", ".join(str(stream.size) for stream in planes)
        raise _damaged(source, f"streams of {sizes} bytes for {count} words")
    columns = [np.frombuffer(read(stream, source), np.uint8) for stream in planes]
    if len(columns) == 1:
        return columns[0]
    table = np.empty((count, len(columns)), np.uint8)
    for byte, column in enumerate(columns):
        table[:, byte] = column
    return table.view(np.dtype(f"<u{len(columns)}")).reshape(count)


def _gaps(present: np.ndarray) -> np.ndarray:
    """Return the number of zeros before each word that is present; 255 for longer runs."""
    places = np.flatnonzero(present)
    zeros = np.diff(places, prepend=-1) - 1
    long, rest = np.divmod(zeros, LONG)
    ends = np.cumsum(long + 1)
    gaps = np.full(int(ends[-1]) if len(ends) else 0, LONG, np.uint8)
    gaps[ends - 1] = rest
    return gaps


def _positions(gaps: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the places of the words that are present, and how many words the gaps cover."""
    ends = np.cumsum(gaps, dtype=np.int64)
    word = gaps != LONG
    if word.all():
        ends += np.arange(1, len(gaps) + 1)
    else:
        ends += np.cumsum(word)
    end = int(ends[-1]) if len(ends) else 0
    return (ends if word.all() else ends[word]) - 1, end
