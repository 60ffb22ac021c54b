"""The verb ``report``: one HTML page about the runs in a folder."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from lit_compress.artifact.card import Card
from lit_compress.artifact.folder.card import read_card
from lit_compress.artifact.write import CARD
from lit_compress.errors import InvalidArgumentError, LitCompressError, ReportError
from lit_compress.files import write_whole
from lit_compress.report.content import Drawing, Run, Skipped
from lit_compress.report.page import build_page, check_packages
from lit_compress.sensitivity.table import TABLE

#: The largest number in a card that is drawn.
LARGEST = 1e15
#: Parts of a card whose numbers are drawn.
DRAWN = ("variants", "pruning", "history", "unpruned")


class _Parser(ArgumentParser):
    """Raises an error of this package, where argparse would stop the program."""

    def error(self, message: str) -> NoReturn:
        raise InvalidArgumentError(f"report: {message}")


def report(words: Sequence[str]) -> Path:
    """Write the page from the words of the command line after ``report``.

    Args:
        words: The options.

    Returns:
        The path of the page.

    Raises:
        InvalidArgumentError: If an option is unknown.
        ReportError: If there is no card that can be read, or a package is missing.
        SystemExit: From ``--help``, with code 0.
    """
    parser = _Parser(
        "lit-compress report",
        description="Write one HTML page about the runs in a folder. It needs nothing else.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--runs", default="runs", metavar="DIR", help="folder with card.json files (%(default)s)"
    )
    parser.add_argument(
        "--output", default="report.html", metavar="FILE", help="the page (%(default)s)"
    )
    given = parser.parse_args(words)
    return write_report(given.runs, given.output)


def write_report(runs: str | Path = "runs", output: str | Path = "report.html") -> Path:
    """Write one HTML page about the cards of a folder and its subfolders.

    Args:
        runs: The folder. Sensitivity scans in it are shown, too.
        output: The page. It is written completely or not at all.

    Returns:
        The path of the page.

    Raises:
        ReportError: If there is no card that can be read, or a package is missing.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from lit_compress.artifact import Card, Variant
        >>> with TemporaryDirectory() as folder:
        ...     text = Card("digits", (Variant("dense", 1000, 1000),), {}).to_json()
        ...     _ = (Path(folder) / "card.json").write_text(text)
        ...     write_report(folder, Path(folder) / "report.html").name
        'report.html'
    """
    check_packages()
    folder = Path(runs)
    if not folder.is_dir():
        raise ReportError(f"--runs {folder} is not a folder: give the folder of the runs")
    found, skipped = _read_cards(folder)
    if not found:
        raise ReportError(_nothing(folder, skipped))
    scans, damaged = _read_scans(folder, found)
    return write_whole(output, build_page(found, [*skipped, *damaged], scans))


def _nothing(folder: Path, skipped: Sequence[Skipped]) -> str:
    if not skipped:
        return f"there is no {CARD} below {folder}: a fit with CompressionReport writes one"
    first = skipped[0]
    return f"no {CARD} below {folder} can be read; {first.path}: {first.reason}"


def _files(folder: Path, name: str) -> Iterator[tuple[Path, str]]:
    """Yield the files of a name in a folder and below, and their paths from there, in order."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        path = Path(parent) / name
        if name in names and path.is_file():
            yield path, path.relative_to(folder).as_posix()


def _read_cards(folder: Path) -> tuple[list[Run], list[Skipped]]:
    runs: list[Run] = []
    skipped: list[Skipped] = []
    for path, place in _files(folder, CARD):
        try:
            runs.append(Run(len(runs) + 1, place, _read_card(path.parent)))
        except (LitCompressError, OSError) as error:
            skipped.append(Skipped(place, str(error)))
        except RecursionError:
            skipped.append(Skipped(place, "it is nested too deeply to be a card"))
    return runs, skipped


def _read_card(folder: Path) -> Card:
    """Return a card whose numbers can be drawn."""
    card = read_card(folder)
    numbers = _numbers([asdict(card)[part] for part in DRAWN])
    if not all(-LARGEST <= number <= LARGEST for number in numbers):
        raise ReportError(f"a number in it is beyond {LARGEST:g}, so it was not measured")
    return card


def _numbers(value: Any) -> Iterator[float]:
    """Yield all numbers in nested values."""
    if isinstance(value, (int, float)):
        yield value
    elif isinstance(value, Mapping):
        yield from (number for item in value.values() for number in _numbers(item))
    elif isinstance(value, (list, tuple)):
        yield from (number for item in value for number in _numbers(item))


def _read_scans(folder: Path, runs: Sequence[Run]) -> tuple[list[Drawing], list[Skipped]]:
    metrics = [v.metric.name for run in runs for v in run.card.variants if v.metric]
    scans: list[Drawing] = []
    skipped: list[Skipped] = []
    for path, place in _files(folder, TABLE):
        from lit_compress.sensitivity.drawing import scan_drawing  # imports torch

        try:
            scans.append(scan_drawing(path, place, f"scan-{len(scans) + 1}", metrics))
        except (LitCompressError, OSError) as error:
            skipped.append(Skipped(place, str(error)))
    return scans, skipped
