"""The rows of a scan, kept in a CSV file from which it can go on."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from lit_compress.errors import ScanError
from lit_compress.files import write_whole

TABLE, SETTINGS = "scan.csv", "scan.json"
FIXED = ("layer", "ratio", "pruned", "of")


@dataclass(frozen=True)
class Row:
    """What a layer's pruning costs.

    Attributes:
        layer: Name of the weight, or ``*`` for all layers.
        ratio: Share that was pruned.
        pruned: How many elements or channels that was.
        of: How many there are.
        scores: What validation logged.
    """

    layer: str
    ratio: Fraction
    pruned: int
    of: int
    scores: Mapping[str, float]


@dataclass
class Table:
    """The rows so far, and the file that they are kept in.

    Attributes:
        folder: Where the file is.
        settings: What the scan depends on; rows of other settings are not mixed in.
        rows: By layer and ratio.
    """

    folder: Path
    settings: Mapping[str, Any]
    rows: dict[tuple[str, Fraction], Row] = field(default_factory=dict)

    @classmethod
    def opened(cls, folder: Path, settings: Mapping[str, Any]) -> Table:
        """Return the table of a folder: with the rows of an earlier scan of the same settings.

        Raises:
            ScanError: If the folder holds another scan, or its files are damaged.
        """
        table = cls(folder, settings)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ScanError(f"dirpath {folder} cannot be made: {error.strerror}") from error
        before = folder / SETTINGS
        if before.is_file():
            found = _json(before)
            other = [key for key in settings if _text(found.get(key)) != _text(settings[key])]
            if other:
                raise ScanError(
                    f"{folder} holds a scan with another {other[0]} ({_short(found.get(other[0]))}"
                    f", now {_short(settings[other[0]])}): give another dirpath, or remove it"
                )
            if (folder / TABLE).is_file():
                table.rows = {(row.layer, row.ratio): row for row in cls.read(folder / TABLE)}
        return table

    @staticmethod
    def read(path: Path) -> list[Row]:
        """Return the rows of a file.

        Raises:
            ScanError: If it is damaged.
        """
        rows = []
        try:
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.reader(file)
                _, _, _, _, *keys = next(reader)  # a metric may be called as these are
                for layer, ratio, pruned, of, *values in reader:
                    pairs = zip(keys, values, strict=True)
                    scores = {key: float(value) for key, value in pairs if value != ""}
                    share = Fraction(repr(float(ratio)))
                    rows.append(Row(layer, share, int(pruned), int(of), scores))
        except (StopIteration, ValueError, UnicodeDecodeError, csv.Error) as error:
            raise ScanError(f"{path} is damaged ({error}): remove it to scan anew") from error
        return rows

    def add(self, row: Row) -> None:
        """Add a row."""
        self.rows[row.layer, row.ratio] = row

    def write(self) -> None:
        """Write the rows, and the settings beside them, each in one step."""
        keys = sorted({key for row in self.rows.values() for key in row.scores})
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*FIXED, *keys])
        for row in self.rows.values():
            scores = [repr(row.scores[key]) if key in row.scores else "" for key in keys]
            writer.writerow([row.layer, float(row.ratio), row.pruned, row.of, *scores])
        write_whole(self.folder / SETTINGS, json.dumps(dict(self.settings), indent=1) + "\n")
        write_whole(self.folder / TABLE, text.getvalue())


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ScanError(f"{path} is damaged ({error}): remove it to scan anew") from error
    if not isinstance(content, dict):
        raise ScanError(f"{path} is damaged: remove it to scan anew")
    return content


def _text(value: object) -> str:
    return json.dumps(value)  # NaN is NaN then


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
