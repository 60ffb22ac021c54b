"""A scan as a figure of the page."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from lit_compress.errors import ScanError
from lit_compress.sensitivity.drawing import scan_drawing
from lit_compress.sensitivity.table import Table

SCAN = Path(__file__).parent.parent / "golden" / "files" / "scan" / "scan.csv"


def test_the_table_has_the_scores_of_the_scan() -> None:
    pytest.importorskip("matplotlib")
    rows = Table.read(SCAN)
    keys = list(dict.fromkeys(key for row in rows for key in row.scores))
    drawing = scan_drawing(SCAN, "scan/scan.csv", "scan-1", ["unknown", keys[-1]])
    assert drawing.text.startswith(f"{keys[-1]} with one layer pruned")
    assert drawing.figure is not None
    assert drawing.table
    ratios = [Fraction(ratio) for ratio in drawing.table.head[1:]]
    shown = {
        (row[0], ratio): cell
        for row in drawing.table.body
        for ratio, cell in zip(ratios, row[1:], strict=True)
    }
    for row in rows:
        name = "all layers" if row.layer == "*" else row.layer
        assert shown[name, row.ratio] == f"{row.scores[keys[-1]]:.4f}"


def test_a_metric_of_no_run_gives_way_to_the_first_of_the_scan() -> None:
    pytest.importorskip("matplotlib")
    first = next(iter(Table.read(SCAN)[0].scores))
    assert scan_drawing(SCAN, "a", "b", ["unknown"]).text.startswith(f"{first} with")


def test_a_scan_without_trials_is_named(tmp_path: Path) -> None:
    path = tmp_path / "scan.csv"
    path.write_text(SCAN.read_text().splitlines(keepends=True)[0])
    with pytest.raises(ScanError, match=r"scan|trials"):
        scan_drawing(path, "scan/scan.csv", "scan-1")
