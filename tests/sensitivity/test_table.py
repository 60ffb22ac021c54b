"""The table of a scan: it comes back, goes on, and is not mixed with another."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from lit_compress.errors import ScanError
from lit_compress.sensitivity.table import SETTINGS, TABLE, Row, Table

NAN = float("nan")
WITH: dict[str, Any] = {"weights": "ab", "scores": {"acc": 0.1 + 0.2, "auroc": NAN}}
ROWS = [
    Row("*", Fraction(0), 0, 40, {"acc": 0.1 + 0.2, "loss": 1e-9}),
    Row('odd ,"name"\n.1', Fraction("0.35"), 14, 40, {"acc": NAN, "loss": float("inf")}),
    Row("a", Fraction(1), 40, 40, {"loss": 1 / 3}),
]


def written(folder: Path, rows: list[Row] = ROWS) -> Table:
    table = Table.opened(folder, WITH)
    for row in rows:
        table.add(row)
    table.write()
    return table


def test_rows_come_back_bit_for_bit(tmp_path: Path) -> None:
    table = written(tmp_path / "new" / "scan")
    again = Table.opened(tmp_path / "new" / "scan", WITH)
    assert repr(again.rows) == repr(table.rows)
    assert {path.name for path in again.folder.iterdir()} == {TABLE, SETTINGS}


def test_metrics_may_be_called_as_the_tables_own_columns_are(tmp_path: Path) -> None:
    """A metric called ratio was read as the ratio."""
    row = Row("a", Fraction("0.5"), 1, 2, {"ratio": 7.0, "layer": 8.0})
    written(tmp_path, [row])
    assert list(Table.opened(tmp_path, WITH).rows.values()) == [row]


@pytest.mark.parametrize("change", [{"weights": "cd"}, {"scores": {"acc": 0.3}}])
def test_another_scan_is_not_mixed_in(tmp_path: Path, change: dict[str, Any]) -> None:
    written(tmp_path)
    with pytest.raises(
        ScanError, match=rf"a scan with other settings \({next(iter(change))} was .*dirpath"
    ):
        Table.opened(tmp_path, WITH | change)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "layer,ratio\n",
        "layer,ratio,pruned,of,acc\na,0.5,1,2\n",
        "layer,ratio,pruned,of,acc\na,0.5,1,2,0.5,0.6\n",
        "layer,ratio,pruned,of,acc\na,much,1,2,0.5\n",
        "layer,ratio,pruned,of,acc\na,nan,1,2,0.5\n",
        "layer,ratio,pruned,of,acc\na,0.5,1.5,2,0.5\n",
        "layer,ratio,pruned,of,acc\na,0.5,1,2,x\n",
        b"\xff\xfe",
        "layer,ratio,pruned,of,acc\n" + "a" * 200_000 + ",0.5,1,2,0.5\n",
    ],
)
def test_a_damaged_table_is_told(tmp_path: Path, text: str | bytes) -> None:
    written(tmp_path)
    (tmp_path / TABLE).write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ScanError, match=r"scan\.csv is damaged \(.*\): delete it to scan again"):
        Table.opened(tmp_path, WITH)


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_damaged_settings_are_told(tmp_path: Path, text: str) -> None:
    (tmp_path / SETTINGS).write_text(text)
    with pytest.raises(ScanError, match=r"scan\.json is damaged.*: delete it to scan again"):
        Table.opened(tmp_path, WITH)


def test_settings_alone_are_an_empty_scan(tmp_path: Path) -> None:
    (tmp_path / SETTINGS).write_text(json.dumps(WITH))
    assert Table.opened(tmp_path, WITH).rows == {}


def test_a_folder_that_cannot_be_made_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "scan"):
        with pytest.raises(ScanError, match=f"dirpath {path} cannot be created: "):
            Table.opened(path, WITH)
