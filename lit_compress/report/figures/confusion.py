"""Heat map of the labels of a test against the answers of a network."""

from __future__ import annotations

from typing import Any

from lit_compress.artifact.variant import Metric
from lit_compress.report.figures.style import WIDTH, new_figure, shades, styled

#: Counts by label (rows) and answer (columns).
Counts = tuple[tuple[int, ...], ...]


def confusion_heat_map(counts: Counts | None) -> Any:
    """Return a heat map with a row for each label and a column for each answer.

    A cell is the share of the images with the label. Small shares are easier to see than with
    colours in proportion.

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
    from matplotlib.colors import PowerNorm

    edges = [place - 0.5 for place in range(len(counts) + 1)]
    with styled():
        figure = new_figure(WIDTH * 0.75)
        axes = figure.subplots()
        style = {"cmap": shades(), "norm": PowerNorm(0.5, vmin=0, vmax=1)}
        mesh = axes.pcolormesh(edges, edges, row_shares(counts), **style)
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


def most_confused(counts: Counts, most: int = 20) -> list[tuple[int, int, int]]:
    """Return the most frequent wrong answers as label, answer and count.

    Args:
        counts: Number of images by label and answer.
        most: How many to return at most.

    Example:
        >>> most_confused(((3, 1), (2, 0)))
        [(1, 0, 2), (0, 1, 1)]
    """
    wrong = [
        (label, answer, count)
        for label, row in enumerate(counts)
        for answer, count in enumerate(row)
        if label != answer and count
    ]
    return sorted(wrong, key=lambda item: -item[2])[:most]


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
