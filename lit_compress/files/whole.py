"""Write a file completely or not at all: temporary name, fsync, rename."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lit_compress.files.partial import new_part


def write_whole(path: str | Path, content: str | bytes) -> Path:
    """Write a file in one step: a reader sees the old content or the new, never a part of it.

    Args:
        path: The file. Its folder is created if it does not exist.
        content: The whole content, as text (saved as UTF-8) or bytes.

    Returns:
        The path.

    Raises:
        OSError: If the file cannot be written. The old content is kept then.
    """
    with whole_file(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
    return Path(path)


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield the path of an empty file, which replaces another when the block succeeds.

    Args:
        path: The file to replace. Its folder is created if it does not exist.

    Raises:
        OSError: If the file cannot be written. The old content is kept then.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with whole_file(Path(folder, "notes.txt")) as partial:
        ...         _ = partial.write_text("all of it")
        ...     Path(folder, "notes.txt").read_text()
        'all of it'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_part(path, folder=False) as part:
        usual = part.path.stat().st_mode
        yield part.path
        part.relock()
        if part.path.stat().st_mode != usual:  # safetensors makes files for their owner alone
            part.path.chmod(usual)
        sync(part.path)
        os.replace(part.path, path)
        sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file or folder to the disk.

    Args:
        path: The file or folder.

    Raises:
        OSError: If the disk is full or broken.
    """
    if os.name == "nt" and path.is_dir():
        return  # Windows does not open folders
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
