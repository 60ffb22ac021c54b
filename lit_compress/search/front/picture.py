"""Draw the trials of a search, and its front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lit_compress.search.front.points import Point
from lit_compress.search.objectives import Objective

#: Units of the axes.
LABELS = {"bytes": "bytes of the file", "macs": "MACs", "latency": "seconds a call"}


def draw(trials: Sequence[Any], points: Sequence[Point], objectives: Sequence[Objective]) -> Any:
    """Return a matplotlib figure: all finished trials, and the front.

    With several objectives, the first is drawn over each of the others; with one, over the number
    of the trial.

    Args:
        trials: The trials of the study.
        points: The front.
        objectives: The objectives of the study.

    Returns:
        The ``matplotlib.figure.Figure``.
    """
    from matplotlib.figure import Figure

    others = max(1, len(objectives) - 1)
    figure = Figure(figsize=(5.5 * others + 1, 4.5), layout="constrained")
    rows = [(t.number, *t.values) for t in trials if t.state.name == "COMPLETE"]
    best = [(point.number, *point.values) for point in points]
    for number, axes in enumerate(figure.subplots(1, others, squeeze=False)[0]):
        across = 0 if len(objectives) == 1 else number + 2
        axes.scatter(*_columns(rows, across), s=18, color="0.65", label="trials")
        line = sorted(best, key=lambda row: row[across])
        style = "steps-post" if len(objectives) == 2 else "default"
        width = 1.2 if len(objectives) == 2 else 0  # of more objectives, two show no line
        axes.plot(
            *_columns(line, across),
            "o-",
            color="tab:red",
            linewidth=width,
            drawstyle=style,
            label="front",
        )
        label = _label(objectives[across - 1].name) if across else "trial"
        axes.set(xlabel=label, ylabel=_label(objectives[0].name))
        axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def _columns(rows: Sequence[Sequence[float]], across: int) -> tuple[list[float], list[float]]:
    return [row[across] for row in rows], [row[1] for row in rows]


def _label(name: str) -> str:
    return LABELS.get(name, name)
