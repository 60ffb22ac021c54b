"""The index names what the file has."""

from __future__ import annotations

import json

from lit_compress.packed.codec import Block
from lit_compress.packed.index import index_text, parse_index
from lit_compress.packed.levels import Channels
from lit_compress.packed.streams import Stream
from lit_compress.packed.tensor import Tensor


def test_an_index_comes_back() -> None:
    tensors = (Tensor("a", "int8", (2, 2), 5, Channels(2, 2)), Tensor("ü", "float16", (), 11))
    blocks = (
        Block("dense", (Stream(4, b"abcd"), Stream(4, b"ef"))),
        Block("mask", (Stream(1, b"g"), Stream(1, b"h"), Stream(1, b"i"))),
    )
    text = index_text(tensors, (0, 1), blocks)
    found = parse_index(json.loads(text), memoryview(b"abcdefghi"), "file")
    assert found == (tensors, (0, 1), blocks)
