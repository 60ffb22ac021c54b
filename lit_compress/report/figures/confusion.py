"""Heat map of the labels of a test against the answers of a network."""

from __future__ import annotations

from typing import Any

from lit_compress.artifact.variant import Metric
from lit_compress.report.figures.style import WIDTH, new_figure, shades, styled

#: Counts by label (rows) and answer (columns).
Counts = tuple[tuple[int, ...], ...]


def confusion_heat_map(counts: Counts | None) -> Any:
    """Return a heat map with a row for each label and a column for each answer.

    A cell is the share of the images with the label.

    Args:
        counts: Number of images by label and answer.

    Returns:
        The ``matplotlib.figure.Figure``; None if there are no counts.

    Example:
        >>> confusion_heat_map(None) is None
        True
    """
    if not counts:
        return None
    with styled():
        figure = new_figure(WIDTH * 0.75)
        axes = figure.subplots()
        mesh = axes.pcolormesh(row_shares(counts), cmap=shades(), vmin=0, vmax=1)
        axes.invert_yaxis()
        axes.set_aspect("equal")
        axes.set(xlabel="answer", ylabel="label")
        figure.colorbar(mesh, ax=axes, label="share of the label's images", fraction=0.04)
    return figure


def row_shares(counts: Counts) -> list[list[float]]:
    """Return each count as a share of its row.

    Example:
        >>> row_shares(((3, 1), (0, 0)))
        [[0.75, 0.25], [0.0, 0.0]]
    """
    return [[count / max(1, sum(row)) for count in row] for row in counts]


def square(metric: Metric | None) -> Counts | None:
    """Return the confusion of a metric if it is a square table, else None.

    Example:
        >>> square(Metric("val_acc", 1.0, "val", 2, confusion=((1,), (1,)))) is None
        True
    """
    counts = metric.confusion if metric else None
    if not counts or any(len(row) != len(counts) for row in counts):
        return None
    return counts
