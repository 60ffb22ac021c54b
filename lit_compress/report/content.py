"""The content of the page about runs, as plain data for its template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lit_compress.artifact.card import Card


@dataclass(frozen=True)
class Table:
    """A table with a head.

    Attributes:
        caption: What the table shows.
        rows: The head, then the rows; the first cell of each row names it.
        shaded: By row and column of the body, a share in [0, 1] for the colour of a cell.

    Example:
        >>> Table("Sizes", [["layer", "weights"], ["conv1", "100"]]).body
        [['conv1', '100']]
    """

    caption: str
    rows: Sequence[Sequence[str]]
    shaded: Sequence[Sequence[float]] | None = None

    @property
    def head(self) -> Sequence[str]:
        """The first row."""
        return self.rows[0]

    @property
    def body(self) -> Sequence[Sequence[str]]:
        """The other rows."""
        return self.rows[1:]


@dataclass(frozen=True)
class Drawing:
    """A figure of the page, its numbers, or the reason why it is absent.

    Attributes:
        name: Name for its ids.
        title: What it shows.
        text: What it says, in a sentence.
        figure: The ``matplotlib.figure.Figure``; None if it is absent.
        table: Its numbers.
        absent: Why there is no figure; empty if there is one.

    Example:
        >>> Drawing("metric", "Metric", absent="the card has no history").figure is None
        True
    """

    name: str
    title: str
    text: str = ""
    figure: Any = None
    table: Table | None = None
    absent: str = ""


@dataclass(frozen=True)
class Run:
    """A card and where it is.

    Attributes:
        number: Number of the run on the page, from 1.
        path: Path of the card below the folder of the report.
        card: The card.

    Example:
        >>> Run(1, "a/card.json", Card("digits", (), {})).title
        'digits'
    """

    number: int
    path: str
    card: Card

    @property
    def title(self) -> str:
        """Name of the run, or the path of its card if it has none."""
        return self.card.run.strip() or self.path


@dataclass(frozen=True)
class Skipped:
    """A file that is not on the page.

    Attributes:
        path: Path of the file below the folder of the report.
        reason: Why it was skipped.

    Example:
        >>> Skipped("a/card.json", "it is not JSON").path
        'a/card.json'
    """

    path: str
    reason: str
