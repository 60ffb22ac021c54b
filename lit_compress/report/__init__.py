"""Turning a card into what people read; reads a card and nothing else."""

from lit_compress.report.gap import StepAccuracy, gap_table
from lit_compress.report.scalars import card_scalars
from lit_compress.report.table import card_table

__all__ = ["StepAccuracy", "card_scalars", "card_table", "gap_table"]
