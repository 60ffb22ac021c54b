"""The curves of a scan as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from lit_compress.files import write_whole
from lit_compress.sensitivity.targets import WHOLE

if TYPE_CHECKING:
    from pathlib import Path

Curve = Mapping[Fraction, float]


def can_draw() -> bool:
    """Tell whether matplotlib is there."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def draw(curves: Mapping[str, Curve], monitor: str, title: str, limit: float | None = None) -> Any:
    """Return a matplotlib figure: a thin line a layer, a thick one for all layers at once.

    Args:
        curves: By layer, the metric at each ratio.
        monitor: Name of the metric.
        title: What stands above.
        limit: Metric at which the tolerance ends, for a dotted line.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    layers = [name for name in curves if name != WHOLE]
    for number, name in enumerate(layers):
        shade = number / max(1, len(layers) - 1)
        colour = (0.15 + 0.75 * shade, 0.35, 0.85 - 0.7 * shade, 0.55)
        _line(axes, curves[name], color=colour, linewidth=1)
    if WHOLE in curves:
        _line(axes, curves[WHOLE], color="black", linewidth=2.5, label="all layers at this ratio")
    ends = {"first layer": 0, "last layer": len(layers) - 1} if layers else {}
    for word, number in ends.items():
        shade = number / max(1, len(layers) - 1)
        axes.plot([], [], color=(0.15 + 0.75 * shade, 0.35, 0.85 - 0.7 * shade), label=word)
    if limit is not None:
        axes.axhline(limit, color="grey", linestyle=":", linewidth=1, label="tolerance")
    axes.set(xlabel="share pruned, without training", ylabel=monitor, title=title)
    axes.set_xlim(0, 1)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    return figure


def save(figure: Any, folder: Path, name: str, formats: Sequence[str] = ("png", "svg")) -> None:
    """Write a figure in some formats, each file in one step.

    Args:
        figure: The figure.
        folder: Where to.
        name: Name of the files, without ending.
        formats: Their endings.
    """
    from matplotlib import rc_context

    for ending in formats:
        content = io.BytesIO()
        metadata = {"Date": None} if ending == "svg" else None
        with rc_context({"svg.hashsalt": name}):  # the same scan, the same file
            figure.savefig(content, format=ending, dpi=110, metadata=metadata)
        write_whole(folder / f"{name}.{ending}", content.getvalue())


def _line(axes: Any, curve: Curve, **style: Any) -> None:
    ratios = sorted(curve)
    axes.plot([float(ratio) for ratio in ratios], [curve[ratio] for ratio in ratios], **style)
