"""What was measured, as a table in plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from lit_compress.benchmark.limit import Limit
from lit_compress.benchmark.measured import Measured

#: Longest line of a note.
WIDTH = 100
#: By name of a figure that can be absent, its column.
COLUMNS = {"share": "of limit", "peak_bytes": "memory"}


def text(rows: Sequence[Measured], limits: Sequence[Limit], notes: Sequence[str]) -> str:
    """Return the table, and the notes below it.

    Args:
        rows: What was measured.
        limits: What the machine does at most.
        notes: What a reader should know.
    """
    compared = any(row.speedups for row in rows)
    head = ["file", "runtime", "batch", "threads", "median ms", "95 % interval", "examples/s"]
    head += ["memory", "of limit"] + (["faster", "99 % interval"] if compared else [])
    lines = [head, *(_cells(row, compared) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    shown = [_line(line, widths).rstrip() for line in lines]
    machine = [f"limit of this machine, {limit}" for limit in limits]
    for note in [*notes, *machine, *_reasons(rows)]:
        shown += textwrap.wrap(note, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(shown)


def _cells(row: Measured, compared: bool) -> list[str]:
    low, high = (_figures(1000 * end) for end in row.interval)
    cells = [row.file, row.runtime, str(row.batch), str(row.threads), _figures(1000 * row.seconds)]
    cells += [f"{low} to {high}", _figures(row.examples_per_second)]
    cells.append("-" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.1f} MiB")
    cells.append("-" if row.share is None else f"{row.share:.1%}")
    if compared:
        each = [f"{_figures(s.ratio)}x" if s.significant else "same" for s in row.speedups]
        ends = [" to ".join(map(_figures, s.interval)) for s in row.speedups]
        cells += [" / ".join(each) or "-", " / ".join(ends) or "-"]
    return cells


def _reasons(rows: Sequence[Measured]) -> list[str]:
    """Return why figures are absent, once for each reason."""
    files: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        for figure, reason in row.absent.items():
            files.setdefault((COLUMNS[figure], reason), {})[row.file] = None
    return [f"no '{name}' of {', '.join(of)}: {why}" for (name, why), of in files.items()]


def _figures(value: float) -> str:
    """Return a number with at least three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = [cell.ljust(width) for cell, width in zip(cells[:2], widths[:2], strict=True)]
    rest = [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:], strict=True)]
    return "  ".join([*first, *rest])
