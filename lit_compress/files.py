"""Write a file completely or not at all: temporary name, fsync, rename."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


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
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:  # also after Ctrl-C, no partial file may stay
        with suppress(OSError):
            partial.unlink()
        raise
    return path


def give_usual_permissions(path: Path) -> None:
    """Give a file the permissions of a new file in its folder, which the umask sets.

    safetensors writes files that only their owner can read, and an artefact is for others too.

    Args:
        path: The file.
    """
    probe = path.with_name(f".{path.name}.{os.getpid()}.probe")
    with probe.open("xb"):
        wanted = probe.stat().st_mode
    probe.unlink()
    if path.stat().st_mode != wanted:
        path.chmod(wanted)
