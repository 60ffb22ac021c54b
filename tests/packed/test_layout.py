"""The bytes of a packed file, read by hand as docs/packed.md describes them."""

from __future__ import annotations

import json
import struct
import zlib
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_compress.errors import ArtifactError
from lit_compress.packed.layout import HEADER, Packed, parse, to_bytes
from lit_compress.packed.model import pack_arrays, to_arrays, unpack

ARRAYS = {
    "weight": np.where(np.arange(3000) % 13, 0, np.arange(3000)).astype(np.float32),
    "bias": np.arange(40, dtype=np.int32) - 20,
}
FILE = pack_arrays(ARRAYS)


def test_a_reader_by_hand() -> None:
    """Nothing of the package is used, as in a reader in another language."""
    magic, version, checksum, stored, size, text = struct.unpack_from("<8sIIIII", FILE)
    assert (magic, version) == (b"\x93LITPACK", 1)
    assert checksum == zlib.crc32(FILE[16:])
    head = zlib.decompress(FILE[60 : 60 + stored], wbits=-15)
    assert len(head) == size
    index, place = json.loads(head[:text]), 60 + stored
    streams = []
    for _, *sizes in index["blocks"]:
        block = []
        for length, kept in sizes:
            data = FILE[place : place + kept]
            block.append(data if kept == length else zlib.decompress(data, wbits=-15))
            assert len(block[-1]) == length
            place += kept
        streams.append(block)
    assert place == len(FILE)
    assert [row[:3] for row in index["tensors"]] == [
        ["weight", "float32", [3000]],
        ["bias", "int32", [40]],
    ]
    encoding, (gaps, *planes) = index["blocks"][0][0], streams[0]
    assert encoding == "gaps"
    words, position = [0] * 3000, 0
    values = iter(zip(*planes, strict=True))
    for gap in gaps:
        position += gap
        if gap != 255:
            words[position] = int.from_bytes(bytes(next(values)), "little")
            position += 1
    weight = struct.unpack("<3000f", struct.pack("<3000I", *words))
    assert weight == tuple(ARRAYS["weight"].tolist())
    content = struct.pack("<3000I", *words) + ARRAYS["bias"].tobytes()
    assert sha256(content).digest() == FILE[28:60]
    assert unpack(FILE) == content


def checked(data: bytes) -> bytes:
    """Return a changed file with the checksum that it then has, as an attacker can write it."""
    return data[:12] + struct.pack("<I", zlib.crc32(data[16:])) + data[16:]


@settings(max_examples=300)
@given(st.integers(0, len(FILE) - 1), st.integers(1, 255), st.booleans())
def test_a_changed_byte(place: int, change: int, known: bool) -> None:
    data = bytearray(FILE)
    data[place] ^= change
    if not known:
        with pytest.raises(ArtifactError, match="file"):
            to_arrays(bytes(data), "file")
        return
    try:
        found = to_arrays(checked(bytes(data)), "file")
    except ArtifactError as error:
        assert "file" in str(error)  # noqa: PT017
    else:
        assert sum(array.nbytes for array in found.values()) < 1032 * len(FILE)


@given(st.integers(0, len(FILE) - 1))
def test_a_cut_file(size: int) -> None:
    for data in (FILE[:size], FILE + bytes(size + 1)):
        with pytest.raises(ArtifactError, match="file"):
            unpack(data, "file")
        if len(data) >= HEADER.size:
            with pytest.raises(ArtifactError, match="file"):
                unpack(checked(data), "file")


@given(st.binary(max_size=200))
def test_no_packed_file(data: bytes) -> None:
    with pytest.raises(ArtifactError, match="file is not a packed file"):
        parse(data, "file")


@pytest.mark.parametrize("version", [0, 2, 2**32 - 1])
def test_another_version(version: int) -> None:
    data = FILE[:8] + struct.pack("<I", version) + FILE[12:]
    with pytest.raises(ArtifactError, match=f"file has version {version} of the packed format"):
        parse(data, "file")


