"""Keep the rows of a scan in a CSV file, so that a stopped scan can continue."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from lit_compress.errors import ScanError
from lit_compress.files import write_whole
from lit_compress.pruning.layers import layer_name

#: Names of the files in the folder of a scan.
TABLE, SETTINGS = "scan.csv", "scan.json"
#: Columns of every table; the keys that validation logs follow.
FIXED = ("layer", "ratio", "pruned", "of")


@dataclass(frozen=True)
class Row:
    """One trial: a layer pruned by a ratio, and the metrics of the network then.

    Attributes:
        layer: Name of the layer's weight, or ``*`` for all layers at once.
        ratio: Share that was pruned, in [0, 1].
        pruned: Number of elements or channels that were pruned.
        of: Number of elements or channels that the layer has.
        scores: The metrics that validation logged, by key.
    """

    layer: str
    ratio: Fraction
    pruned: int
    of: int
    scores: Mapping[str, float]


@dataclass
class Table:
    """The rows of a scan so far, and the folder of their file.

    Attributes:
        folder: Folder of ``scan.csv`` and ``scan.json``.
        settings: Everything that the metrics in the rows depend on. A folder with other settings
            cannot be continued.
        rows: The rows by layer and ratio, in the order of the trials.
    """

    folder: Path
    settings: Mapping[str, Any]
    rows: dict[tuple[str, Fraction], Row] = field(default_factory=dict)

    @classmethod
    def opened(cls, folder: Path, settings: Mapping[str, Any]) -> Table:
        """Return the table of a folder, with the rows of an earlier scan with the same settings.

        Args:
            folder: The folder. It is created if it does not exist.
            settings: The settings of the scan, which JSON can hold.

        Raises:
            ScanError: If the folder has a scan with other settings, a file in it is damaged, or it
                cannot be created.
        """
        table = cls(folder, settings)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ScanError(f"dirpath {folder} cannot be created: {error.strerror}") from error
        before = folder / SETTINGS
        if before.is_file():
            found = _json(before)
            differing = [key for key in settings if _text(found.get(key)) != _text(settings[key])]
            if differing:
                key = differing[0]
                raise ScanError(
                    f"{folder} has a scan with other settings ({key} was {_short(found.get(key))}, "
                    f"now {_short(settings[key])}): give another dirpath, or delete the folder"
                )
            if (folder / TABLE).is_file():
                table.rows = {(row.layer, row.ratio): row for row in cls.read(folder / TABLE)}
        return table

    @staticmethod
    def read(path: Path) -> list[Row]:
        """Return the rows of a CSV file.

        Raises:
            ScanError: If the file is damaged.
        """
        rows = []
        try:
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.reader(file)
                _, _, _, _, *keys = next(reader)  # by place, as a metric may be called "ratio" too
                for layer, ratio, pruned, of, *values in reader:
                    pairs = zip(keys, values, strict=True)
                    scores = {key: float(value) for key, value in pairs if value != ""}
                    share = Fraction(repr(float(ratio)))
                    # Older versions wrote the name of the weight.
                    rows.append(Row(layer_name(layer), share, int(pruned), int(of), scores))
        except (StopIteration, ValueError, UnicodeDecodeError, csv.Error) as error:
            raise ScanError(f"{path} is damaged ({error}): delete it to scan again") from error
        return rows

    def add(self, row: Row) -> None:
        """Add a row, or replace the one of the same layer and ratio."""
        self.rows[row.layer, row.ratio] = row

    def sort(self, layers: Sequence[str]) -> None:
        """Bring the rows into the order of their layers and ratios.

        Args:
            layers: Names of the layers in order; rows of others come last.
        """
        place = {name: number for number, name in enumerate(layers)}
        order = sorted(self.rows, key=lambda key: (place.get(key[0], len(place)), key[1]))
        self.rows = {key: self.rows[key] for key in order}

    def write(self) -> None:
        """Write the rows and the settings to the folder, each file in one step."""
        keys = sorted({key for row in self.rows.values() for key in row.scores})
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*FIXED, *keys])
        for row in self.rows.values():
            scores = [repr(row.scores[key]) if key in row.scores else "" for key in keys]
            writer.writerow([row.layer, float(row.ratio), row.pruned, row.of, *scores])
        write_whole(self.folder / SETTINGS, json.dumps(dict(self.settings), indent=1) + "\n")
        write_whole(self.folder / TABLE, text.getvalue())


def encoded(rows: Sequence[Row]) -> bytes:
    """Return rows as bytes, to be sent to another process.

    Args:
        rows: The rows.
    """
    plain = [[row.layer, str(row.ratio), row.pruned, row.of, dict(row.scores)] for row in rows]
    return json.dumps(plain).encode()


def decoded(content: bytes) -> list[Row]:
    """Return rows that :func:`encoded` has turned into bytes.

    Args:
        content: The bytes.

    Example:
        >>> row = Row("net.0", Fraction(1, 3), 1, 3, {"val_acc": float("nan")})
        >>> decoded(encoded([row]))
        [Row(layer='net.0', ratio=Fraction(1, 3), pruned=1, of=3, scores={'val_acc': nan})]
    """
    return [
        Row(layer, Fraction(ratio), pruned, of, scores)
        for layer, ratio, pruned, of, scores in json.loads(content)
    ]


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ScanError(f"{path} is damaged ({error}): delete it to scan again") from error
    if not isinstance(content, dict):
        raise ScanError(f"{path} is damaged (no JSON object): delete it to scan again")
    return content


def _text(value: object) -> str:
    return json.dumps(value)  # as text, NaN equals NaN


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
