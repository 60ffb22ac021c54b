"""Finding, downloading and reading torchvision's data sets, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from lit_compress.errors import CorruptDataError, DataNotFoundError

Made = TypeVar("Made")


def open_dataset(
    name: str, data_dir: str, wanted: Iterable[Path], download: bool, make: Callable[[bool], Made]
) -> Made:
    """Return a torchvision data set, downloaded if its files are missing and that is allowed.

    Args:
        name: Name for the messages.
        data_dir: Its root.
        wanted: Files it is read from.
        download: Whether missing files may be downloaded.
        make: Makes the data set, given whether to download.

    Raises:
        DataNotFoundError: If files are missing and cannot be had.
        CorruptDataError: If the files are there but cannot be read.
    """
    missing = [path for path in wanted if not path.is_file()]
    if missing and not download:
        raise DataNotFoundError(_not_found(name, data_dir, missing, "data.download is false"))
    try:
        return make(bool(missing))
    except Exception as error:  # urllib, tarfile, pickle, numpy and torchvision raise their own
        first = next(iter(str(error).splitlines()), type(error).__name__)
        if missing:
            reason = f"the download failed: {first}"
            raise DataNotFoundError(_not_found(name, data_dir, missing, reason)) from error
        raise CorruptDataError(
            f"the files of {name} under {Path(data_dir).resolve()} are there but cannot be read "
            f"({first}): delete them and get them anew"
        ) from error


def _not_found(name: str, data_dir: str, missing: list[Path], reason: str) -> str:
    return (
        f"{name} is not under {Path(data_dir).resolve()} (looked for "
        f"{', '.join(str(path.relative_to(data_dir)) for path in missing[:2])}"
        f"{' ...' if len(missing) > 2 else ''}), and {reason}. Either point --data.data_dir at a "
        "folder that has it in torchvision's layout, or run once where there is a network with "
        "--data.download true"
    )
