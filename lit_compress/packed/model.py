"""Pack an ONNX file, or arrays by name, and read them again. Reading needs numpy alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lit_compress.errors import ArtifactError, InvalidArgumentError
from lit_compress.packed.codec import Block, decode
from lit_compress.packed.grouping import group
from lit_compress.packed.layout import LIMIT, MAGIC, Packed, parse, to_bytes
from lit_compress.packed.levels import to_weights
from lit_compress.packed.onnx_tensors import find_tensors
from lit_compress.packed.streams import read
from lit_compress.packed.tensor import DTYPES, Tensor


def pack_onnx(data: bytes, source: str = "the ONNX file") -> bytes:
    """Return the packed file of an ONNX file. :func:`unpack` gives the same bytes again.

    Args:
        data: Content of the ONNX file.
        source: Its name, for error messages.

    Raises:
        ArtifactError: If it is not an ONNX file, keeps tensors in other files, or is larger than
            2 GiB.

    Example:
        >>> import numpy as np
        >>> from onnx import helper, numpy_helper
        >>> weight = np.zeros((1000, 1000), np.float32)
        >>> weight[::20] = np.random.rand(50, 1000)
        >>> tensor = numpy_helper.from_array(weight, "weight")
        >>> data = helper.make_model(helper.make_graph([], "net", [], [], [tensor]))
        >>> data = data.SerializeToString()
        >>> packed = pack_onnx(data)
        >>> unpack(packed) == data, len(packed) < 0.06 * len(data)
        (True, True)
    """
    return pack_tensors(data, find_tensors(data, source), source)


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the packed file of arrays, such as the weights of a network.

    Args:
        arrays: Arrays of numbers by name: booleans, integers, floats of 16 to 64 bits, complex.

    Raises:
        InvalidArgumentError: If an array holds something else.
        ArtifactError: If they have more than 2 GiB.

    Example:
        >>> packed = pack_arrays({"weight": np.eye(100, dtype=np.float32)})
        >>> len(packed) < 300, to_arrays(packed)["weight"].sum()
        (True, np.float32(100.0))
    """
    parts, tensors, place = [], [], 0
    for name, array in arrays.items():
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        if little.dtype.name not in DTYPES:
            raise InvalidArgumentError(
                f"{name} has the type {array.dtype}, which cannot be packed; it takes: "
                f"{', '.join(sorted(DTYPES))}"
            )
        tensors.append(Tensor(name, little.dtype.name, array.shape, place))
        parts.append(little.tobytes())
        place += len(parts[-1])
    return pack_tensors(b"".join(parts), tensors, "the arrays")


def pack_tensors(
    data: bytes,
    tensors: Sequence[Tensor],
    source: str,
    codes: Mapping[int, tuple[np.ndarray, np.ndarray]] | None = None,
) -> bytes:
    """Return the packed file of a file with tensors in it, after a check that it unpacks.

    Args:
        data: The file.
        tensors: Its tensors, in the order of their bytes.
        source: Its name, for error messages.
        codes: By place of a tensor its codes of 4 bits and its steps, see
            :func:`~lit_compress.packed.levels.to_codes`.

    Raises:
        ArtifactError: If the file is larger than 2 GiB.
    """
    if len(data) > LIMIT:
        raise ArtifactError(f"{source} is larger than 2 GiB: it cannot be packed")
    ends = [0, *(tensor.end for tensor in tensors)]
    starts = [*(tensor.start for tensor in tensors), len(data)]
    skeleton = b"".join(data[end:start] for end, start in zip(ends, starts, strict=True))
    owners, blocks = group(data, tensors, codes or {})
    digest = hashlib.sha256(data).digest()
    packed = to_bytes(Packed(tuple(tensors), owners, blocks, skeleton, digest))
    if unpack(packed, source) != data:
        raise ArtifactError(f"{source} does not come back from its packed form: report this")
    return packed


def unpack(data: bytes, source: str = "the packed file") -> bytes:
    """Return the file that was packed, byte for byte.

    Args:
        data: Content of the packed file.
        source: Its name, for error messages.

    Raises:
        ArtifactError: If it is not a packed file, is damaged, or has a newer version.
    """
    packed = parse(data, source)
    pieces: list[Any] = []
    left = memoryview(packed.skeleton)
    place = 0
    for tensor, words in zip(packed.tensors, _words(packed, source), strict=True):
        skip = tensor.start - place
        pieces += [left[:skip], words.view(np.uint8).data]
        left, place = left[skip:], tensor.end
    return b"".join([*pieces, left])


def to_arrays(data: bytes, source: str = "the packed file") -> dict[str, np.ndarray]:
    """Return the tensors of a packed file by name. Of an ONNX file, those of 48 bytes and more.

    Args:
        data: Content of the packed file.
        source: Its name, for error messages.

    Raises:
        ArtifactError: If it is not a packed file, is damaged, or has a newer version.
    """
    packed = parse(data, source)
    return {
        tensor.name: words.view(np.dtype(tensor.dtype).newbyteorder("<")).reshape(tensor.shape)
        for tensor, words in zip(packed.tensors, _words(packed, source), strict=True)
    }


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Return the tensors of a packed file by name; see :func:`to_arrays`."""
    return to_arrays(Path(path).read_bytes(), str(path))


def onnx_content(data: bytes, source: str) -> bytes:
    """Return the ONNX file in the content of a file, which may be packed.

    Args:
        data: Content of the file. If it begins with the mark of packed files, it is unpacked.
        source: Its name, for error messages.

    Raises:
        ArtifactError: If a packed file is damaged.
    """
    return unpack(data, source) if data.startswith(MAGIC) else data


def _words(packed: Packed, source: str) -> Iterator[np.ndarray]:
    """Yield the words of each tensor."""
    counts = [0] * len(packed.blocks)
    word = [1] * len(packed.blocks)
    for tensor, owner in zip(packed.tensors, packed.owners, strict=True):
        counts[owner] += tensor.size // tensor.word
        word[owner] = tensor.word
    left: dict[int, np.ndarray] = {}
    for tensor, owner in zip(packed.tensors, packed.owners, strict=True):
        if owner not in left:
            left[owner] = _block(packed.blocks[owner], tensor, counts[owner], word[owner], source)
        count = tensor.size // tensor.word
        yield left[owner][:count]
        left[owner] = left[owner][count:]


def _block(block: Block, tensor: Tensor, count: int, word: int, source: str) -> np.ndarray:
    if tensor.channels is None:
        return decode(block, count, word, source)
    *streams, last = block.streams
    codes = decode(Block(block.encoding, tuple(streams)), count, word, source).view(np.int8)
    steps = np.frombuffer(read(last, source), np.uint8)
    if len(steps) != 2 * tensor.channels.count or (np.abs(codes + 0.5) > 8).any():
        raise ArtifactError(f"{source} is damaged: {tensor.name} has other codes; write it again")
    return to_weights(codes, steps.view("<u2"), tensor.channels).view(np.uint8)
