"""Hidden partial files and folders next to what they replace; those of killed runs are removed."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

#: Last part of the names of partial files and folders, and of what was moved aside.
PART, OLD = "part", "old"
#: Longest name of a file, in bytes, on the usual file systems.
LONGEST = 255
#: How often a part is made again that another process removes before it is locked.
TRIES = 10
#: Numbers the parts of this process, whose threads may write the same file.
_NUMBERS = itertools.count()


class Part:
    """A partial file or folder, locked for as long as this process writes it.

    The system drops the lock of a killed process, so the next writer can tell its litter from the
    part of a process that is still writing.

    Args:
        target: The file or folder that it is to replace.
        folder: Whether it is a folder.

    Attributes:
        path: Where to write.

    Raises:
        OSError: If it cannot be made.
    """

    def __init__(self, target: Path, folder: bool) -> None:
        for _ in range(TRIES):
            self.path = sibling(target, PART)
            discard(self.path)
            if folder:
                self.path.mkdir()
            else:
                self.path.touch()
            self._lock = _locked(self.path)
            if self._lock is not None:
                break
            discard(self.path)  # another process took it for litter before it was locked
        if self._lock is None:  # the file system has no locks
            self.path.mkdir() if folder else self.path.touch()

    def relock(self) -> None:
        """Lock the file that now has the name: a writer may have replaced it by another."""
        self.unlock()
        self._lock = _locked(self.path)

    def unlock(self) -> None:
        """Drop the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


@contextmanager
def new_part(target: Path, folder: bool) -> Iterator[Part]:
    """Yield a new part. Litter next to the target is removed before, and the part after.

    Args:
        target: The file or folder that it is to replace.
        folder: Whether it is a folder.

    Raises:
        OSError: If it cannot be made.
    """
    clear_litter(target)
    part = Part(target, folder)
    try:
        yield part
    finally:  # also after Ctrl-C, no part may stay
        discard(part.path)
        part.unlock()


def sibling(target: Path, role: str) -> Path:
    """Return a new hidden path next to another; no other call or process returns it.

    Args:
        target: The other path.
        role: ``part`` or ``old``.
    """
    return target.with_name(f"{_start(target)}.{os.getpid()}-{next(_NUMBERS)}.{role}")


def _start(target: Path) -> str:
    """Return how the names of hidden paths next to another begin."""
    return "." + target.name.encode()[: LONGEST - 40].decode(errors="ignore")


def discard(path: Path) -> None:
    """Remove a file or a folder, if it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def clear_litter(target: Path) -> None:
    """Remove what killed writers of a file or folder left next to it.

    If one was killed between two renames, its old folder is put back first.

    Args:
        target: The file or folder.
    """
    for role in (OLD, PART):
        for path in _siblings(target, role):
            lock = _locked(path)
            if lock is None:
                continue  # another process is writing it, or the system has no locks
            try:
                if role == OLD and not os.path.lexists(target):
                    with suppress(OSError):
                        os.rename(path, target)
                discard(path)
            finally:
                os.close(lock)


def _siblings(target: Path, role: str) -> list[Path]:
    """Return the parts of a target that any process left."""
    pattern = re.compile(rf"{re.escape(_start(target))}\.[0-9]+(-[0-9]+)?\.{role}")
    try:
        names = os.listdir(target.parent)
    except OSError:  # it cannot be listed: nothing there can be removed either
        return []
    return [target.with_name(name) for name in sorted(names) if pattern.fullmatch(name)]


if sys.platform == "win32":

    def _locked(path: Path) -> int | None:
        """Return None: Windows cannot lock a folder, so the parts of a killed run stay."""

else:

    def _locked(path: Path) -> int | None:
        """Return a file descriptor that locks a path; None if it cannot be locked now."""
        try:
            handle = os.open(path, os.O_RDONLY)
        except OSError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_ino == os.stat(path).st_ino:
                return handle
        except OSError:  # another process has the lock, or has removed the path
            pass
        os.close(handle)
        return None
