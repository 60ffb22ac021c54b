"""The metric of several runs against the size of their files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lit_compress.artifact.card import Card
from lit_compress.report.figures.style import (
    FIRST,
    QUIET,
    SECOND,
    new_figure,
    short,
    styled,
)


@dataclass(frozen=True)
class Point:
    """The last variant of a run that has a metric and a file.

    Attributes:
        run: Number of the run, from 1.
        name: Name of the variant.
        bytes: Size of its file.
        metric: Its metric.
        best: Whether no other run is both smaller and better; None if it is not known whether
            more of the metric is better.
    """

    run: int
    name: str
    bytes: int
    metric: float
    best: bool | None = None


def metric_against_size(cards: Sequence[Card]) -> Any:
    """Return a figure of several runs: the metric against the bytes of the file.

    A line joins the runs of which no other is both smaller and better (the Pareto front).

    Args:
        cards: The cards of the runs. The numbers at the points count them from 1.

    Returns:
        The ``matplotlib.figure.Figure``; None if fewer than two runs can be compared.

    Example:
        >>> from lit_compress.artifact import Card
        >>> metric_against_size([Card("run", (), {})]) is None
        True
    """
    name, points = comparable(cards)
    if len(points) < 2:
        return None
    with styled():
        figure = new_figure(3.6)
        axes = figure.subplots()
        axes.scatter([p.bytes for p in points], [p.metric for p in points], color=FIRST, zorder=3)
        if front := sorted((p.bytes, p.metric) for p in points if p.best):
            style = {"where": "post", "color": SECOND, "marker": "o", "zorder": 4}
            axes.step(*zip(*front, strict=True), label="Pareto front", **style)
            axes.legend(loc="lower right")
        for point in points:
            place = (point.bytes, point.metric)
            axes.annotate(str(point.run), place, (5, 4), textcoords="offset points")
        _label(axes, name, points)
    return figure


def comparable(cards: Sequence[Card]) -> tuple[str, list[Point]]:
    """Return the metric that most runs have, and a point for each run that has it.

    Runs are compared only on the same metric and split.

    Args:
        cards: The cards of the runs.

    Example:
        >>> from lit_compress.artifact import Card, Metric, Variant
        >>> int8 = Variant("int8", 10, 10, bytes=50, metric=Metric("val_acc", 0.9, "val", 100))
        >>> comparable([Card("a", (int8,), {})])
        ('val_acc', [Point(run=1, name='int8', bytes=50, metric=0.9, best=True)])
    """
    found = [
        (run, variant)
        for run, card in enumerate(cards, 1)
        if (variant := _last_measured(card)) is not None
    ]
    if not found:
        return "metric", []
    kinds = Counter((v.metric.name, v.metric.split) for _, v in found)
    kind = kinds.most_common(1)[0][0]
    points = [
        Point(run, v.name, v.bytes, v.metric.value)
        for run, v in found
        if (v.metric.name, v.metric.split) == kind
    ]
    return kind[0], _ranked(points, kind[0])


def _last_measured(card: Card) -> Any:
    measured = [v for v in card.variants if v.metric is not None and v.bytes]
    return measured[-1] if measured else None


def _ranked(points: list[Point], metric: str) -> list[Point]:
    """Return the points with their place on the Pareto front, if the name says what is better."""
    from lit_compress.measure.metric_names import higher_is_better

    rises = higher_is_better(metric)
    if rises is None:
        return points
    sign = 1 if rises else -1
    return [
        Point(p.run, p.name, p.bytes, p.metric, not any(_beats(q, p, sign) for q in points))
        for p in points
    ]


def _beats(one: Point, other: Point, sign: int) -> bool:
    """Tell whether a point is as small and as good as another, and not the same in both."""
    better = sign * (one.metric - other.metric)
    smaller = other.bytes - one.bytes
    return better >= 0 and smaller >= 0 and (better > 0 or smaller > 0)


def _label(axes: Any, metric: str, points: Sequence[Point]) -> None:
    """Name the axes; sizes that differ by more than ten times are on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    from lit_compress.report.table import human_bytes

    axes.set(xlabel="bytes of the file", ylabel=short(metric))
    sizes = [point.bytes for point in points]
    wide = max(sizes) > 10 * min(sizes)
    axes.set_xscale("log" if wide else "linear")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(6))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: human_bytes(max(0, int(size)))))
    axes.margins(x=0.08, y=0.12)
    axes.tick_params(color=QUIET)
    axes.grid()
