"""Check a zip file before another library reads it."""

from __future__ import annotations

# The encoding of names in a zip. zipfile imports it at first use, which a process that has given up
# its rights since it started may not be able to.
import encodings.cp437  # noqa: F401
from collections import Counter
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

#: Deflate makes a byte of at most about so many bytes.
HIGHEST_RATIO = 1100
#: The flag of an encrypted entry.
ENCRYPTED = 1


def check_zip(file: str | IO[bytes], limit: int, entries: int) -> None:
    """Check the sizes in a zip file, and the checksums of all entries.

    torch does not look at the checksums of a checkpoint, so a damaged weight is read as it is:
    https://github.com/pytorch/pytorch/blob/main/caffe2/serialize/inline_container.cc

    Args:
        file: Path or content of the file.
        limit: Largest size of all entries together when they are unpacked, in bytes.
        entries: Largest number of entries.

    Raises:
        ValueError: If an entry is damaged, encrypted, larger than the limit, larger than its packed
            size can give, or named twice.
        Exception: Of ``zipfile`` and ``zlib``, for a file that is not a zip file.
    """
    with ZipFile(file) as archive:
        infos = archive.infolist()
        check_sizes(infos, limit, entries)
        for info in infos:
            with archive.open(info) as entry:
                while entry.read(1 << 20):  # zipfile checks the CRC-32 at the end of an entry
                    pass


def check_sizes(infos: list[ZipInfo], limit: int, entries: int) -> None:
    """Check what the directory of a zip file says of its entries, before any is read.

    Args:
        infos: The entries.
        limit: Largest size of all entries together when they are unpacked, in bytes.
        entries: Largest number of entries.

    Raises:
        ValueError: As for :func:`check_zip`.
    """
    if len(infos) > entries:
        raise ValueError(f"it has {len(infos):,} entries, and {entries:,} are the most")
    total = sum(info.file_size for info in infos)
    if total > limit:
        raise ValueError(f"it unpacks to {total:,} bytes, and {limit:,} are the most")
    twice = [name for name, count in Counter(info.filename for info in infos).items() if count > 1]
    if twice:
        raise ValueError(f"the entry {twice[0][:80]!r} is there twice")
    for info in infos:
        _check(info)


def _check(info: ZipInfo) -> None:
    name: Any = info.filename[:80]
    if info.flag_bits & ENCRYPTED:
        raise ValueError(f"the entry {name!r} is encrypted")
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"the entry {name!r} is compressed by method {info.compress_type}")
    if info.file_size > HIGHEST_RATIO * info.compress_size + 64:
        raise ValueError(f"the entry {name!r} claims {info.file_size:,} bytes, more than it packs")
