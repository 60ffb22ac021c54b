"""Read a file of numpy arrays that anyone may have made."""

from __future__ import annotations

from io import BytesIO
from zipfile import ZipFile, ZipInfo

import numpy as np

from lit_compress.files.zips import check_sizes

#: Most arrays in a file, and most characters in the header of one.
MOST, HEADER = 1000, 4096


def read_arrays(content: bytes, limit: int, rows: int) -> dict[str, np.ndarray]:
    """Return the arrays of an ``.npz`` file; nothing in it is unpickled.

    All sizes are checked before an array is unpacked.

    Args:
        content: Content of the file.
        limit: Largest size of all arrays together, in bytes.
        rows: Largest size of the first axis of arrays with several axes.

    Raises:
        ValueError: If an array is larger, does not fill its entry, or is not of numbers.
        Exception: Of ``zipfile``, ``zlib`` and ``numpy``, for a damaged file.
    """
    with ZipFile(BytesIO(content)) as archive:
        infos = archive.infolist()
        check_sizes(infos, limit, MOST)
        for info in infos:
            _check_header(archive, info, rows)
        return {info.filename.removesuffix(".npy"): _array(archive.read(info)) for info in infos}


def _check_header(archive: ZipFile, info: ZipInfo, rows: int) -> None:
    """Check shape and type of an array without unpacking it."""
    with archive.open(info) as entry:
        start = BytesIO(entry.read(HEADER))
    shape, dtype = _shape_and_type(start)
    name = info.filename[:80]
    if dtype.kind not in "biuf":
        raise ValueError(f"{name} holds {dtype}, and numbers are expected")
    if any(isinstance(size, bool) or size < 0 for size in shape):
        raise ValueError(f"{name} has the shape {shape}")
    if len(shape) > 1 and shape[0] > rows:
        raise ValueError(f"{name} has {shape[0]:,} rows, and {rows} are the most")
    size = start.tell() + int(np.prod([int(one) for one in shape], dtype=object)) * dtype.itemsize
    if size != info.file_size:
        raise ValueError(f"{name} has {info.file_size:,} bytes, and its shape takes {size:,}")


def _shape_and_type(start: BytesIO) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    version = np.lib.format.read_magic(start)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array has version {version} of numpy's format")
    one = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(start)
    return tuple(shape), dtype


def _array(entry: bytes) -> np.ndarray:
    found: np.ndarray = np.lib.format.read_array(BytesIO(entry), allow_pickle=False)
    return found
