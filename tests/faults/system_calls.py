"""Let a call of the operating system fail, or kill the process in it."""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from lit_compress.files import folders

How = Literal["error", "kill"]
#: Functions of ``os`` with which files are opened, written, flushed, moved and removed.
CALLS = (
    *("open", "write", "sendfile", "fsync", "close", "rename", "replace", "chmod"),
    *("mkdir", "rmdir", "unlink", "remove", "utime"),
)


@dataclass
class Calls:
    """Counts calls, and lets one of them fail.

    Attributes:
        number: The call that fails, from 1.
        how: Whether it raises an OSError, or the process is killed.
        count: Calls so far.
        failed: Name of the call that failed.
    """

    number: int
    how: How
    count: int = 0
    failed: str = ""

    def come(self, name: str, before: Callable[[], object] = lambda: None) -> None:
        """Count a call, and let it fail if it is its turn.

        Args:
            name: Name of the call.
            before: What it still does before.
        """
        self.count += 1
        if self.count == self.number:
            self.failed = name
            before()
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, "No space left on device")

    def wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function with the count around it."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self.come(name)
            return real(*args, **kwargs)

        return call

    def opened(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``open`` with the count around it; each write to its files is counted too."""

        def call(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            self.come(f"open {mode}")
            found = real(file, mode, *args, **kwargs)
            return File(found, self) if set(mode) & set("wax+") else found

        return call


class File:
    """A file whose writes are counted. A write that fails has written half."""

    def __init__(self, file: Any, calls: Calls) -> None:
        self._file, self._calls = file, calls

    def write(self, data: Any) -> Any:
        def half() -> None:
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        self._calls.come("write", half)
        return self._file.write(data)

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Any:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def failing(number: int, how: How) -> Iterator[Calls]:
    """Let a call fail in the block, or kill this process.

    Args:
        number: Number of the call, from 1.
        how: Whether it raises an OSError, or the process is killed.
    """
    calls = Calls(number, how)
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, calls.wrapped(name, getattr(os, name)))
        patch.setattr(builtins, "open", calls.opened(open))
        patch.setattr(io, "open", builtins.open)
        if how == "kill":  # a system that cannot exchange two folders says so, and no error comes
            patch.setattr(folders, "exchange", calls.wrapped("exchange", folders.exchange))
        yield calls
