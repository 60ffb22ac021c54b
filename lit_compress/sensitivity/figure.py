"""Draw the curves of a scan: the metric of each layer over the pruned share."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from lit_compress.files import write_whole
from lit_compress.sensitivity.table import Row
from lit_compress.sensitivity.targets import WHOLE

if TYPE_CHECKING:
    from pathlib import Path

#: Larger scores are not drawn: they were not measured.
LARGEST = 1e15
#: The metric at each ratio.
Curve = Mapping[Fraction, float]


def can_draw() -> bool:
    """Tell whether matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def curves_of(rows: Iterable[Row], monitor: str) -> dict[str, Curve]:
    """Return the metric at each ratio by name of the layer's weight, without what is no number.

    Args:
        rows: The trials of a scan.
        monitor: The metric.
    """
    curves: dict[str, dict[Fraction, float]] = {}
    for row in rows:
        score = row.scores.get(monitor, math.nan)
        if abs(score) <= LARGEST:
            curves.setdefault(row.layer, {})[row.ratio] = score
    return {**curves}


def draw(curves: Mapping[str, Curve], monitor: str, title: str, limit: float | None = None) -> Any:
    """Return a matplotlib figure: a thin line for each layer, a thick one for all layers at once.

    Args:
        curves: The metric at each ratio, by name of the layer's weight.
        monitor: Name of the metric, for the vertical axis.
        title: Title of the figure.
        limit: Value of the metric at which the tolerance ends, drawn as a dotted line. Default: no
            line.

    Returns:
        The ``matplotlib.figure.Figure``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    layers = [name for name in curves if name != WHOLE]
    for number, name in enumerate(layers):
        colour = (*_colour(number, len(layers)), 0.55)
        _line(axes, curves[name], color=colour, linewidth=1)
    if WHOLE in curves:
        _line(axes, curves[WHOLE], color="black", linewidth=2.5, label="all layers at this ratio")
    ends = {"first layer": 0, "last layer": len(layers) - 1} if layers else {}
    for label, number in ends.items():
        axes.plot([], [], color=_colour(number, len(layers)), label=label)
    if limit is not None:
        axes.axhline(limit, color="grey", linestyle=":", linewidth=1, label="tolerance")
    axes.set(xlabel="share pruned, without training", ylabel=monitor, title=title)
    axes.set_xlim(0, 1)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    return figure


def save(figure: Any, folder: Path, name: str, formats: Sequence[str] = ("png", "svg")) -> None:
    """Write a figure in several formats, each file in one step.

    Args:
        figure: The ``matplotlib.figure.Figure``.
        folder: Folder of the files.
        name: Name of the files, without ending.
        formats: Endings of the files, which are also matplotlib's names of the formats.
    """
    from matplotlib import rc_context

    for ending in formats:
        content = io.BytesIO()
        metadata = {"Date": None} if ending == "svg" else None
        with rc_context({"svg.hashsalt": name}):  # the same scan gives the same bytes
            figure.savefig(content, format=ending, dpi=110, metadata=metadata)
        write_whole(folder / f"{name}.{ending}", content.getvalue())


def _colour(number: int, count: int) -> tuple[float, float, float]:
    """Return the colour of a layer: from blue for the first to red for the last."""
    shade = number / max(1, count - 1)
    return 0.15 + 0.75 * shade, 0.35, 0.85 - 0.7 * shade


def _line(axes: Any, curve: Curve, **style: Any) -> None:
    ratios = sorted(curve)
    axes.plot([float(ratio) for ratio in ratios], [curve[ratio] for ratio in ratios], **style)
