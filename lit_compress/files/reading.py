"""Read files that anyone may have made: any failure becomes one error that names the file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path

from lit_compress.errors import LitCompressError

#: Longest part of another library's message that is repeated.
LONGEST = 200


@contextmanager
def reading(
    path: object, error: type[LitCompressError], remedy: str = "copy it again, or take another one"
) -> Iterator[None]:
    """Turn any error of the block into one that names the file.

    A damaged file fails in the operating system, zip, zlib, json, numpy, torch or a runtime, each
    with errors of its own. The block must do nothing but read.

    Args:
        path: The file, for the message.
        error: Class of the error to raise. Errors of this package pass unchanged.
        remedy: What to do.

    Raises:
        LitCompressError: Of the given class.

    Example:
        >>> from lit_compress.errors import ArtifactError
        >>> with reading("card.json", ArtifactError):
        ...     int("x")
        Traceback (most recent call last):
        ...
        lit_compress.errors.ArtifactError: card.json cannot be read (ValueError: invalid literal \
for int() with base 10: 'x'): copy it again, or take another one
    """
    try:
        yield
    except LitCompressError:
        raise
    except Exception as cause:
        raise error(f"{shown(path)} cannot be read ({short(cause)}): {remedy}") from cause


def read_limited(path: Path, limit: int, error: type[LitCompressError], what: str) -> bytes:
    """Return the content of a file, unless it is larger than a limit.

    Args:
        path: The file.
        limit: The limit in bytes.
        error: Class of the error to raise.
        what: What the file should be, for the message.

    Raises:
        LitCompressError: If the file is missing, larger, or cannot be read.
    """
    with reading(path, error), open(path, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise error(f"{shown(path)} is larger than {limit:,} bytes, so it is not {what}")
    return content


def as_path(path: object, error: type[LitCompressError]) -> Path:
    """Return a path, if a value is one that the system takes.

    Args:
        path: The value.
        error: Class of the error to raise.

    Raises:
        LitCompressError: If it is no path, or has a null character.
    """
    if not isinstance(path, (str, PathLike)) or not isinstance(fspath(path), str):
        raise error(f"expected the path of a file or folder, got {short_repr(path)}")
    if "\0" in fspath(path):
        raise error(f"the path {short_repr(path)} has a null character: check it")
    return Path(path)


def sha256_of(path: Path, error: type[LitCompressError]) -> str:
    """Return the SHA-256 of a file in hexadecimal, or raise an error that names it."""
    with reading(path, error), open(path, "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        return digest.hexdigest()


def short(error: BaseException) -> str:
    """Return the class of an error and the beginning of its message, in one line."""
    text = getattr(error, "strerror", None) or str(error)
    line = next((line.strip() for line in str(text).splitlines() if line.strip()), "")
    cut = line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."
    return f"{type(error).__name__}: {cut}" if cut else type(error).__name__


def shown(path: object) -> str:
    """Return a path as a message shows it: one of thousands of characters is shortened."""
    text = str(path)
    return text if len(text) <= 2 * LONGEST else f"{text[:LONGEST]} ... {text[-LONGEST:]}"


def short_repr(value: object) -> str:
    """Return the beginning of a value's representation."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
