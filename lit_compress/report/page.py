"""Build the page about runs: one HTML file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from lit_compress.errors import ReportError
from lit_compress.report.content import Drawing, Run, Skipped, Table

#: What the page is made with, and where it comes from.
PACKAGES = ("jinja2", "matplotlib")


def check_packages() -> None:
    """Refuse to start without the packages that the page is made with.

    Raises:
        ReportError: With the command that installs them.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ReportError(
            f"the report needs {' and '.join(missing)}: pip install 'lit-compress[report]'"
        )


def build_page(
    runs: Sequence[Run], skipped: Sequence[Skipped] = (), scans: Sequence[Drawing] = ()
) -> str:
    """Return the page about runs as HTML.

    Args:
        runs: The runs, in the order of their numbers.
        skipped: Files that could not be read; the page names them.
        scans: The curves of sensitivity scans.

    Returns:
        The text of the page. It has no script, and asks for nothing from elsewhere.

    Raises:
        ReportError: If jinja2 or matplotlib is not installed.

    Example:
        >>> from lit_compress.artifact import Card, Variant
        >>> card = Card("<digits>", (Variant("dense", 1000, 990, bytes=4100),), {})
        >>> page = build_page([Run(1, "card.json", card)])
        >>> "&lt;digits&gt;" in page, "4.10 kB" in page, "<script" in page
        (True, True, False)
    """
    check_packages()
    from lit_compress.report.drawings import runs_drawing

    page: str = _template().render(
        runs=[_of_run(run) for run in runs],
        skipped=skipped,
        scans=scans,
        pareto=runs_drawing(runs) if len(runs) > 1 else None,
    )
    return page


def _of_run(run: Run) -> dict[str, Any]:
    """Return what the template shows of a run."""
    from lit_compress.report.drawings import confusion_drawings, training_drawing
    from lit_compress.report.headline import headline
    from lit_compress.report.layer_drawings import float_table, layer_drawings
    from lit_compress.report.shortfalls import shortfalls
    from lit_compress.report.table import measurement_notes, table_rows

    card, name = run.card, f"run-{run.number}"
    ends = [card.variants[0].name, card.variants[-1].name] if len(card.variants) > 1 else []
    return {
        "id": name,
        "run": run,
        "ends": ends,
        "facts": headline(card),
        "shortfalls": shortfalls(card),
        "variants": Table("The variants of the network", table_rows(card)),
        "layers": layer_drawings(card, name),
        "floats": float_table(card),
        "training": training_drawing(card, name),
        "confusion": confusion_drawings(card, name),
        "notes": measurement_notes(card),
        "environment": _environment(run),
        "config": _config(card.config),
    }


def _environment(run: Run) -> Table:
    facts = {**run.card.environment, "seed": run.card.seed}
    rows = [["what", "value"], *([key, str(value)] for key, value in facts.items())]
    return Table("Where it was measured", rows)


def _config(config: dict[str, Any]) -> str:
    try:
        return json.dumps(config, indent=2, ensure_ascii=False)
    except RecursionError:
        return "nested too deeply to be shown"


def _template() -> Any:
    """Return the template of the page. It escapes everything that comes from a card."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from lit_compress.report.svg import svg_of

    environment = Environment(
        loader=PackageLoader("lit_compress.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = lambda drawing: svg_of(
        drawing.figure, drawing.name, drawing.title, drawing.text
    )
    return environment.get_template("page.html.jinja")


def _shown(value: Any) -> Any:
    """Return a value of the template without characters that no page can have."""
    from lit_compress.report.figures.style import plain

    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "\n".join(map(plain, value.split("\n")))
