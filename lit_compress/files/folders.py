"""Replace a folder by another in one step, where the system can."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lit_compress.files.partial import OLD, discard, new_part, sibling
from lit_compress.files.whole import sync

#: Linux's flag RENAME_EXCHANGE, with which renameat2 exchanges two paths, and macOS's for renamex.
EXCHANGE, SWAP = 2, 2
#: Linux's AT_FDCWD: paths are relative to the working directory.
HERE = -100


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder, which replaces another when the block succeeds.

    Linux and macOS exchange the two in one step. Where the file system cannot, the old folder is
    renamed first; if the process is killed just then, the next writer puts it back. On Windows it
    stays under its hidden name.

    Args:
        target: The folder to replace; it may not exist. Its parent exists.

    Raises:
        OSError: If the folder cannot be written. The old one is kept then.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as parent:
        ...     with whole_folder(Path(parent, "cards")) as partial:
        ...         _ = (partial / "a.txt").write_text("a")
        ...     [file.name for file in Path(parent, "cards").iterdir()]
        ['a.txt']
    """
    with new_part(target, folder=True) as part:
        yield part.path
        for file in part.path.iterdir():
            sync(file)
        sync(part.path)
        put_in_place(part.path, target)
        sync(target.parent)


def put_in_place(partial: Path, target: Path) -> None:
    """Move a folder to a path. What stood there is removed, or is then at the folder's old path.

    Args:
        partial: The new folder.
        target: Where it is to stand.

    Raises:
        OSError: If it cannot be moved.
    """
    if not target.exists():
        try:
            os.rename(partial, target)
            return
        except OSError:
            if not target.exists():
                raise  # else another writer was faster: replace its folder
    if not exchange(partial, target):
        _in_two_steps(partial, target)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two paths in one step.

    Args:
        one: A file or folder.
        other: Another one, on the same file system.

    Returns:
        Whether the system could do it.
    """
    if sys.platform != "win32":
        libc = ctypes.CDLL(None, use_errno=True)
        first, second = os.fsencode(one), os.fsencode(other)
        if hasattr(libc, "renameat2"):
            return bool(libc.renameat2(HERE, first, HERE, second, EXCHANGE) == 0)
        if hasattr(libc, "renamex_np"):
            return bool(libc.renamex_np(first, second, SWAP) == 0)
    return False


def _in_two_steps(partial: Path, target: Path) -> None:
    previous = sibling(target, OLD)
    discard(previous)
    try:
        os.rename(target, previous)
        os.rename(partial, target)
    finally:  # also after Ctrl-C between the two
        if previous.exists() and not target.exists():
            os.rename(previous, target)
        discard(previous)
