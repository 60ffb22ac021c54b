"""Figures of cards, for the page and for TensorBoard; each needs matplotlib, and no window."""

from lit_compress.report.figures.confusion import confusion_heat_map
from lit_compress.report.figures.epochs import kept_channels_heat_map, metric_over_epochs
from lit_compress.report.figures.layers import kept_bars, sqnr_bars
from lit_compress.report.figures.size import metric_against_size

__all__ = [
    "confusion_heat_map",
    "kept_bars",
    "kept_channels_heat_map",
    "metric_against_size",
    "metric_over_epochs",
    "sqnr_bars",
]
