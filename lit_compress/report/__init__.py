"""Turning a card into what people read; reads a card and nothing else."""

from lit_compress.report.gap import Reached, gap_table
from lit_compress.report.scalars import card_scalars
from lit_compress.report.table import card_table

__all__ = ["Reached", "card_scalars", "card_table", "gap_table"]
