"""Find, download and read the data sets of torchvision, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from lit_compress.errors import CorruptDataError, DataNotFoundError

Opened = TypeVar("Opened")


def open_dataset(
    name: str,
    data_dir: str,
    wanted: Iterable[Path],
    download: bool,
    make: Callable[[bool], Opened],
) -> Opened:
    """Return a torchvision data set; missing files are downloaded first, if that is allowed.

    Args:
        name: Name of the data set, for error messages.
        data_dir: Folder that contains the folder of the data set.
        wanted: The files that the data set is read from.
        download: Whether missing files may be downloaded.
        make: Creates the data set; its argument is whether to download.

    Raises:
        DataNotFoundError: If files are missing and cannot be downloaded.
        CorruptDataError: If the files exist but cannot be read.
    """
    missing = [path for path in wanted if not path.is_file()]
    if missing and not download:
        raise DataNotFoundError(_not_found(name, data_dir, missing, "data.download is false"))
    try:
        return make(bool(missing))
    except Exception as error:  # from urllib, tarfile, pickle, numpy or torchvision
        first = next(iter(str(error).splitlines()), type(error).__name__)
        if missing:
            reason = f"the download failed: {first}"
            raise DataNotFoundError(_not_found(name, data_dir, missing, reason)) from error
        raise CorruptDataError(
            f"the files of {name} under {Path(data_dir).resolve()} exist but cannot be read "
            f"({first}): delete them and download them again"
        ) from error


def _not_found(name: str, data_dir: str, missing: list[Path], reason: str) -> str:
    return (
        f"{name} is not under {Path(data_dir).resolve()} (looked for "
        f"{', '.join(str(path.relative_to(data_dir)) for path in missing[:2])}"
        f"{' ...' if len(missing) > 2 else ''}), and {reason}. Either set --data.data_dir to a "
        "folder that has it in torchvision's layout, or run once with a network connection and "
        "--data.download true"
    )