def forged(index: object, streams: bytes = b"", skeleton: bytes = b"") -> bytes:
    """Return a file with an index of one's own."""
    text = (index if isinstance(index, str) else json.dumps(index)).encode()
    head = zlib.compressobj(9, zlib.DEFLATED, -15)
    stored = head.compress(text + skeleton) + head.flush()
    fields = (len(stored), len(text + skeleton), len(text), bytes(32))
    return checked(HEADER.pack(b"\x93LITPACK", 1, 0, *fields) + stored + streams)


def one(name: object = "w", dtype: object = "int8", shape: object = (2,), *more: object) -> object:
    return {"tensors": [[name, dtype, shape, *(more or (0, 0))]], "blocks": [["dense", [2, 2]]]}


def test_a_forged_file_that_is_right() -> None:
    assert to_arrays(forged(one(), b"ab"), "file")["w"].tolist() == [97, 98]


@pytest.mark.parametrize(
    "index",
    [
        "{",
        "[" * 9000,
        "[]",
        "{}",
        {"tensors": [], "blocks": [["dense", [2, 2]]]},
        one(7),
        one("w", "object"),
        one("w", []),
        one("w", "float32"),
        one("w", "int8", 2),
        one("w", "int8", (-2, -1)),
        one("w", "int8", (2.0,)),
        one("w", "int8", (True, 2)),
        one("w", "int8", (1,) * 33),
        one("w", "int8", (2**62,)),
        one("w", "int8", (2**31, 2**31)),
        one("w", "int8", (3,)),
        one("w", "int8", (2,), 1, 0),
        one("w", "int8", (2,), -1, 0),
        one("w", "int8", (2,), 0, 1),
        one("w", "int8", (2,), 0, 0, (1, 2)),
        one("w", "int8", (2,), 0, 0, (0, 0)),
        one("w", "int8", (2,), 0, 0, (1, 2, 3)),
        one("w", "uint8", (2,), 0, 0, (1, 2)),
        {"tensors": [["w", "int8", [2], 0, 0]], "blocks": [["runs", [2, 2]]]},
        {"tensors": [["w", "int8", [2], 0, 0]], "blocks": [["dense", [2, 3]]]},
        {"tensors": [["w", "int8", [2], 0, 0]], "blocks": [["dense", [1, 1]]]},
        {"tensors": [["w", "int8", [2], 0, 0]], "blocks": [["dense", [-2, -2], [4, 4]]]},
        {"tensors": [["w", "int8", [2], 0, 0]], "blocks": [["dense"]]},
        {"tensors": [["w", "int8", [2], 0, 0]], "blocks": [["dense", [2, 2]], ["dense"]]},
        {"tensors": [["w", "int8", [2], 0, 0]], "blocks": [["dense", [2, 2], [0, 0]]]},
        {"tensors": [["w", "int8", [90], 0, 0]], "blocks": [["gaps", [1, 1], [1, 1]]]},
    ],
)
def test_a_forged_index(index: object) -> None:
    with pytest.raises(ArtifactError, match="file"):
        to_arrays(forged(index, b"ab"), "file")
    with pytest.raises(ArtifactError, match="file"):
        unpack(forged(index, b"ab"), "file")


def test_codes_and_steps_of_others() -> None:
    index = one("w", "int8", (2,), 0, 0, (1, 2))
    index["blocks"] = [["dense", [2, 2], [2, 2]]]  # type: ignore[index]
    steps = struct.pack("<H", 512)
    assert to_arrays(forged(index, b"\x03\xf8" + steps))["w"].tolist() == [6, -16]
    with pytest.raises(ArtifactError, match="w has other codes"):
        to_arrays(forged(index, b"\x03\x08" + steps))


def test_a_skeleton_alone() -> None:
    assert unpack(to_bytes(Packed((), (), (), b"graph", bytes(32)))) == b"graph"
