"""Turn a card into tables for the console and numbers for a logger."""

from lit_compress.report.gap import StepAccuracy, gap_table
from lit_compress.report.scalars import card_scalars
from lit_compress.report.table import card_table, counted

__all__ = ["StepAccuracy", "card_scalars", "card_table", "counted", "gap_table"]
