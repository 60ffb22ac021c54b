"""Words come back from each encoding, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lit_compress.errors import ArtifactError
from lit_compress.packed.codec import ENCODINGS, Block, decode, encode
from lit_compress.packed.streams import Stream, store

WORDS = hnp.arrays(
    st.sampled_from(["u1", "<u2", "<u4", "<u8"]),
    st.integers(0, 300),
    elements=st.integers(0, 255) | st.just(0),
)


@given(words=WORDS, zeros=st.floats(0, 1), seed=st.integers(0, 99))
def test_words_come_back(words: np.ndarray, zeros: float, seed: int) -> None:
    words[np.random.default_rng(seed).random(words.size) < zeros] = 0
    block = encode(words)
    found = decode(block, words.size, words.itemsize, "file")
    np.testing.assert_array_equal(found, words)
    assert found.dtype.itemsize == words.itemsize


@pytest.mark.parametrize(
    ("zeros", "encoding"), [(0.0, "dense"), (0.5, "mask"), (0.9, "gaps"), (0.999, "gaps")]
)
@pytest.mark.parametrize("size", [5_000, 200_000])
def test_the_smallest_encoding_is_near_the_entropy(zeros: float, encoding: str, size: int) -> None:
    """Bytes of the weights and of the sample that stands for many weights."""
    random = np.random.default_rng(0)
    words = random.integers(1, 256, size).astype(np.uint8)
    words[random.random(size) < zeros] = 0
    block = encode(words)
    shares = np.bincount(words) / size
    bits = -sum(share * np.log2(share) for share in shares if share)
    assert block.encoding == encoding or zeros == 0.5
    assert block.stored < 1.03 * bits * size / 8 + 150


@pytest.mark.parametrize("run", [0, 1, 253, 254, 255, 256, 509, 510, 511, 3000])
def test_long_runs_of_zeros(run: int) -> None:
    words = np.zeros(2 * run + 2, np.uint16)
    words[[run, -1]] = 1, 7
    where = np.array([*[255] * (run // 255), run % 255] * 2, np.uint8).tobytes()
    ones, tens = np.array([1, 7], np.uint8).tobytes(), bytes(2)
    by_hand = Block("gaps", (store(where), store(ones), store(tens)))
    np.testing.assert_array_equal(decode(by_hand, words.size, 2, "file"), words)
    np.testing.assert_array_equal(decode(encode(words), words.size, 2, "file"), words)


def test_no_block_gives_more_than_deflate_can() -> None:
    """A file of a few bytes could otherwise ask for gigabytes of zeros."""
    block = encode(np.zeros(10_000_000, np.uint8))
    assert block.encoding == "dense"
    with pytest.raises(ArtifactError, match="bytes cannot give"):
        decode(Block("gaps", (store(b""), store(b""))), 1000, 1, "file")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("count", [2, 1, 0])
def test_streams_of_other_lengths(encoding: str, count: int) -> None:
    planes = [Stream(3, bytes([1, 2, 3]))] * 2
    where = {"dense": [], "mask": [Stream(1, b"\xe0")], "gaps": [Stream(3, bytes(3))]}[encoding]
    good = Block(encoding, (*where, *planes))  # type: ignore[arg-type]
    assert decode(good, 3, 2, "file").tolist() == [257, 514, 771]
    fewer = Block(encoding, good.streams[-count - 1 : -1])  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match="file is damaged"):
        decode(fewer, 3, 2, "file")
    with pytest.raises(ArtifactError, match="file is damaged"):
        decode(good, 2, 4, "file")


def test_gaps_behind_the_end() -> None:
    block = Block("gaps", (Stream(2, bytes([1, 1])), Stream(2, b"ab")))
    assert decode(block, 4, 1, "file").tolist() == [0, 97, 0, 98]
    assert decode(block, 5, 1, "file").tolist() == [0, 97, 0, 98, 0]
    with pytest.raises(ArtifactError, match="word 4 of 3"):
        decode(block, 3, 1, "file")
