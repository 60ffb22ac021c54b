"""The curves of a scan as a figure of the page about runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lit_compress.errors import ScanError
from lit_compress.report.content import Drawing
from lit_compress.report.content import Table as ShownTable
from lit_compress.report.figures.style import plain, styled
from lit_compress.sensitivity.figure import Curve, curves_of, draw
from lit_compress.sensitivity.table import Table
from lit_compress.sensitivity.targets import WHOLE


def scan_drawing(path: Path, place: str, name: str, metrics: Sequence[str] = ()) -> Drawing:
    """Return the curves of a scan, with their numbers.

    Args:
        path: The file ``scan.csv`` of the scan.
        place: Its name on the page.
        name: Name of the figure, for ids.
        metrics: Metrics of the runs. The first of them that the scan has is drawn, else the first
            of the scan.

    Raises:
        ScanError: If the file is damaged, or has no trials.
    """
    rows = Table.read(path)
    keys = list(dict.fromkeys(key for row in rows for key in row.scores))
    if not keys:
        raise ScanError(f"{place} has no trials")
    monitor = next((metric for metric in metrics if metric in keys), keys[0])
    curves = curves_of(rows, monitor)
    with styled():
        figure = draw({plain(layer): curve for layer, curve in curves.items()}, plain(monitor), "")
    title = f"Sensitivity: {place}"
    text = (
        f"{monitor} with one layer pruned, without training; the thick line prunes all layers at "
        "one ratio."
    )
    return Drawing(name, title, text, figure, _table(curves, title))


def _table(curves: dict[str, Curve], title: str) -> ShownTable:
    ratios = sorted({ratio for curve in curves.values() for ratio in curve})
    rows = [["layer", *(f"{float(ratio):g}" for ratio in ratios)]]
    rows += [
        [
            "all layers" if layer == WHOLE else layer,
            *(f"{curve[ratio]:.4f}" if ratio in curve else "-" for ratio in ratios),
        ]
        for layer, curve in curves.items()
    ]
    return ShownTable(title, rows)
