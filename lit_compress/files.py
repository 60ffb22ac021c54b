"""Writing a file whole or not at all: temporary name, fsync, rename."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_whole(path: str | Path, content: str | bytes) -> Path:
    """Write a file in one step: a reader sees the old content or the new, never a part.

    Args:
        path: The file; its folder is made where it is missing.
        content: Text (as UTF-8) or bytes.

    Returns:
        The path.

    Raises:
        OSError: If it cannot be written; what was there before stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:  # Ctrl-C leaves no part either
        with suppress(OSError):
            partial.unlink()
        raise
    return path
