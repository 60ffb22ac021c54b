"""The bytes of a packed file: a fixed header, the head with index and skeleton, the streams.

``docs/packed.md`` describes them for a reader in another language.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from lit_compress.errors import ArtifactError
from lit_compress.files.json_text import parse_json
from lit_compress.packed.codec import Block
from lit_compress.packed.index import index_text, parse_index
from lit_compress.packed.streams import RATIO, deflate, inflate
from lit_compress.packed.tensor import Tensor

MAGIC = b"\x93LITPACK"
VERSION = 1
#: Magic, version, CRC-32 of all that follows it, stored and real size of the head, size of the
#: index, SHA-256 of the unpacked file.
HEADER = struct.Struct("<8sIIIII32s")
#: What the CRC-32 is of begins here.
CHECKED = 16
#: Largest unpacked file in bytes: protobuf, so ONNX, has the same limit.
LIMIT = 2**31 - 1
#: Largest index in bytes, room for more than 100,000 tensors; a larger one is not parsed.
INDEX_LIMIT = 16 << 20


@dataclass(frozen=True)
class Packed:
    """The content of a packed file, with the streams still deflated.

    Attributes:
        tensors: The tensors, in the order of their bytes in the unpacked file.
        owners: For each tensor the number of its block.
        blocks: The blocks. One holds the elements of its tensors, one tensor after the other.
        skeleton: The unpacked file without the bytes of the tensors.
        digest: SHA-256 of the unpacked file, 32 bytes.
        head: Number of stored bytes that are no weights: header, index and skeleton.
    """

    tensors: tuple[Tensor, ...]
    owners: tuple[int, ...]
    blocks: tuple[Block, ...]
    skeleton: bytes
    digest: bytes
    head: int = 0


def to_bytes(packed: Packed) -> bytes:
    """Return the file of a content.

    Example:
        >>> empty = Packed((), (), (), b"a graph", bytes(32))
        >>> parse(to_bytes(empty), "example").skeleton
        b'a graph'
    """
    text = index_text(packed.tensors, packed.owners, packed.blocks).encode()
    content = text + packed.skeleton
    head = deflate(content)
    fields = (len(head), len(content), len(text), packed.digest)
    streams = [stream.stored for block in packed.blocks for stream in block.streams]
    body = b"".join([HEADER.pack(MAGIC, VERSION, 0, *fields)[CHECKED:], head, *streams])
    return HEADER.pack(MAGIC, VERSION, zlib.crc32(body), *fields)[:CHECKED] + body


def parse(data: bytes, source: str) -> Packed:
    """Return the content of a file, after a check of its checksum and its index.

    Args:
        data: The file.
        source: Its name, for error messages.

    Raises:
        ArtifactError: If it is not a packed file, is damaged, or has a newer version.
    """
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        raise ArtifactError(f"{source} is not a packed file: pack the artefact again")
    _, version, checksum, stored, size, text, digest = HEADER.unpack_from(data)
    if version != VERSION:
        raise ArtifactError(
            f"{source} has version {version} of the packed format, but this lit-compress reads "
            f"{VERSION}: update lit-compress, or pack the artefact again"
        )
    view = memoryview(data)
    if zlib.crc32(view[CHECKED:]) != checksum:
        raise ArtifactError(f"{source} has another checksum than it states: copy it again")
    begin = HEADER.size + stored
    if begin > len(data) or text > min(size, INDEX_LIMIT) or size > LIMIT:
        raise ArtifactError(f"{source} is damaged: its head is too long; write it again")
    head = inflate(view[HEADER.size : begin], size, source)
    try:
        index = parse_json(head[:text])
    except ValueError as error:
        raise ArtifactError(f"{source} has an index that is not JSON ({error})") from error
    tensors, owners, blocks = parse_index(index, view[begin:], source)
    packed = Packed(tensors, owners, blocks, head[text:], digest, begin)
    _check_sizes(packed, source)
    return packed


def _check_sizes(packed: Packed, source: str) -> None:
    """Refuse sizes that the streams cannot give, before memory is taken for them."""
    wanted = [0] * len(packed.blocks)
    for tensor, owner in zip(packed.tensors, packed.owners, strict=True):
        wanted[owner] += tensor.size
    skips = packed.tensors[-1].end - sum(wanted) if packed.tensors else 0
    if skips > len(packed.skeleton) or len(packed.skeleton) + sum(wanted) > LIMIT:
        raise ArtifactError(f"{source} is damaged: its tensors are larger than a file can be")
    for size, block in zip(wanted, packed.blocks, strict=True):
        if size > RATIO * block.stored:
            raise ArtifactError(
                f"{source} is damaged: {block.stored} bytes cannot give {size}; write it again"
            )
